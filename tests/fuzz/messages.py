"""HL7 messages and what a connection may carry instead of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicom_node.receive.mllp import MOST_BYTES, frame

if TYPE_CHECKING:
    from random import Random

IDENTITY: Final = "NEVERLOGGED"
UPDATE: Final = (
    b"MSH|^~\\&|ADT|HOSPITAL|NODE|HERE|20260101120000||ADT^A08^ADT_A01|MSG1|P|2.5\r"
    b"EVN|A08|20260101120000\r"
    b"PID|1||NEVERLOGGED1^^^HOSPITAL^PI~2^^^OTHER&1.2.3&ISO^SS||NEVERLOGGED^ANNA^M^^DR^^L||20100101|F\r"
    b"PV1|1|I\r"
)
MERGE: Final = (
    b"MSH|^~\\&|ADT|HOSPITAL|NODE|HERE|20260101120000||ADT^A40^ADT_A39|MSG2|P|2.5|||||||UNICODE UTF-8\r"
    b"EVN|A40|20260101120000\r"
    b"PID|1||NEVERLOGGED3^^^HOSPITAL^PI||NEVERLOGGED^BERTA\r"
    b"MRG|NEVERLOGGED4^^^HOSPITAL^PI\r"
)
ODD_FIELDS: Final = (
    b"", b'""', b"^", b"^^^^^^^^", b"~~~~", b"&&&", b"|", b"\\", b"\\X0D\\", b"\\F\\", b"\\E\\F\\", b"\\" * 41,
    b"A" * 300, b"\0", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\x1b$B", b"1^^^H^PI~" * 200, b"19999999", b"-1",
    b"ADT^A40", b"ADT^A08", b"ADT^A18", b"ORU^R01", b"T", b"2.9", b"8859/1", b"ISO IR87", b"UNICODE", b"GB 18030-2000",
    b"\xe2\x80\xae", b"1" + b"&2" * 90, b"*", b"?", b"'; DROP TABLE patient;--",
)  # fmt: skip
ODD_SEGMENTS: Final = (
    b"",
    b"PID",
    b"PID|",
    b"MRG|",
    b"MRG",
    b"MSH|",
    b"ZZZ|1",
    b"PIDX|1||2",
    b"\n",
    b"PID" + b"|" * 300,
)


def stream(chance: Random) -> bytes:
    """Return what a sender writes: one to three blocks, framed or not."""
    parts = []
    for _ in range(chance.randint(1, 3)):
        block = frame(message(chance))
        kind = chance.randrange(12)
        if kind == 0:
            block = block[: chance.randrange(len(block))]
        elif kind == 1:
            block = block.replace(b"\x1c", chance.choice((b"", b"\x1c\x1c", b"\x0b")))
        elif kind == 2:
            block = chance.randbytes(chance.randrange(60)) + block
        elif kind == 3:
            block = b"\x0b" + b"A" * (MOST_BYTES + 10)
        parts.append(block)
    return b"".join(parts)


def message(chance: Random) -> bytes:
    """Return a message with one to four things wrong with it."""
    content = chance.choice((UPDATE, MERGE))
    for _ in range(chance.randint(1, 4)):
        content = _mutate(content, chance)
    return content


def _mutate(content: bytes, chance: Random) -> bytes:
    segments = content.split(b"\r")
    place = chance.randrange(len(segments))
    kind = chance.randrange(7)
    if kind == 0:
        return content[: chance.randrange(len(content) + 1)]
    if kind == 1:
        segments.insert(place, chance.choice(ODD_SEGMENTS))
    elif kind == 2:
        segments.insert(place, chance.choice(segments))
    elif kind == 3:
        del segments[place]
    elif kind == 4:
        changed = bytearray(content)
        for _ in range(chance.choice((1, 3, 20))):
            if changed:
                changed[chance.randrange(len(changed))] = chance.choice(
                    (*b"|^~\\&\r\n\0\x0b\x1c", chance.randrange(256))
                )
        return bytes(changed)
    else:
        fields = segments[place].split(b"|")
        at = chance.randrange(len(fields))
        fields[at] = chance.choice(ODD_FIELDS)
        segments[place] = b"|".join(fields)
    return b"\r".join(segments)
