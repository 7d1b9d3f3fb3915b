"""The two requests and the two responses of a storage SCP as bytes (PS3.7 6.3.1, 9.3.1, 9.3.5, annex E.1).

A command set is a row of elements of group 0000 in Implicit VR Little Endian: group, element, 4-byte length, value.
Only a C-STORE or C-ECHO request that is beyond doubt is read here; `read_request` answers None for other commands and
for what is missing, which pynetdicom then judges. What cannot be a command set at all is an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
RESPONSE: Final = 0x8000  # added to the Command Field of a request
NO_DATA_SET: Final = 0x0101
VERIFICATION: Final = "1.2.840.10008.1.1"
PRIORITIES: Final = frozenset({0, 1, 2})
CONTROL_P_DATA_COMMAND: Final = 0x03  # message control header: command, last fragment (PS3.8 E.2)

SOP_CLASS_UID: Final = 0x0002
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_RESPONDED_TO: Final = 0x0120
PRIORITY: Final = 0x0700
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
SOP_INSTANCE_UID: Final = 0x1000
MOVE_ORIGINATOR: Final = 0x1030

REQUIRED: Final = {
    C_STORE_RQ: {SOP_CLASS_UID, MESSAGE_ID, PRIORITY, DATA_SET_TYPE, SOP_INSTANCE_UID},
    C_ECHO_RQ: {SOP_CLASS_UID, MESSAGE_ID, DATA_SET_TYPE},
}

_TAG: Final = struct.Struct("<HHI")
_US: Final = struct.Struct("<HHIH")
_US_VALUE: Final = struct.Struct("<H")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A C-STORE or a C-ECHO request (PS3.7 9.3.1.1, 9.3.5.1)."""

    command_field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str = ""
    priority: int = 0
    move_originator: str = ""
    has_data_set: bool = False

    @property
    def is_store(self) -> bool:
        """Say whether it is a C-STORE request."""
        return self.command_field == C_STORE_RQ


class CommandError(ValueError):
    """These bytes are no command set, or one whose values cannot be."""


def read_request(command_set: bytes | bytearray) -> Request | None:
    """Read a command set, None if it is not plainly a C-STORE or C-ECHO request.

    Raises:
        CommandError: if it is none, or says what no command set may say.
    """
    try:
        values = _elements(command_set)
        field = _number(values[COMMAND_FIELD])
        if field not in {C_STORE_RQ, C_ECHO_RQ} or not values.keys() >= REQUIRED[field]:
            return None
        request = Request(
            command_field=field,
            message_id=_number(values[MESSAGE_ID]),
            sop_class_uid=_text(values[SOP_CLASS_UID]),
            sop_instance_uid=_text(values.get(SOP_INSTANCE_UID, b"")),
            priority=_number(values.get(PRIORITY, b"\0\0")),
            move_originator=_text(values.get(MOVE_ORIGINATOR, b"")),
            has_data_set=_number(values[DATA_SET_TYPE]) != NO_DATA_SET,
        )
    except (KeyError, struct.error, UnicodeDecodeError) as error:
        raise CommandError(type(error).__name__) from error
    if request.priority not in PRIORITIES:
        raise CommandError("Priority")
    return request if request.has_data_set == request.is_store else None


def response(request: Request, status: int) -> bytes:
    """Return the command set that answers a request."""
    elements = (
        _text_element(SOP_CLASS_UID, request.sop_class_uid)
        + _US.pack(0, COMMAND_FIELD, 2, request.command_field | RESPONSE)
        + _US.pack(0, MESSAGE_ID_RESPONDED_TO, 2, request.message_id)
        + _US.pack(0, DATA_SET_TYPE, 2, NO_DATA_SET)
        + _US.pack(0, STATUS, 2, status)
    )
    if request.is_store:
        elements += _text_element(SOP_INSTANCE_UID, request.sop_instance_uid)
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def p_data_tf(context_id: int, command_set: bytes | bytearray, behind: bytes | bytearray = b"") -> bytes:
    """Return a P-DATA-TF PDU with a command set as its first item, and other items behind it (PS3.8 9.3.5)."""
    item = struct.pack(">IBB", len(command_set) + 2, context_id, CONTROL_P_DATA_COMMAND) + command_set + behind
    return struct.pack(">BxI", 0x04, len(item)) + item


def _elements(command_set: bytes | bytearray) -> dict[int, bytes]:
    """Return element number -> value.

    Raises:
        struct.error: if it is cut off, or not of group 0000.
    """
    found: dict[int, bytes] = {}
    at = 0
    while at < len(command_set):
        group, element, length = _TAG.unpack_from(command_set, at)
        at += _TAG.size
        if group or at + length > len(command_set):
            raise struct.error
        found[element] = bytes(command_set[at : at + length])
        at += length
    return found


def _number(value: bytes) -> int:
    """Return a US; raises struct.error if it is of another length."""
    return int(_US_VALUE.unpack(value)[0])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").lstrip(b" ").decode("ascii")


def _text_element(element: int, value: str) -> bytes:
    encoded = value.encode("ascii")
    encoded += b"\0" * (len(encoded) % 2)
    return _TAG.pack(0, element, len(encoded)) + encoded
