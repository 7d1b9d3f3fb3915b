"""Writes what an association that we requested has to say: whole messages, and not a PDU at a turn of another thread.

pynetdicom 3.0.4 passes every PDU through a queue to the thread that reads, too. An archive that asks for PDUs of 16 KB,
as Orthanc and DCMTK do, gets a report with 15 MB of saliency in 900 of them, and waits for each.

Over TLS pynetdicom goes on as it is, for OpenSSL lets nobody write while another thread reads.
"""

from __future__ import annotations

import struct
import threading
from itertools import chain
from typing import TYPE_CHECKING, Final

from pynetdicom.dimse import _RQ_TO_MESSAGE, _RSP_TO_MESSAGE
from pynetdicom.dsutils import encode

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DimsePrimitiveType  # type: ignore[attr-defined] # an alias, not exported
    from pynetdicom.transport import AssociationSocket

CONNECTION_ENDED: Final = "Evt17"  # PS3.8 table 9-10
AT_ONCE_BYTES: Final = 1 << 18  # given to the system at a time; so many must go within the archive's time-out
LONGEST_PDU: Final = AT_ONCE_BYTES  # whatever longer ones the archive would take
CAN_SEND: Final = frozenset({"Sta6", "Sta8"})  # established, or the peer wants to end it: PS3.8 table 9-10
_HEAD: Final = struct.Struct(">BxLLBB")  # P-DATA-TF with one PDV: PS3.8 tables 9-22 and 9-23
_P_DATA_TF: Final = 0x04
_COMMAND, _DATA, _LAST = 0x01, 0x00, 0x02  # message control header, PS3.8 E.2
_PDV_HEAD_BYTES: Final = 6


class WholeMessages:
    """The writing side of one association, in place of `DIMSEServiceProvider.send_msg`.

    Args:
        association: established or about to be.
        connection: its plain socket, with the time-out set.
    """

    def __init__(self, association: Association, connection: socket.socket) -> None:
        self._association = association
        self._connection = connection
        self._message = threading.Lock()  # a request of ours and an answer to an N-EVENT-REPORT may meet
        self._pdu = threading.Lock()  # and the reading thread may have an A-ABORT to send

    def install(self, transport: AssociationSocket) -> None:
        """Have the association's messages written here, and what pynetdicom writes itself wait for a whole PDU."""
        write = transport.send

        def write_alone(bytestream: bytes) -> None:
            with self._pdu:
                write(bytestream)

        transport.send = write_alone  # type: ignore[method-assign] # there is no public way in
        self._association.dimse.send_msg = self.send  # type: ignore[method-assign]

    def send(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Write a message; where the connection breaks, the association ends as if its end had been read."""
        kinds = _RQ_TO_MESSAGE if primitive.MessageIDBeingRespondedTo is None else _RSP_TO_MESSAGE
        message = kinds[primitive.__class__]()  # type: ignore[index]
        message.primitive_to_message(primitive)
        command = encode(message.command_set, True, True) or b""  # noqa: FBT003 - Implicit VR, PS3.7 6.3.1
        data = message.data_set.getbuffer() if message.data_set is not None else b""
        longest = min(self._association.dimse.maximum_pdu_size or LONGEST_PDU, LONGEST_PDU)
        pdus = chain(_pdus(command, _COMMAND, context_id, longest), _pdus(data, _DATA, context_id, longest))
        try:
            with self._message:
                for together in _batches(pdus):
                    self._write(together)
        except OSError:
            self._association.dul.event_queue.put(CONNECTION_ENDED)

    def _write(self, pdus: bytes) -> None:
        """Write whole PDUs, unless the association has ended meanwhile: nothing may follow an A-ABORT."""
        with self._pdu:
            if self._association.dul.state_machine.current_state in CAN_SEND:
                self._connection.sendall(pdus)


def _pdus(content: bytes | memoryview, kind: int, context_id: int, longest: int) -> Iterator[tuple[bytes, memoryview]]:
    """Give a command or data set as P-DATA-TF PDUs, each as head and fragment; nothing for nothing."""
    whole, most = memoryview(content), longest - _PDV_HEAD_BYTES
    for start in range(0, len(whole), most):
        fragment = whole[start : start + most]
        control = kind | (_LAST if start + most >= len(whole) else 0)
        yield _HEAD.pack(_P_DATA_TF, len(fragment) + _PDV_HEAD_BYTES, len(fragment) + 2, context_id, control), fragment


def _batches(pdus: Iterable[tuple[bytes, memoryview]]) -> Iterator[bytes]:
    """Put PDUs together until they are worth a call to the system."""
    together: list[bytes | memoryview] = []
    size = 0
    for head, fragment in pdus:
        together += (head, fragment)
        size += len(fragment)
        if size >= AT_ONCE_BYTES:
            yield b"".join(together)
            together, size = [], 0
    if together:
        yield b"".join(together)
