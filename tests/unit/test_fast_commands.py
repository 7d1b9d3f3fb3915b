"""Command sets read and written without pydicom are what pynetdicom reads and writes (PS3.7 annex E.1)."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_ECHO_RSP, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import P_DATA_TF

from dicom_node.receive.fast_commands import CommandError, Request, p_data_tf, read_request, response

INSTANCE = "2.25.12345"
HIGH = struct.pack("<HHIH", 0, 0x0700, 2, 1)  # the element Priority
ECHO = Request(command_field=0x0030, message_id=7, sop_class_uid="1.2.840.10008.1.1")
STORE = Request(
    command_field=0x0001,
    message_id=65535,
    sop_class_uid=MRImageStorage,
    sop_instance_uid=INSTANCE,
    priority=1,
    move_originator="NODE",
    has_data_set=True,
)


def command_set(message: Any, primitive: Any) -> bytes:
    """Return the command set that pynetdicom makes."""
    message.primitive_to_message(primitive)
    message.context_id = 1
    return b"".join(
        value[1:]
        for pdata in message.encode_msg(1, 0)
        for _, value in pdata.presentation_data_value_list
        if value[0] & 1
    )


def store(**changes: Any) -> C_STORE:
    """Return a C-STORE request of pynetdicom's."""
    primitive = C_STORE()
    values = {
        "MessageID": 65535,
        "AffectedSOPClassUID": UID(MRImageStorage),
        "AffectedSOPInstanceUID": UID(INSTANCE),
        "Priority": 1,
        "MoveOriginatorApplicationEntityTitle": "NODE",
        "MoveOriginatorMessageID": 3,
        "DataSet": BytesIO(b"\0\0"),
    } | changes
    for name, value in values.items():
        setattr(primitive, name, value)
    return primitive


def test_requests_are_read_as_pynetdicom_wrote_them() -> None:
    """With every element a C-STORE request may have."""
    echo = C_ECHO()
    echo.MessageID, echo.AffectedSOPClassUID = 7, UID(ECHO.sop_class_uid)
    assert read_request(command_set(C_STORE_RQ(), store())) == STORE
    assert read_request(command_set(C_ECHO_RQ(), echo)) == ECHO


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xC000])
def test_answers_are_written_as_pynetdicom_writes_them(status: int) -> None:
    """Byte for byte, group length included."""
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo, primitive.Status = STORE.message_id, status
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = UID(MRImageStorage), UID(INSTANCE)
    assert response(STORE, status) == command_set(C_STORE_RSP(), primitive)
    echo = C_ECHO()
    echo.MessageIDBeingRespondedTo, echo.Status, echo.AffectedSOPClassUID = 7, status, UID(ECHO.sop_class_uid)
    assert response(ECHO, status) == command_set(C_ECHO_RSP(), echo)


def test_an_answer_is_one_pdu_with_one_item() -> None:
    """PS3.8 9.3.5, as pynetdicom decodes it."""
    pdu = P_DATA_TF()
    pdu.decode(p_data_tf(5, response(STORE, 0)))
    (item,) = pdu.presentation_data_value_items
    assert item.presentation_context_id == 5
    assert item.presentation_data_value == b"\x03" + response(STORE, 0)


@pytest.mark.parametrize(
    "other",
    [
        response(STORE, 0),
        command_set(C_STORE_RQ(), store()).replace(HIGH, b""),
        command_set(C_STORE_RQ(), store(DataSet=None)),
    ],
    ids=["a response", "no Priority", "no data set"],
)
def test_what_is_no_plain_request_is_left_to_pynetdicom(other: bytes) -> None:
    """Another command, or an element missing."""
    assert read_request(other) is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        bytes(8),
        command_set(C_STORE_RQ(), store()).replace(HIGH, HIGH[:-2] + b"\x09\x00"),
        command_set(C_STORE_RQ(), store())[:-1],
        command_set(C_STORE_RQ(), store()).replace(b"1.2.840", b"\xff.2.840"),
        command_set(C_STORE_RQ(), store()) + struct.pack("<HHI", 8, 0x0018, 0),
        command_set(C_STORE_RQ(), store()) + struct.pack("<HHI", 0, 0x1031, 0xFFFFFFFE),
    ],
    ids=["empty", "no command", "priority 9", "cut off", "no ASCII", "another group", "endless"],
)
def test_what_is_no_command_set_is_an_error(broken: bytes) -> None:
    """The association is aborted for it."""
    with pytest.raises(CommandError):
        read_request(broken)


def read(any_bytes: bytes | bytearray) -> object:
    """Read what may be a request."""
    try:
        return read_request(any_bytes)
    except CommandError:
        return None


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reading(any_bytes: bytes) -> None:
    """Whatever comes is a request, another command or no command set."""
    assert isinstance(read(any_bytes), Request | None)


@given(st.data())
def test_no_changed_byte_breaks_the_reading(data: st.DataObject) -> None:
    """Nor does a request with one byte changed."""
    changed = bytearray(command_set(C_STORE_RQ(), store()))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(read(changed), Request | None)
