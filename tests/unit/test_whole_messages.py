"""Whole messages are, byte for byte, what pynetdicom would have sent; a connection that breaks ends the association."""

from __future__ import annotations

import socket
import threading
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from pydicom.uid import MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import P_DATA_TF

from dicom_node import whole_messages
from dicom_node.whole_messages import WholeMessages

if TYPE_CHECKING:
    from pynetdicom.association import Association

CONTEXT_ID = 3


def store(data: bytes, *, answers: int | None = None) -> C_STORE:
    """Return a C-STORE request with a data set, or the response to one."""
    primitive = C_STORE()
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MRImageStorage, "2.25.7"
    if answers is not None:
        primitive.MessageIDBeingRespondedTo, primitive.Status = answers, 0x0000
        return primitive
    primitive.MessageID, primitive.Priority, primitive.DataSet = 7, 2, BytesIO(data)
    return primitive


def echo() -> C_ECHO:
    """Return a request without a data set."""
    primitive = C_ECHO()
    primitive.MessageID = 7
    return primitive


def association(longest: int) -> Association:
    """Return what a writer looks at: the longest PDU that the peer takes, and that it is established."""
    dul = SimpleNamespace(state_machine=SimpleNamespace(current_state="Sta6"))
    return cast("Association", SimpleNamespace(dimse=SimpleNamespace(maximum_pdu_size=longest), dul=dul))


def written(primitive: C_STORE | C_ECHO, longest: int) -> bytes:
    """Return the bytes that a writer puts on the wire."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = bytearray()
        reading = threading.Thread(target=lambda: found.extend(b"".join(iter(lambda: theirs.recv(65536), b""))))
        reading.start()
        WholeMessages(association(longest), ours).send(primitive, CONTEXT_ID)
        ours.shutdown(socket.SHUT_WR)
        reading.join()
    return bytes(found)


def by_pynetdicom(message: DIMSEMessage, primitive: C_STORE | C_ECHO, longest: int) -> bytes:
    """Return what pynetdicom would send."""
    message.primitive_to_message(primitive)
    return b"".join(P_DATA_TF(each).encode() for each in message.encode_msg(CONTEXT_ID, longest))


@pytest.mark.parametrize("longest", [0, 64, 4096, 16384, 131072])
@pytest.mark.parametrize("length", [2, 58, 60, 16378, 16380, 100_000])
def test_a_request_is_cut_as_pynetdicom_cuts_it(longest: int, length: int) -> None:
    """Fragments, lengths and control headers, at every border (PS3.8 9.3.5, Annex E)."""
    data = bytes(number % 251 for number in range(length))
    assert written(store(data), longest) == by_pynetdicom(C_STORE_RQ(), store(data), longest)


def test_what_has_no_data_set_is_a_command_alone() -> None:
    """C-ECHO, and an answer."""
    assert written(echo(), 64) == by_pynetdicom(C_ECHO_RQ(), echo(), 64)
    assert written(store(b"", answers=7), 16384) == by_pynetdicom(C_STORE_RSP(), store(b"", answers=7), 16384)


def test_nothing_is_written_once_the_association_has_ended() -> None:
    """Its reading thread may have answered nonsense with an A-ABORT, after which no data may follow."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ended = association(16384)
        ended.dul.state_machine.current_state = "Sta13"
        WholeMessages(ended, ours).send(store(bytes(100)), CONTEXT_ID)
        ours.close()
        assert theirs.recv(10) == b""


def test_an_archive_without_a_limit_gets_fragments_all_the_same() -> None:
    """All of 1 MB in one PDU would have to be held on both sides."""
    found = written(store(bytes(1_000_000)), 0)
    lengths = []
    while found:
        length = int.from_bytes(found[2:6], "big")
        lengths.append(length)
        found = found[6 + length :]
    assert max(lengths) == whole_messages.LONGEST_PDU
    assert sum(lengths[1:]) == 1_000_000 + 6 * len(lengths[1:])
