"""Structure-aware mutations of DICOM files: each changes one thing that the Standard says must hold.

A mutation takes a source of chance and a tree and changes the tree; what only bytes can express (truncation, flipped
bits, deflation) is done after writing. The same source of chance gives the same bytes.
"""

from __future__ import annotations

import contextlib
import copy
import struct
import zlib
from typing import TYPE_CHECKING, Final

from tests.fuzz import odd_values as odd
from tests.fuzz.elements import (
    PIXEL_DATA,
    PREFIX_BYTES,
    UNDEFINED,
    Element,
    File,
    read_file,
    walk,
    write_element,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
TRANSFER_SYNTAX: Final = 0x00020010
CHARACTER_SET: Final = 0x00080005
PIXEL_CLAIMS: Final = (
    0x00280002, 0x00280006, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103,
)  # fmt: skip
NUMBER_OF_FRAMES: Final = 0x00280008
PHOTOMETRIC: Final = 0x00280004
DECIDING: Final = (
    0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080020, 0x00080021, 0x00080022, 0x0008002A, 0x00080030,
    0x00080032, 0x00080070, 0x0008103E, 0x00081030, 0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00100040,
    0x00180010, 0x00180015, 0x00180020, 0x00180021, 0x00180022, 0x00180023, 0x00180050, 0x00180080, 0x00180081,
    0x00180082, 0x00180086, 0x00180088, 0x00181030, 0x0020000D, 0x0020000E, 0x00200013, 0x00200032, 0x00200037,
    0x00200052, 0x00280008, 0x00280030, 0x00281052, 0x00281053,
)  # fmt: skip
MOST_NESTED: Final = 3000
BOMB_BYTES: Final = 48 << 20  # inflated; as a file 48 kB


def mutate(content: bytes, chance: Random) -> bytes:
    """Return a file with one to four things wrong with it; most have one, so that what comes after is reached."""
    file = read_file(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(TREE_MUTATIONS)(file, chance)
    written = write_file(file)
    if chance.random() < 0.15:
        with contextlib.suppress(RecursionError):  # nested too deeply to be read and written once more
            written = chance.choice(BYTE_MUTATIONS)(written, chance)
    return written


def _lie_about_length(file: File, chance: Random) -> None:
    element = _any(file, chance)
    held = len(element.value)
    element.length = chance.choice((*odd.LENGTHS, held + 1, held - 1, held * 2, held // 2, held + 2))


def _lie_about_vr(file: File, chance: Random) -> None:
    _any(file, chance).vr = chance.choice(odd.VRS)


def _change_tag(file: File, chance: Random) -> None:
    delimiters_and_others = (
        0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF, 0, 0x00020010, 0x00080000, 0x7FE00010, 0x00090010, 0x7FE00008,
        chance.getrandbits(32), chance.choice(DECIDING),
    )  # fmt: skip
    _any(file, chance).tag = chance.choice(delimiters_and_others)


def _odd_value(file: File, chance: Random) -> None:
    element = _any(file, chance)
    _set_odd(element, chance)


def _odd_deciding_value(file: File, chance: Random) -> None:
    """Change or add one of the elements that the node reads."""
    tag = chance.choice(DECIDING)
    holding = [elements[place] for elements, place in walk(file.body) if elements[place].tag == tag]
    if not holding:
        holding = [Element(tag, chance.choice((b"DS", b"LO", b"IS", b"CS", b"UI", b"DA")))]
        file.body.append(holding[0])
        file.body.sort(key=lambda each: each.tag)
    _set_odd(chance.choice(holding), chance)


def _lie_about_pixels(file: File, chance: Random) -> None:
    """Contradict the pixels: rows, columns, bits, samples, sign, frames, colour, or the pixels themselves."""
    kind = chance.randrange(4)
    if kind == 0:
        _put(file, NUMBER_OF_FRAMES, b"IS", chance.choice(odd.NUMBERS))
    elif kind == 1:
        _put(file, PHOTOMETRIC, b"CS", chance.choice((b"RGB ", b"YBR_FULL", b"PALETTE COLOR", b"", b"MONOCHROME1")))
    elif kind == 2:
        for element in file.body:
            if element.tag == PIXEL_DATA:
                cut = chance.randrange(len(element.value) + 1)
                element.value = chance.choice((element.value[:cut], element.value * 3, b"", b"\0" * cut))
                element.undefined ^= chance.random() < 0.3
    else:
        for tag in chance.sample(PIXEL_CLAIMS, chance.randint(1, 3)):
            _put(file, tag, b"US", struct.pack("<H", chance.choice(odd.SHORTS)))


def _lie_about_transfer_syntax(file: File, chance: Random) -> None:
    """Name another transfer syntax than the data set is in, or write it as Implicit VR while saying Explicit."""
    file.implicit ^= chance.random() < 0.3
    for element in file.meta:
        if element.tag == TRANSFER_SYNTAX:
            element.value = _even(chance.choice(odd.TRANSFER_SYNTAXES))


def _odd_character_set(file: File, chance: Random) -> None:
    _put(file, CHARACTER_SET, b"CS", chance.choice(odd.CHARACTER_SETS))
    for tag, vr in ((0x00100010, b"PN"), (0x0008103E, b"LO"), (0x00100020, b"LO")):
        if chance.random() < 0.6:
            _put(file, tag, vr, chance.choice(odd.TEXTS[:14]) + bytes(chance.choices(range(256), k=6)))


def _nest(file: File, chance: Random) -> None:
    """Put elements into sequences in sequences."""
    depth = chance.choice((1, 2, 30, 400, MOST_NESTED))
    undefined, closed = chance.random() < 0.5, chance.random() < 0.7
    elements, place = chance.choice(walk(file.body))
    inner = write_element(elements[place])
    for _ in range(depth):  # written bottom up, for a tree so deep could not be walked
        if undefined:
            inner = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + (b"\xfe\xff\x0d\xe0\0\0\0\0" if closed else b"")
            head = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, UNDEFINED)
            inner = head + inner + (b"\xfe\xff\xdd\xe0\0\0\0\0" if closed else b"")
        else:
            inner = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
            inner = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(inner)) + inner
    elements[place] = Element(0x00081140, b"SQ", inner[12:], undefined=undefined)


def _sequences(file: File, chance: Random) -> None:
    """Empty, repeat, cut or leave open a sequence, or make one of what is none."""
    sequences = [elements[place] for elements, place in walk(file.body) if elements[place].items is not None]
    if not sequences:
        _any(file, chance).vr = b"SQ"
        return
    sequence = chance.choice(sequences)
    items = sequence.items or []
    kind = chance.randrange(5)
    if kind == 0:
        sequence.items = []
    elif kind == 1:
        sequence.items = items[: chance.randrange(len(items) + 1)]
    elif kind == 2:
        sequence.items = [copy.deepcopy(each) for each in items for _ in range(chance.choice((2, 50)))][:400]
    elif kind == 3:
        sequence.undefined, sequence.closed = True, chance.random() < 0.5
    else:
        sequence.items = [[], *items]


def _order(file: File, chance: Random) -> None:
    """Repeat, drop or move elements."""
    elements, place = chance.choice(walk(file.body))
    kind = chance.randrange(4)
    if kind == 0:
        elements.insert(chance.randrange(len(elements) + 1), copy.deepcopy(elements[place]))
    elif kind == 1:
        del elements[place]
    elif kind == 2:
        chance.shuffle(elements)
    else:
        file.meta.append(copy.deepcopy(elements[place]))


def _file_meta(file: File, chance: Random) -> None:
    """Drop, repeat or change what stands before the data set."""
    kind = chance.randrange(5)
    if kind == 0 and file.meta:
        del file.meta[chance.randrange(len(file.meta))]
    elif kind == 1 and file.meta:
        element = chance.choice(file.meta)
        element.value = _even(chance.choice(odd.UIDS))
    elif kind == 2:
        file.prefix = chance.choice((b"", file.prefix[4:], b"\0" * 128 + b"DICN", file.prefix[:100], b"DICM"))
    elif kind == 3:
        file.meta = [each for each in file.meta if each.tag != 0x00020000]
    else:
        file.meta.insert(0, Element(0x00020000, b"UL", struct.pack("<I", chance.choice(odd.LENGTHS))))


def _undefined_length(file: File, chance: Random) -> None:
    element = _any(file, chance)
    element.undefined, element.vr = True, chance.choice((element.vr, b"UN", b"OB", b"UT", b"SQ"))


def _fragments(file: File, chance: Random) -> None:
    """Encapsulate the pixels, with an offset table and fragments that contradict each other."""
    for element in file.body:
        if element.tag != PIXEL_DATA:
            continue
        raw = element.value[:256]
        offsets = struct.pack(f"<{(n := chance.randrange(4))}I", *(chance.choice(odd.LENGTHS) for _ in range(n)))
        lengths = [len(raw), *(chance.choice(odd.LENGTHS) for _ in range(chance.randrange(3)))]
        parts = [b"\xfe\xff\x00\xe0" + struct.pack("<I", len(offsets)) + offsets]
        parts += [b"\xfe\xff\x00\xe0" + struct.pack("<I", length) + raw for length in lengths]
        end = b"\xfe\xff\xdd\xe0\0\0\0\0" if chance.random() < 0.7 else b""
        element.vr, element.value, element.undefined = b"OB", b"".join(parts) + end, True


def _truncate(content: bytes, chance: Random) -> bytes:
    """Cut anywhere, by preference in a header: of the file, of the meta group, of an element near the end."""
    limit = min(chance.choice((PREFIX_BYTES, 400, len(content), len(content))), len(content))
    return content[: chance.randrange(limit + 1)]


def _flip(content: bytes, chance: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 4, 32))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _splice(content: bytes, chance: Random) -> bytes:
    first, second = sorted((chance.randrange(len(content) + 1), chance.randrange(len(content) + 1)))
    kind = chance.randrange(3)
    if kind == 0:
        return content[:first] + content[second:]
    if kind == 1:
        return content[:second] + content[first:]
    return content[:first] + chance.randbytes(chance.choice((1, 2, 3, 17))) + content[first:]


def _deflate(content: bytes, chance: Random) -> bytes:
    """Deflate the data set: well, with something else behind it, cut off, or as a bomb."""
    file = read_file_or_none(content)
    if file is None:
        return content
    for element in file.meta:
        if element.tag == TRANSFER_SYNTAX:
            element.value = _even(DEFLATED)
    body = b"".join(write_element(each) for each in file.body)
    kind = chance.randrange(4)
    if kind == 0:
        padding = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, BOMB_BYTES) + bytes(BOMB_BYTES)
        body += padding
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflate.compress(body) + deflate.flush()
    if kind == 1:
        packed = packed[: chance.randrange(len(packed) + 1)]
    if kind == 2:
        packed += chance.randbytes(32)
    head = File(file.prefix, file.meta)
    return write_file(head) + packed


def read_file_or_none(content: bytes) -> File | None:
    """Read a file, None where a mutation made it unreadable for this simple reader."""
    try:
        return read_file(content)
    except (struct.error, RecursionError):
        return None


TREE_MUTATIONS: Final[Sequence[Callable[[File, Random], None]]] = (
    _lie_about_length, _lie_about_vr, _change_tag, _odd_value, _odd_deciding_value, _odd_deciding_value,
    _odd_deciding_value, _lie_about_pixels, _lie_about_pixels, _lie_about_transfer_syntax, _odd_character_set, _nest,
    _sequences, _order, _file_meta, _undefined_length, _fragments,
)  # fmt: skip
BYTE_MUTATIONS: Final[Sequence[Callable[[bytes, Random], bytes]]] = (
    _truncate,
    _truncate,
    _flip,
    _flip,
    _splice,
    _deflate,
)


def _any(file: File, chance: Random) -> Element:
    """Return any element: of the data set, more rarely of the file meta."""
    places = walk(file.meta if file.meta and chance.random() < 0.1 else file.body)
    if not places:
        file.body.append(Element(0x00080018, b"UI"))
        places = walk(file.body)
    elements, place = chance.choice(places)
    return elements[place]


def _put(file: File, tag: int, vr: bytes, value: bytes) -> None:
    """Set an element of the data set, adding it where it is missing."""
    for element in file.body:
        if element.tag == tag:
            element.vr, element.value, element.items = vr, _even(value), None
            return
    file.body.append(Element(tag, vr, _even(value)))
    file.body.sort(key=lambda each: each.tag)


def _set_odd(element: Element, chance: Random) -> None:
    """Give an element a value that its VR allows but nobody expects, or does not allow."""
    if element.vr in {b"FD", b"FL"}:
        form = "<d" if element.vr == b"FD" else "<f"
        numbers = chance.choices(odd.EXTREME_DOUBLES[:2] + odd.EXTREME_DOUBLES[4:8], k=chance.choice((0, 1, 3, 6)))
        element.value = b"".join(struct.pack(form, each) for each in numbers)
    elif element.vr in {b"US", b"SS", b"UL", b"SL"}:
        element.value = b"".join(struct.pack("<H", each) for each in chance.choices(odd.SHORTS, k=chance.randrange(4)))
    else:
        table = odd.BY_VR.get(element.vr) or chance.choice((odd.TEXTS, odd.NUMBERS))
        element.value, element.items = _even(chance.choice(table)), None


def _even(value: bytes) -> bytes:
    return value + b" " if len(value) % 2 else value
