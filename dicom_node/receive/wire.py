"""Reads from a peer's socket within limits: a length that cannot be, silence, a sender too slow to ever end.

Two settings of TCP decide the speed. Replies leave at once (TCP_NODELAY). And what came is acknowledged at once
(TCP_QUICKACK, which the kernel forgets and has to be told again): a sender that still has Nagle's algorithm on holds
back the second half of a PDU until the first is acknowledged, which otherwise takes 40 ms.

A plain socket blocks in the kernel, which wakes up every `TICK_S` so that a stop is seen; a TLS socket does the same
in Python.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_S: Final = 0.25
SLOWEST_BYTES_PER_S: Final = 1000.0  # an object of 100 MB may take a day, one that never ends may not
QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)  # Linux alone has it


class ConnectionEndedError(OSError):
    """The peer closed the connection, or it broke."""


class LimitError(OSError):
    """The peer was silent or slow for too long, or announced more than we take: the association is aborted."""


class StoppingError(OSError):
    """The listener is to end."""


class Wire:
    """The receiving side of one connection.

    Args:
        connection: a connected socket, plain or TLS; its time limits are set here.
        idle_timeout_s: how long it may say nothing; a message must also end within that and a second per 1000 bytes.
        stopping: says whether the listener is to end.
    """

    def __init__(self, connection: socket.socket, *, idle_timeout_s: float, stopping: Callable[[], bool]) -> None:
        self._connection = connection
        self._idle_timeout_s = idle_timeout_s
        self._stopping = stopping
        self._flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        self._began_at = self._heard_at = time.monotonic()
        self._heard_bytes = 0
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(TICK_S)
        else:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(TICK_S))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(idle_timeout_s))

    def begin(self) -> None:
        """Give the message that comes next its own time, from its first byte on."""
        self._heard_at = time.monotonic()
        self._heard_bytes = 0

    def fill(self, space: memoryview, least: int) -> int:
        """Read until at least so many bytes of a space are filled, and return how many are.

        Raises:
            ConnectionEndedError: if it ended before.
            LimitError: if they did not come in time.
            StoppingError: if the listener is to end and they are not there.
        """
        filled = 0
        flags = self._flags if least == len(space) else 0
        while filled < least:
            try:
                got = self._connection.recv_into(space[filled:], 0, flags)
            except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
                self._check()
                continue
            except OSError as error:
                raise ConnectionEndedError(str(error.strerror)) from error
            if not got:
                raise ConnectionEndedError("closed")
            self._note(got)
            filled += got
            if filled < least:
                self._check()
        return filled

    def send(self, reply: bytes) -> None:
        """Send all of a short reply.

        Raises:
            ConnectionEndedError: if the peer is gone or does not take it.
        """
        try:
            self._connection.sendall(reply)
            if QUICKACK is not None:  # a reply ends the kernel's patience with quick acknowledgements
                self._connection.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        except OSError as error:
            raise ConnectionEndedError(str(error.strerror)) from error

    def abort(self, pdu: bytes) -> None:
        """Send a last PDU to a peer that may be gone."""
        with contextlib.suppress(OSError):
            self._connection.sendall(pdu)

    def _note(self, got: int) -> None:
        if QUICKACK is not None:
            self._connection.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        self._heard_at = time.monotonic()
        if not self._heard_bytes:
            self._began_at = self._heard_at
        self._heard_bytes += got

    def _check(self) -> None:
        now = time.monotonic()
        if self._stopping():
            raise StoppingError
        if now - self._heard_at > self._idle_timeout_s:
            raise LimitError("silent")
        if now - self._began_at > self._idle_timeout_s + self._heard_bytes / SLOWEST_BYTES_PER_S and self._heard_bytes:
            raise LimitError("slow")


def _timeval(seconds: float) -> bytes:
    """Return the C structure timeval."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
