"""Writes what an association that we requested has to say: whole messages, and not a PDU at a turn of another thread.

pynetdicom 3.0.4 passes every PDU through a queue to the thread that reads, too. An archive that asks for PDUs of 16 KB,
as Orthanc and DCMTK do, gets a report with 15 MB of saliency in 900 of them, and waits for each.

Over TLS pynetdicom goes on as it is, for OpenSSL lets nobody write while another thread reads.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Final

from pynetdicom.dimse import _RQ_TO_MESSAGE, _RSP_TO_MESSAGE
from pynetdicom.dsutils import encode

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DimsePrimitiveType  # type: ignore[attr-defined] # an alias, not exported

CONNECTION_ENDED: Final = "Evt17"  # PS3.8 table 9-10
AT_ONCE_BYTES: Final = 1 << 18  # given to the system at a time; so many must go within the archive's time-out
LONGEST_BYTES: Final = 1 << 18  # of a fragment, where the archive sets no limit
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
        self._guard = threading.Lock()  # a request of ours and an answer to an N-EVENT-REPORT may meet

    def send(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Write a message; where the connection breaks, the association ends as if its end had been read."""
        kinds = _RQ_TO_MESSAGE if primitive.MessageIDBeingRespondedTo is None else _RSP_TO_MESSAGE
        message = kinds[primitive.__class__]()  # type: ignore[index]
        message.primitive_to_message(primitive)
        command = encode(message.command_set, True, True) or b""  # noqa: FBT003 - Implicit VR, PS3.7 6.3.1
        data = message.data_set.getbuffer() if message.data_set is not None else b""
        longest = self._association.dimse.maximum_pdu_size
        pieces = [*_pdus(command, _COMMAND, context_id, longest), *_pdus(data, _DATA, context_id, longest)]
        try:
            with self._guard:
                for together in _batches(pieces):
                    self._connection.sendall(together)
        except OSError:
            self._association.dul.event_queue.put(CONNECTION_ENDED)


def _pdus(content: bytes | memoryview, kind: int, context_id: int, longest: int) -> Iterator[bytes | memoryview]:
    """Give a command or data set as P-DATA-TF PDUs, heads and fragments in turn; nothing for nothing."""
    most = longest - _PDV_HEAD_BYTES if longest else LONGEST_BYTES
    for start in range(0, len(content), most):
        fragment = content[start : start + most]
        control = kind | (_LAST if start + most >= len(content) else 0)
        yield _HEAD.pack(_P_DATA_TF, len(fragment) + _PDV_HEAD_BYTES, len(fragment) + 2, context_id, control)
        yield fragment


def _batches(pieces: list[bytes | memoryview]) -> Iterator[bytes]:
    """Put pieces together until they are worth a call to the system."""
    together, size = [], 0
    for each in pieces:
        together.append(each)
        size += len(each)
        if size >= AT_ONCE_BYTES:
            yield b"".join(together)
            together, size = [], 0
    if together:
        yield b"".join(together)
