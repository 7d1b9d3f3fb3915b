"""MLLP: blocks of bytes over TCP, each answered before the next. What is in a block is somebody else's concern.

A server that keeps its connections, as senders of HL7 expect, checks who calls, bounds the size of a block and the
time it may take, and can be stopped. hl7apy, which reads the messages, has a server of its own: it closes after every
message, takes blocks of any size byte by byte, and prints what it stumbles over, so it is not used.

Source: HL7 v2 Transport Specification, Minimal Lower Layer Protocol, Release 1.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from dicom_node.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START: Final = 0x0B
END: Final = b"\x1c\x0d"
BETWEEN: Final = b"\r\n \t"  # what some senders put between blocks
MOST_BYTES: Final = 256 * 1024  # an ADT is 1 to 10 kB; some carry a photograph, which we would not read
MOST_CONNECTIONS: Final = 16
IDLE_S: Final = 600.0
BLOCK_S: Final = 30.0  # from a block's first byte to its last
CHUNK: Final = 65536


class BrokenFrame(PeerError):  # noqa: N818 - the name says what it is
    """What came is no block: the connection has to be closed, for nobody knows where the next one starts."""


def frame(content: bytes) -> bytes:
    """Return content as a block."""
    return bytes((START,)) + content + END


def read_blocks(connection: socket.socket, *, idle_s: float = IDLE_S, block_s: float = BLOCK_S) -> Iterator[bytes]:
    """Yield the content of each block until the sender closes or is idle for too long.

    Raises:
        BrokenFrame: if there is something else than blocks, or a block is too long or takes too long.
    """
    held = bytearray()
    while True:
        held = bytearray(held.lstrip(BETWEEN))
        if held and held[0] != START:
            msg = f"MLLP: expected a block that starts with 0x0b, found 0x{held[0]:02x}"
            raise BrokenFrame(msg)
        if not held:
            connection.settimeout(idle_s)
            if not _receive(connection, held):
                return
            continue
        end = _finish(connection, held, time.monotonic() + block_s)
        yield bytes(held[1:end])
        del held[: end + len(END)]


def _finish(connection: socket.socket, held: bytearray, deadline: float) -> int:
    """Receive until a block is whole; return where it ends."""
    searched = 0
    while (end := held.find(END, searched)) < 0:
        searched = max(len(held) - 1, 0)
        left_s = deadline - time.monotonic()
        if len(held) > MOST_BYTES or left_s <= 0:
            break
        connection.settimeout(left_s)
        if not _receive(connection, held):
            break
    if 0 <= end <= MOST_BYTES:
        return end
    msg = f"MLLP: expected a whole block of at most {MOST_BYTES} bytes in time, found {len(held)} bytes"
    raise BrokenFrame(msg)


def _receive(connection: socket.socket, held: bytearray) -> bool:
    """Add what comes next; say whether anything came before the sender closed, broke off or let the time pass."""
    try:
        chunk = connection.recv(CHUNK)
    except OSError:
        return False
    held += chunk
    return bool(chunk)


class MllpServer(socketserver.ThreadingTCPServer):
    """Answers blocks, one thread per connection.

    Args:
        address: host and port to listen on.
        answer: makes the content of the answer from a block's content and the caller's IP address.
        allows: says whether an IP address may connect.
        broken: is told why a connection was closed or an address turned away, with the address.
    """

    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        *,
        answer: Callable[[bytes, str], bytes],
        allows: Callable[[str], bool],
        broken: Callable[[str, BaseException | str], None],
    ) -> None:
        self._answer = answer
        self._allows = allows
        self._broken = broken
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, socketserver.BaseRequestHandler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Turn away whom we do not know, and everybody while too many are connected."""
        if not self._allows(client_address[0]):
            self._broken(client_address[0], "address not allowed")
            return False
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                self._broken(client_address[0], "too many connections")
                return False
            self._open.add(request)
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end."""
        for content in read_blocks(request):
            answer = self._answer(content, client_address[0])
            request.settimeout(BLOCK_S)
            request.sendall(frame(answer))

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Report why a connection ended in an error, where socketserver would print it."""
        error = sys.exc_info()[1]
        self._broken(client_address[0], error if error is not None else "unknown")

    def close(self) -> None:
        """Take no new connections, end the open ones, and wait until they have ended."""
        self.shutdown()
        with self._lock:
            for each in self._open:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # its sender was faster
        self.server_close()
