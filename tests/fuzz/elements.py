"""A data set as a tree of elements whose every header field can be made to lie: what the mutations work on.

pydicom writes only what it believes in. Here tag, VR, length and value of an element are independent of each other.
Explicit VR Little Endian is read; it can be written as Implicit VR, too.

Source: PS3.5 7.1 (elements), 7.5 (sequences), A.4 (encapsulated pixel data).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
UNDEFINED: Final = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PREFIX_BYTES: Final = 132
PIXEL_DATA: Final = 0x7FE00010


@dataclass(slots=True)
class Element:
    """One element; `length` lies where it is not None, `items` are data sets where it is a sequence."""

    tag: int
    vr: bytes
    value: bytes = b""
    items: list[list[Element]] | None = None
    length: int | None = None
    undefined: bool = False  # written with undefined length and delimiters
    closed: bool = True  # a sequence of undefined length ends with its delimiter


@dataclass(slots=True)
class File:
    """A Part 10 file: preamble with prefix, file meta information, data set."""

    prefix: bytes
    meta: list[Element] = field(default_factory=list)
    body: list[Element] = field(default_factory=list)
    implicit: bool = False
    tail: bytes = b""  # what follows the last element


def read_file(content: bytes) -> File:
    """Read a well-formed file in Explicit VR Little Endian."""
    elements = _read(content, PREFIX_BYTES, len(content))
    meta = [each for each in elements if each.tag >> 16 == 0x0002]
    return File(content[:PREFIX_BYTES], meta, elements[len(meta) :])


def write_file(file: File) -> bytes:
    """Write a file as its tree says, lies included."""
    meta = b"".join(write_element(each) for each in file.meta)
    body = b"".join(write_element(each, implicit=file.implicit) for each in file.body)
    return file.prefix + meta + body + file.tail


def write_element(element: Element, *, implicit: bool = False) -> bytes:
    """Write one element and what it holds."""
    value = element.value if element.items is None else _write_items(element, implicit=implicit)
    said = UNDEFINED if element.undefined else len(value)
    length = (said if element.length is None else element.length) & UNDEFINED
    tag = struct.pack("<HH", element.tag >> 16 & 0xFFFF, element.tag & 0xFFFF)
    if implicit:
        return tag + struct.pack("<I", length) + value
    if element.vr in LONG_VRS:
        return tag + element.vr + b"\0\0" + struct.pack("<I", length) + value
    return tag + element.vr + struct.pack("<H", length & 0xFFFF) + value


def walk(elements: list[Element]) -> list[tuple[list[Element], int]]:
    """Return where every element is: the list that holds it, and its place there; those of items included."""
    found = []
    for place, each in enumerate(elements):
        found.append((elements, place))
        for item in each.items or ():
            found += walk(item)
    return found


def _write_items(element: Element, *, implicit: bool) -> bytes:
    parts = []
    for item in element.items or ():
        inner = b"".join(write_element(each, implicit=implicit) for each in item)
        if element.undefined:
            parts += [_delimiter(ITEM, UNDEFINED), inner, _delimiter(ITEM_END, 0)]
        else:
            parts += [_delimiter(ITEM, len(inner)), inner]
    if element.undefined and element.closed:
        parts.append(_delimiter(SEQUENCE_END, 0))
    return b"".join(parts)


def _delimiter(tag: int, length: int) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length)


def _read(content: bytes, start: int, end: int) -> list[Element]:
    found = []
    while start < end:
        group, number, vr = struct.unpack_from("<HH2s", content, start)
        if vr in LONG_VRS:
            (length,), at = struct.unpack_from("<I", content, start + 8), start + 12
        else:
            (length,), at = struct.unpack_from("<H", content, start + 6), start + 8
        element = Element(group << 16 | number, vr)
        if length == UNDEFINED and vr != b"SQ":  # encapsulated pixel data, which ends the data set here
            element.value, element.undefined, start = content[at:end], True, end
        else:
            element.value, start = content[at : at + length], at + length
            if vr == b"SQ":
                element.items, element.value = _read_items(content, at, start), b""
        found.append(element)
    return found


def _read_items(content: bytes, start: int, end: int) -> list[list[Element]]:
    items = []
    while start < end:
        (length,) = struct.unpack_from("<I", content, start + 4)
        items.append(_read(content, start + 8, start + 8 + length))
        start += 8 + length
    return items
