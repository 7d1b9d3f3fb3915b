"""Connections that have not become associations: how many may wait, and how much anyone may announce.

pynetdicom takes a connection for an association before it asks for one, keeps one that was closed again for as long as
it would have waited for the request, and reads a PDU as long as its header says, up to 4 GiB. So a few silent or closed
connections, those of a load balancer's probe among them, would keep every scanner out, and one header would fill the
memory. Here connections that wait are limited on their own, forgotten when they end, and take no place of an
association; a PDU has a longest length and a time by which it must be there. While nothing was asked, a connection's
thread sleeps until something comes, where pynetdicom looks a thousand times a second: with eight of them a good peer
kept 0.89 of its speed.

What is used of pynetdicom's inside is named in `tests/unit/test_threshold.py`.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from pynetdicom import evt

from dicom_node.receive import statuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.transport import AssociationSocket

MOST_WAITING: Final = 64  # connections that have not asked for an association; asking takes milliseconds
MOST_WAITING_FROM_ONE_ADDRESS: Final = 16
MOST_STRANGERS_WAITING: Final = 32  # from addresses that no peer calls from: the rest is kept for those who may enter
TOO_MANY_WAITING: Final = "too-many-connections-that-ask-for-nothing"
LONGEST_REQUEST: Final = 1 << 20  # bytes of an A-ASSOCIATE-RQ: 128 contexts with 38 transfer syntaxes are 350 kB
HEADER_BYTES: Final = 6  # of a PDU; some senders do not count it in
SLOWEST_BYTES_PER_S: Final = 1000.0  # as the fast engine has it
CHUNK: Final = 65536
AWAITING_REQUEST: Final = "Sta2"  # PS3.8 table 9-10
LOOK_S: Final = 0.05  # and then for a timer that expired, or the end


class AnnouncedTooMuchError(ConnectionError):
    """A PDU's header says that it is longer than anything we take."""


class Threshold:
    """What is bound to a server's events so that connections keep within limits.

    Args:
        most: associations at the same time.
        max_pdu_bytes: the largest PDU we ask for.
        idle_timeout_s: how long a PDU may take, beside a second for every 1000 bytes of it.
        knows: says whether somebody who may enter calls from an address.
        refused: is told calling AE title, address and reason of everyone turned away.
    """

    def __init__(
        self,
        *,
        most: int,
        max_pdu_bytes: int,
        idle_timeout_s: float,
        knows: Callable[[str], bool],
        refused: Callable[[str, str, str], None],
    ) -> None:
        self._most = most
        self._max_pdu_bytes = max_pdu_bytes
        self._idle_timeout_s = idle_timeout_s
        self._knows = knows
        self._refused = refused
        self._guard = threading.Lock()
        self._waiting: dict[Association, str] = {}

    @property
    def handlers(self) -> list[tuple[Any, Callable[[Event], None]]]:
        """What is to be bound, behind whatever else judges a request."""
        return [(evt.EVT_CONN_OPEN, self._opened), (evt.EVT_CONN_CLOSE, self._closed), (evt.EVT_REQUESTED, self._asked)]

    @property
    def pynetdicom_limit(self) -> int:
        """The limit to give to pynetdicom, whose count has everybody in it: never reached before ours."""
        return self._most + 2 * MOST_WAITING

    def _opened(self, event: Event) -> None:
        """Bound what the connection may announce; close it if too many are waiting already."""
        assoc, address = event.assoc, event.assoc.requestor.address
        transport = assoc.dul.socket
        if transport is None:
            return
        transport.recv = _Bounded(assoc, transport, self._max_pdu_bytes, self._idle_timeout_s)  # type: ignore[method-assign] # the one way in
        assoc.dul._is_transport_event = _Asleep(assoc, transport)  # type: ignore[method-assign] # noqa: SLF001
        with self._guard:
            self._waiting = {each: where for each, where in self._waiting.items() if _waits(each)}
            full = self._is_full(address)
            if not full:
                self._waiting[assoc] = address
        if full:
            transport._shutdown_socket()  # noqa: SLF001 - as pynetdicom does where a peer is gone
            self._refused("", address, TOO_MANY_WAITING)

    def _is_full(self, address: str) -> bool:
        waiting = list(self._waiting.values())
        if len(waiting) >= MOST_WAITING or waiting.count(address) >= MOST_WAITING_FROM_ONE_ADDRESS:
            return True
        strangers = sum(not self._knows(each) for each in waiting)
        return strangers >= MOST_STRANGERS_WAITING and not self._knows(address)

    def _closed(self, event: Event) -> None:
        """End the wait for a request that cannot come any more."""
        with self._guard:
            self._waiting.pop(event.assoc, None)
        if event.assoc.is_acceptor and event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(None)  # what a wait that timed out gives

    def _asked(self, event: Event) -> None:
        """Let a request in if there is room among the associations proper; nobody else has refused it yet."""
        assoc = event.assoc
        with self._guard:
            self._waiting.pop(assoc, None)
        if assoc.is_rejected or assoc.is_aborted:
            return
        others = [each for each in assoc.ae.active_associations if each is not assoc and _is_open(each)]
        if len(others) >= self._most:
            assoc.acse.send_reject(*statuses.TOO_MANY[:3])
            assoc.kill()
            self._refused(str(assoc.requestor.ae_title).strip(), assoc.requestor.address, statuses.TOO_MANY.reason)


class _Asleep:
    """Stands for `DULServiceProvider._is_transport_event`: sleeps first, while nothing was asked."""

    def __init__(self, assoc: Association, transport: AssociationSocket) -> None:
        self._dul = assoc.dul
        self._transport = transport
        self._look = assoc.dul._is_transport_event  # noqa: SLF001 - what it stands for

    def __call__(self) -> bool:
        """Say whether something came and was read."""
        connection = self._transport.socket
        waits = self._dul.state_machine.current_state == AWAITING_REQUEST
        if waits and connection is not None and not self._transport.ready:
            poller = select.poll()
            with contextlib.suppress(OSError, ValueError):  # it is closed: the look that follows says so
                poller.register(connection, select.POLLIN)
                poller.poll(1000 * LOOK_S)
        return self._look()


class _Bounded:
    """Stands for `AssociationSocket.recv`: all bytes asked for, unless that is too many or takes too long."""

    def __init__(
        self, assoc: Association, transport: AssociationSocket, max_pdu_bytes: int, idle_timeout_s: float
    ) -> None:
        self._assoc = assoc
        self._transport = transport
        self._max_pdu_bytes = max_pdu_bytes
        self._idle_timeout_s = idle_timeout_s

    def __call__(self, nr_bytes: int) -> bytearray:
        """Return what was read: less than asked for if the peer has closed.

        Raises:
            AnnouncedTooMuchError: before anything is read.
            OSError: if the connection broke, or the time is over.
        """
        longest = self._max_pdu_bytes + HEADER_BYTES if self._assoc.is_established else LONGEST_REQUEST
        if nr_bytes > longest:
            msg = f"expected a PDU of at most {longest} bytes, found {nr_bytes} announced"
            raise AnnouncedTooMuchError(msg)
        connection = self._transport.socket
        if connection is None:
            return bytearray()
        deadline = time.monotonic() + self._idle_timeout_s + nr_bytes / SLOWEST_BYTES_PER_S
        found = bytearray()
        try:
            while len(found) < nr_bytes:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                received = connection.recv(min(CHUNK, nr_bytes - len(found)))
                if not received:
                    break
                found += received
        finally:
            connection.settimeout(None)
        return found


def _waits(assoc: Association) -> bool:
    """Say whether a connection may still ask: its thread, once started, runs."""
    return assoc.requestor.primitive is None and (assoc.ident is None or assoc.is_alive())


def _is_open(assoc: Association) -> bool:
    ended = assoc.is_released or assoc.is_aborted or assoc.is_rejected
    return assoc.is_acceptor and assoc.requestor.primitive is not None and not ended
