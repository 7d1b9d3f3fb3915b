"""The fast engine: C-STORE and C-ECHO read from the socket by the association's own thread, without PDU objects.

pynetdicom negotiates, releases and aborts; it also serves every association that is not plainly about storage. Between,
its two threads would pass each PDU as objects through queues that they look into once a millisecond: that costs more
time than disk and database together. So the thread that has sent the A-ASSOCIATE-AC stays in our handler of that
transition of its state machine (AE-7, PS3.8 9.2.3) and reads PDUs itself, while the other thread is held at the
checkpoint that pynetdicom keeps for this. What it does not know it hands back as pynetdicom would have read it:

    P-DATA-TF with a C-STORE or C-ECHO request    served here
    P-DATA-TF with any other sound command        handed back, and with it the rest of the association
    A-RELEASE-RQ, A-ABORT                         handed back: pynetdicom ends the association
    anything else, limits exceeded                A-ABORT sent, connection closed (PS3.8 9.2.3, AA-8)

Memory is bounded by a buffer for each association, whatever a length field says: a data set larger than that goes to
the disk piece by piece. `tests/unit/test_pynetdicom_inside.py` names what is used of pynetdicom's inside.
"""

from __future__ import annotations

import struct
import threading
from functools import partial
from mmap import mmap
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from pynetdicom import evt

from dicom_node import events
from dicom_node.receive import fast_commands, statuses
from dicom_node.receive.reception import StoreRequest
from dicom_node.receive.wire import ConnectionEndedError, LimitError, StoppingError, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from dicom_node.observe.logs import Log
    from dicom_node.receive.fast_commands import Request
    from dicom_node.receive.reception import Incoming, Reception
    from dicom_node.receive.tally import Tally

ACCEPT_SENT: Final = "AE-7"  # the action that sends the A-ASSOCIATE-AC, PS3.8 table 9-7
CLOSED: Final = "Evt17"  # transport connection closed, PS3.8 table 9-10
P_DATA_TF: Final = 0x04
SHORT_PDUS: Final = frozenset({0x05, 0x07})  # A-RELEASE-RQ and A-ABORT: 4 bytes behind the header, PS3.8 9.3.6, 9.3.8
A_ABORT: Final = struct.pack(">BxIxxBB", 0x07, 4, 2, 0)  # by the service provider, reason not specified
HEADER_BYTES: Final = 6  # of a PDU, and of a presentation data value item with its message control header
ITEM_BYTES: Final = 2  # of an item's length: context and message control header
IS_COMMAND, IS_LAST = 0x01, 0x02  # bits of the message control header, PS3.8 E.2
BUFFER_BYTES: Final = 1 << 20  # holds most instances whole, so that one write is enough
LONGEST_COMMAND: Final = 1 << 16
SMALLEST_PDU: Final = 1024  # a peer that takes less than an answer needs is left to pynetdicom
STOP_TIMEOUT_S: Final = 10.0


class ProtocolError(Exception):
    """What came cannot be part of a message."""


class HandBack(Exception):  # noqa: N818 - no error
    """A whole PDU that is pynetdicom's to judge."""

    def __init__(self, pdu: bytes) -> None:
        super().__init__("handed back")
        self.pdu = pdu


class Item(NamedTuple):
    """The head of a presentation data value item (PS3.8 9.3.5.1); `size_bytes` are still to be read."""

    context_id: int
    control: int
    size_bytes: int


class FastEngine:
    """Takes over associations for storage when they are accepted, and gives them back to be ended."""

    def __init__(
        self,
        reception: Reception,
        tally: Tally,
        log: Log,
        *,
        sop_classes: frozenset[str],
        idle_timeout_s: float,
        max_pdu_bytes: int,
    ) -> None:
        self._reception = reception
        self._tally = tally
        self._log = log
        self._sop_classes = sop_classes | {fast_commands.VERIFICATION}
        self._idle_timeout_s = idle_timeout_s
        self._max_pdu_bytes = max_pdu_bytes
        self._stopping = threading.Event()
        self._nobody_served = threading.Condition()
        self._served = 0

    @property
    def handlers(self) -> list[tuple[Any, Callable[[Event], None]]]:
        """What is to be bound to the server's events."""
        return [(evt.EVT_FSM_TRANSITION, self._on_transition)]

    def stop(self) -> None:
        """Let every association end after the message that is under way; return when they did."""
        self._stopping.set()
        with self._nobody_served:
            self._nobody_served.wait_for(lambda: not self._served, timeout=STOP_TIMEOUT_S)

    def _on_transition(self, event: Event) -> None:
        """Serve an association in pynetdicom's own thread, from its acceptance to its end."""
        if event.action != ACCEPT_SENT or not self._suits(event.assoc):
            return
        assoc = event.assoc
        with self._nobody_served:
            self._served += 1
        assoc._reactor_checkpoint.clear()  # noqa: SLF001 - holds the association's thread
        try:
            self._serve(assoc)
        except Exception as error:  # noqa: BLE001 - the edge of a thread that others wait for
            self._log.failure(events.CONNECTION_BROKEN, error)
            assoc.dul.event_queue.put(CLOSED)
        finally:
            assoc.dul._idle_timer.restart()  # noqa: SLF001 - else it has expired meanwhile
            assoc._reactor_checkpoint.set()  # noqa: SLF001
            with self._nobody_served:
                self._served -= 1
                self._nobody_served.notify_all()

    def _suits(self, assoc: Association) -> bool:
        """Say whether we are the SCP of everything accepted, and the peer takes answers of usual length."""
        longest = assoc.requestor.maximum_length or SMALLEST_PDU  # 0: unlimited, PS3.8 D.1
        contexts = assoc.accepted_contexts
        return longest >= SMALLEST_PDU and all(
            context.as_scp and not context.as_scu and str(context.abstract_syntax) in self._sop_classes
            for context in contexts
        )

    def _serve(self, assoc: Association) -> None:
        dul = cast("Any", assoc.dul)
        wire = Wire(dul.socket.socket, idle_timeout_s=self._idle_timeout_s, stopping=self._stopping.is_set)
        try:
            tell = partial(self._tally.stored, assoc)
            limit, stopping = self._max_pdu_bytes, self._stopping.is_set
            _Storage(assoc, wire, self._reception, tell, max_pdu_bytes=limit, stopping=stopping).serve()
        except HandBack as back:
            pdu, found = dul._decode_pdu(back.pdu)  # noqa: SLF001 - as its _read_pdu_data does
            dul.event_queue.put(found)
            dul._recv_pdu.put(pdu)  # noqa: SLF001
        except ConnectionEndedError:
            dul.event_queue.put(CLOSED)
        except (ProtocolError, LimitError, StoppingError) as error:
            self._log.warning(
                events.CONNECTION_BROKEN,
                calling_ae_title=str(assoc.requestor.ae_title).strip(),
                address=assoc.requestor.address,
                reason=f"{type(error).__name__}: {error}",
            )
            wire.abort(A_ABORT)
            dul.event_queue.put(CLOSED)


class _Storage:
    """The messages of one association, from the first byte after its acceptance on."""

    def __init__(
        self,
        assoc: Association,
        wire: Wire,
        reception: Reception,
        tell: Callable[[], None],
        *,
        max_pdu_bytes: int,
        stopping: Callable[[], bool],
    ) -> None:
        self._wire = wire
        self._reception = reception
        self._tell = tell
        self._longest_pdu = max_pdu_bytes + HEADER_BYTES  # some senders do not count the header
        self._stopping = stopping
        self._calling = str(assoc.requestor.ae_title).strip()
        self._address = assoc.requestor.address
        self._contexts = {
            context.context_id: (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in assoc.accepted_contexts
        }
        self._left = 0  # bytes of the present PDU that were not read
        self._head = memoryview(bytearray(2 * HEADER_BYTES))
        self._buffer = memoryview(mmap(-1, BUFFER_BYTES))  # takes memory only as far as it is filled

    def serve(self) -> None:
        """Answer requests one after another; never returns but by an exception.

        Raises:
            HandBack: a PDU that pynetdicom is to judge.
            ProtocolError: if what came is no message.
            ConnectionEndedError: if the peer is gone.
            LimitError: if it was silent or slow for too long.
            StoppingError: if the listener is to end.
        """
        while True:
            if self._stopping():
                raise StoppingError
            self._wire.begin()
            context_id, command_set = self._read_command()
            request = self._read_request(command_set)
            abstract_syntax, _ = self._contexts[context_id]
            is_echo = abstract_syntax == fast_commands.VERIFICATION
            if request is None or request.is_store is is_echo:
                behind = self._read(self._left)
                raise HandBack(fast_commands.p_data_tf(context_id, command_set, behind))
            status = self._store(request, context_id) if request.is_store else statuses.SUCCESS
            self._wire.send(fast_commands.p_data_tf(context_id, fast_commands.response(request, status)))
            if request.is_store and status == statuses.SUCCESS:
                self._tell()

    @staticmethod
    def _read_request(command_set: bytearray) -> Request | None:
        try:
            return fast_commands.read_request(command_set)
        except fast_commands.CommandError as error:
            raise ProtocolError(f"no command set: {error}") from error

    def _store(self, request: Request, context_id: int) -> int:
        abstract_syntax, transfer_syntax = self._contexts[context_id]
        incoming = self._reception.begin(
            StoreRequest(
                calling_ae_title=self._calling,
                address=self._address,
                abstract_syntax_uid=abstract_syntax,
                sop_class_uid=request.sop_class_uid,
                sop_instance_uid=request.sop_instance_uid,
                transfer_syntax_uid=transfer_syntax,
                priority=request.priority,
                move_originator=request.move_originator,
            )
        )
        try:
            self._read_data_set(context_id, incoming)
        except BaseException:
            incoming.abandon()
            raise
        return incoming.finish()

    def _read_command(self) -> tuple[int, bytearray]:
        """Return context and command set, put together from its fragments (PS3.8 annex E)."""
        command_set = bytearray()
        context_id: int | None = None
        while True:
            item = self._next_item()
            if item.context_id not in self._contexts or context_id not in {None, item.context_id}:
                raise ProtocolError("a context that was not accepted, or another within one command")
            if not item.control & IS_COMMAND or len(command_set) + item.size_bytes > LONGEST_COMMAND:
                raise ProtocolError("expected a command set")
            context_id = item.context_id
            command_set += self._read(item.size_bytes)
            if item.control & IS_LAST:
                return context_id, command_set

    def _read_data_set(self, context_id: int, incoming: Incoming) -> None:
        """Read the fragments of a data set; whatever does not fit the buffer goes to the disk meanwhile."""
        filled = 0
        while True:
            item = self._next_item()
            if item.control & IS_COMMAND or item.context_id != context_id:
                raise ProtocolError("expected a data set")
            left = item.size_bytes
            while left:
                if filled == BUFFER_BYTES:
                    incoming.write(self._buffer)
                    filled = 0
                size = min(left, BUFFER_BYTES - filled)
                self._wire.fill(self._buffer[filled : filled + size], size)
                filled += size
                left -= size
            if item.control & IS_LAST:
                incoming.write(self._buffer[:filled])
                return

    def _next_item(self) -> Item:
        """Read the head of the next presentation data value item, and of the PDU it stands in if that is a new one."""
        if self._left:
            if self._left < HEADER_BYTES:
                raise ProtocolError("a PDU that ends within an item")
            self._wire.fill(self._head[:HEADER_BYTES], HEADER_BYTES)
            return self._item(self._head[:HEADER_BYTES])
        got = self._wire.fill(self._head, HEADER_BYTES)
        pdu_type, size = struct.unpack_from(">BxI", self._head)
        if pdu_type in SHORT_PDUS and size == 4:
            self._fill_head(got, HEADER_BYTES + 4)
            raise HandBack(bytes(self._head[: HEADER_BYTES + 4]))
        if pdu_type != P_DATA_TF or not HEADER_BYTES <= size <= self._longest_pdu:
            raise ProtocolError(f"a PDU of type {pdu_type} and {size} bytes")
        self._fill_head(got, 2 * HEADER_BYTES)
        self._left = size
        return self._item(self._head[HEADER_BYTES:])

    def _fill_head(self, got: int, size: int) -> None:
        if got < size:
            self._wire.fill(self._head[got:size], size - got)

    def _item(self, head: memoryview) -> Item:
        size, context_id, control = struct.unpack(">IBB", head)
        if not ITEM_BYTES <= size <= self._left - 4:
            raise ProtocolError(f"an item of {size} bytes where {self._left} are left of the PDU")
        self._left -= size + 4
        return Item(context_id, control, size - ITEM_BYTES)

    def _read(self, size: int) -> bytearray:
        space = bytearray(size)
        self._wire.fill(memoryview(space), size)
        return space
