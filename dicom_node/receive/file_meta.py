"""The head of a Part 10 file: preamble, prefix and File Meta Information, made without a data set object (PS3.10 7.1).

The elements are those of Type 1 and our version name, always in Explicit VR Little Endian, so that they can be written
as they stand in the table: group, element, VR, 2-byte length (4-byte for OB, PS3.5 7.1.2), value of even length.
"""

from __future__ import annotations

import struct
from typing import Final

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

PREAMBLE: Final = bytes(128) + b"DICM"
VERSION: Final = struct.pack("<HH2sHI2s", 0x0002, 0x0001, b"OB", 0, 2, b"\x00\x01")


def _element(element: int, vr: bytes, value: str, pad: bytes) -> bytes:
    encoded = value.encode("ascii")
    encoded += pad * (len(encoded) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(encoded)) + encoded


WRITER: Final = _element(0x0012, b"UI", str(PYNETDICOM_IMPLEMENTATION_UID), b"\0") + _element(
    0x0013, b"SH", PYNETDICOM_IMPLEMENTATION_VERSION, b" "
)


def file_head(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling_ae_title: str) -> bytes:
    """Return what stands before the data set in a file; who sent it stands there as (0002,0017).

    Raises:
        UnicodeEncodeError: if a UID or title is not ASCII.
    """
    elements = (
        VERSION
        + _element(0x0002, b"UI", sop_class_uid, b"\0")
        + _element(0x0003, b"UI", sop_instance_uid, b"\0")
        + _element(0x0010, b"UI", transfer_syntax_uid, b"\0")
        + WRITER
        + _element(0x0017, b"AE", calling_ae_title, b" ")
    )
    return PREAMBLE + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(elements)) + elements
