"""A listening node in a process of its own, so that its memory, threads and files are its alone."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

from dicom_node.demo_pacs import free_port
from dicom_node.ledger.database import Database
from dicom_node.observe.logs import open_log
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.listener import Listener
from dicom_node.settings import Settings
from tests.fuzz.pdus import GoodPeer

PEAK_LIMIT_MB: Final = 400  # of the listening process, whatever peers send: its own 120, and a few whole PDUs
START_LIMIT_S: Final = 500.0  # on a very busy machine; 2 s on an idle one
SETTLED_WITHIN_S: Final = 120.0  # until threads and sockets are as before
_NUMBERS = count(1)


class NodeLostError(AssertionError):
    """The listening process is gone, refuses a good peer, or keeps what it should give back."""


class Served:
    """Starts the listener of a node with an empty ledger."""

    def __init__(self, folder: Path, *, engine: str | None = None, **receive: Any) -> None:
        self.port = free_port()
        config = {
            "node": {"ae_title": "TEMPORALNODE", "port": self.port, "data_dir": str(folder / "data")},
            "receive": {
                "peers": [{"ae_title": "SCANNER1", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}],
                "min_free_disk_gb": 0,
                "max_associations": 20,
            }
            | ({"engine": engine} if engine else {})
            | receive,
            "tasks": ["glioma-recurrence"],
            "logging": {"format": "json"},
        }
        self.log_path = folder / "listener.jsonl"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.served", json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_LIMIT_S)
        if not ready or self._process.stdout.readline() != b"listening\n":
            self.stop()
            msg = f"the listener did not start: {self.log_path.read_text(encoding='utf-8')[-2000:]}"
            raise NodeLostError(msg)
        self.threads_when_idle = self._sockets = 0

    def calibrate(self) -> None:
        """Remember how many threads and sockets the node has when nobody is connected."""
        time.sleep(1)
        self.threads_when_idle, self._sockets = self.threads(), self.sockets()

    def store(self) -> None:
        """Store one image as a good peer does.

        Raises:
            NodeLostError: if it is not answered with success.
        """
        try:
            peer = GoodPeer(self.port)
            status = peer.store(next(_NUMBERS))
            peer.release()
        except OSError as error:
            self.expect_alive()
            msg = f"a good C-STORE was not served: {error!r}"
            raise NodeLostError(msg) from error
        if status != 0x0000:
            msg = f"a good C-STORE was answered with {status:#06x}"
            raise NodeLostError(msg)

    def expect_alive(self) -> None:
        """Expect the process to run, and never to have used more memory than its limit.

        Raises:
            NodeLostError: if not so.
        """
        if self._process.poll() is not None:
            msg = f"the node ended with {self._process.returncode}"
            raise NodeLostError(msg)
        if (peak := self.peak_mb()) > PEAK_LIMIT_MB:
            msg = f"the node used {peak:.0f} MB (limit {PEAK_LIMIT_MB})"
            raise NodeLostError(msg)

    def expect_settled(self) -> None:
        """Expect threads and sockets to come back to what they were.

        Raises:
            NodeLostError: if they do not in time.
        """
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while time.monotonic() < deadline:
            if self.threads() <= self.threads_when_idle + 1 and self.sockets() <= self._sockets:
                return
            time.sleep(0.2)
        msg = (
            f"expected {self.threads_when_idle} threads and {self._sockets} sockets, "
            f"found {self.threads()} and {self.sockets()}"
        )
        raise NodeLostError(msg)

    def threads(self) -> int:
        """Return how many threads it has."""
        return len(list(Path(f"/proc/{self._process.pid}/task").iterdir()))

    def sockets(self) -> int:
        """Return how many sockets it has open."""
        found = 0
        for each in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += str(each.readlink()).startswith("socket:")
        return found

    def peak_mb(self) -> float:
        """Return the most memory it has used, in MB."""
        return peak_mb(self._process.pid)

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def peak_mb(pid: int | str = "self") -> float:
    """Return the peak resident memory of a process in MB (VmHWM, proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1e3
    return 0.0


def main() -> None:
    """Listen until standard input ends; the configuration is the first argument."""
    settings = Settings.model_validate(json.loads(sys.argv[1]))
    data = settings.node.data_dir
    data.mkdir(parents=True, exist_ok=True)
    database = Database(settings.ledger_url)
    database.migrate()
    files = InstanceFiles(data / "instances")
    files.prepare()
    listener = Listener(settings, database, files, open_log(settings.logging, b"key", sys.stderr))
    listener.start()
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    watchdog = threading.Timer(50, lambda: sys.exit(1))
    watchdog.daemon = True
    watchdog.start()
    listener.stop()
    database.close()


if __name__ == "__main__":
    main()
