"""How fast a good peer stores beside hostile ones, against how fast it stores alone: one run, in turns.

python -m tests.fuzz --hostile
"""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from tests.fuzz import pdus
from tests.fuzz.served import Served

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS: Final = 5
LEAST_SHARE: Final = 0.8  # of its speed alone, that a good peer keeps
CROWD: Final = 200  # associations that are open and say nothing
IMAGES: Final = 1500  # of 1.3 kB, so that what is measured is the node and not the wire
_NUMBERS = count(10_000)


def measure(*, engine: str | None = None, images: int = IMAGES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return images a second alone and beside hostile peers in every round, and the ratio of their medians."""
    with tempfile.TemporaryDirectory() as folder:
        node = Served(Path(folder), engine=engine, max_associations=CROWD + 50)
        try:
            _rate(node, images)  # to warm up
            alone, beside = [], []
            for _ in range(rounds):
                alone.append(_rate(node, images))
                with _Hostility(node.port):
                    beside.append(_rate(node, images))
            node.expect_alive()
            peak_mb = node.peak_mb()
        finally:
            node.stop()
    return {
        "ratio": round(median(beside) / median(alone), 3),
        "alone_per_s": [round(each, 1) for each in alone],
        "beside_hostile_per_s": [round(each, 1) for each in beside],
        "peak_mb": round(peak_mb, 1),
    }


def _rate(node: Served, images: int) -> float:
    """Return images a second of one good association."""
    peer = pdus.GoodPeer(node.port)
    began = time.perf_counter()
    statuses = {peer.store(next(_NUMBERS)) for _ in range(images)}
    took_s = time.perf_counter() - began
    peer.release()
    if statuses != {0x0000}:
        msg = f"expected success alone, found {statuses}"
        raise AssertionError(msg)
    return images / took_s


class _Hostility:
    """Peers that each do their worst, over and over, five times a second, until the block ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._crowded = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=(each,), daemon=True) for each in self._habits()]

    def __enter__(self) -> None:
        for each in self._threads:
            each.start()
        if not self._crowded.wait(60):
            msg = f"expected {CROWD} associations to be let in within a minute"
            raise AssertionError(msg)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def _habits(self) -> list[Callable[[], None]]:
        return [self._silent, self._trickle, self._announce, self._abort, self._strange, self._noise, self._crowd]

    def _repeat(self, habit: Callable[[], None]) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                habit()
            self._over.wait(0.2)

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=10)

    def _crowd(self) -> None:
        """Open as many associations as a hospital has scanners, and keep them."""
        with contextlib.ExitStack() as stack:
            for _ in range(CROWD):
                connection = stack.enter_context(self._connect())
                connection.sendall(pdus.associate())
                pdus.read_pdu(connection)
            self._crowded.set()
            self._over.wait()

    def _silent(self) -> None:
        """Open connections and say nothing for a second."""
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(self._connect())
            self._over.wait(1)

    def _trickle(self) -> None:
        """Send one byte a second of a data set."""
        with self._connect() as connection:
            connection.sendall(pdus.associate())
            pdus.read_pdu(connection)
            connection.sendall(struct.pack(">BxI", pdus.DATA, 10_000))
            while not self._over.wait(1):
                connection.sendall(b"\0")

    def _announce(self) -> None:
        """Announce four gigabytes and send what is taken of them."""
        with self._connect() as connection:
            connection.sendall(struct.pack(">BxI", pdus.ASSOCIATE_RQ, 0xFFFFFFFF) + bytes(1 << 20))

    def _abort(self) -> None:
        """Go away in the middle of a message."""
        sent = pdus.image()
        with self._connect() as connection:
            connection.sendall(pdus.associate())
            pdus.read_pdu(connection)
            connection.sendall(pdus.store(sent.uid, sent.data_set)[:200] + pdus.pdu(pdus.ABORT, bytes(4)))

    def _strange(self) -> None:
        """Ask under a title that nobody knows."""
        with self._connect() as connection:
            connection.sendall(pdus.associate(calling=b"STRANGER"))
            pdus.read_pdu(connection)

    def _noise(self) -> None:
        """Send what is no DICOM at all."""
        with self._connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
            connection.recv(1000)
