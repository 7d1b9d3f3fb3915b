"""PDUs as bytes: those of a good C-STORE, and mutations of them; and the peer that sends them.

Source: PS3.8 9.3 (PDU structure), annex D (user information); PS3.7 6.3, 9.3.1 (C-STORE command set).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.fuzz import odd_values as odd
from tests.fuzz.make_corpus import SEEDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

CALLING, CALLED = b"SCANNER1", b"TEMPORALNODE"
APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
MR: Final = b"1.2.840.10008.5.1.4.1.1.4"
VERIFICATION: Final = b"1.2.840.10008.1.1"
EXPLICIT: Final = b"1.2.840.10008.1.2.1"
IMPLICIT: Final = b"1.2.840.10008.1.2"
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
CONTEXTS: Final = ((1, VERIFICATION, (IMPLICIT,)), (3, MR, (EXPLICIT,)), (5, MR, (IMPLICIT,)))
MR_CONTEXT: Final = 3
CLOSED_WITHIN_S: Final = 150.0  # a fraction of a second on an idle machine; the node's own limits are 30 and 60 s
ODD_TITLES: Final = (b"", b" " * 16, b"\0" * 16, b"A" * 16, b"\xff" * 16, b"A\\B", b"SCANNER1\n", b"scanner1", b"%s%n")


def pdu(kind: int, content: bytes, *, length: int | None = None) -> bytes:
    """Return a PDU; `length` lies where it is not None."""
    return struct.pack(">BxI", kind, (len(content) if length is None else length) & 0xFFFFFFFF) + content


def item(kind: int, content: bytes, *, length: int | None = None) -> bytes:
    """Return an item or sub-item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, (len(content) if length is None else length) & 0xFFFF) + content


def associate(
    *,
    calling: bytes = CALLING,
    called: bytes = CALLED,
    contexts: Sequence[tuple[int, bytes, Sequence[bytes]]] = CONTEXTS,
    most_bytes: int = 16384,
    parts: Sequence[bytes] = (),
) -> bytes:
    """Return an A-ASSOCIATE-RQ; `parts` are further items."""
    head = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16), calling.ljust(16))
    items = [item(0x10, APPLICATION_CONTEXT)]
    for number, abstract, transfer in contexts:
        inner = item(0x30, abstract) + b"".join(item(0x40, each) for each in transfer)
        items.append(item(0x20, struct.pack(">B3x", number & 0xFF) + inner))
    user = item(0x51, struct.pack(">I", most_bytes)) + item(0x52, b"1.2.3.4") + item(0x55, b"FUZZ")
    return pdu(ASSOCIATE_RQ, head + b"".join(items) + item(0x50, user) + b"".join(parts))


def pdv(content: bytes, *, context: int = MR_CONTEXT, command: bool = False, last: bool = True) -> bytes:
    """Return a presentation data value item."""
    return struct.pack(">IBB", len(content) + 2, context, command | last << 1) + content


def command(uid: bytes, **changes: bytes | int | None) -> bytes:
    """Return the command set of a C-STORE-RQ; `changes` replace values by element, None removes one."""
    values: dict[int, bytes | int | None] = {
        0x0002: MR, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: uid,
    } | {int(name[1:], 16): value for name, value in changes.items()}  # fmt: skip
    body = b""
    for number, value in sorted(values.items()):
        if value is not None:
            raw = struct.pack("<H", value & 0xFFFF) if isinstance(value, int) else value + b"\0" * (len(value) % 2)
            body += struct.pack("<HHI", 0, number, len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def store(uid: bytes, data_set: bytes) -> bytes:
    """Return the P-DATA-TF PDUs of a good C-STORE."""
    return pdu(DATA, pdv(command(uid), command=True)) + pdu(DATA, pdv(data_set))


@dataclass(frozen=True, slots=True)
class Image:
    """A seed as C-STORE needs it: its UID, and its data set without preamble and file meta."""

    uid: bytes
    data_set: bytes


def image() -> Image:
    """Return the first seed."""
    content = (SEEDS / "classic-0.dcm").read_bytes()
    (length,) = struct.unpack_from("<I", content, 140)
    data_set = content[144 + length :]
    at = data_set.index(b"\x08\x00\x18\x00UI")
    (size,) = struct.unpack_from("<H", data_set, at + 6)
    return Image(data_set[at + 8 : at + 8 + size].rstrip(b"\0"), data_set)


def session(chance: Random) -> list[bytes]:
    """Return what a peer sends, one part after the other: a good C-STORE with one to three things wrong with it."""
    sent = image()
    parts = [associate(), store(sent.uid, sent.data_set), pdu(RELEASE_RQ, bytes(4))]
    for _ in range(chance.randint(1, 3)):
        kind = chance.randrange(10)
        if kind < 3:
            parts[:1] = [_odd_associate(chance)]
        elif kind < 7:
            parts[1:2] = [_odd_store(sent, chance)]
        elif kind == 7:
            place = chance.randrange(len(parts))
            parts[place] = _odd_bytes(parts[place], chance)
        elif kind == 8:
            parts.insert(chance.randrange(len(parts) + 1), _odd_pdu(chance))
        else:
            del parts[chance.randrange(len(parts)) :]
            parts = parts or [b""]
    return parts


def _odd_associate(chance: Random) -> bytes:
    return chance.choice(ODD_REQUESTS)(chance)


def _odd_titles(chance: Random) -> bytes:
    return associate(calling=chance.choice(ODD_TITLES), called=chance.choice((*ODD_TITLES, CALLED)))


def _odd_context_numbers(chance: Random) -> bytes:
    numbers = chance.choice(((), (1,), (0, 2, 255), range(1, 257, 2), (3, 3, 3)))
    return associate(contexts=[(each, MR, (EXPLICIT, IMPLICIT)) for each in numbers])


def _odd_syntaxes(chance: Random) -> bytes:
    return associate(contexts=[(3, chance.choice(odd.UIDS), [chance.choice(odd.UIDS) for _ in range(3)])])


def _odd_longest_pdu(chance: Random) -> bytes:
    return associate(most_bytes=chance.choice((0, 1, 6, 7, 100, 0xFFFFFFFF)))


def _odd_items(chance: Random) -> bytes:
    lying = item(chance.randrange(256), chance.randbytes(8), length=chance.choice(odd.LENGTHS))
    return associate(parts=[lying] * chance.choice((1, 50)))


def _odd_user_information(chance: Random) -> bytes:
    user = b"".join(
        item(chance.randint(0x51, 0x59), chance.choice(odd.UIDS), length=chance.choice((None, None, *odd.LENGTHS)))
        for _ in range(4)
    )
    return associate(parts=[item(0x50, user)])


def _request_of_odd_length(chance: Random) -> bytes:
    return pdu(ASSOCIATE_RQ, associate()[6:], length=chance.choice(odd.LENGTHS))


ODD_REQUESTS: Final[Sequence[Callable[[Random], bytes]]] = (
    _odd_titles, _odd_context_numbers, _odd_syntaxes, _odd_longest_pdu, _odd_items, _odd_user_information,
    _request_of_odd_length,
)  # fmt: skip


def _odd_store(sent: Image, chance: Random) -> bytes:
    return chance.choice(ODD_STORES)(sent, chance)


def _odd_command(sent: Image, chance: Random) -> bytes:
    numbers = ("e0002", "e0100", "e0110", "e0700", "e0800", "e1000", "e1030", "e1031")
    values = (None, 0, 0x0101, 0x8001, 0xFFFF, 0x0030, 0x0FFF, *odd.UIDS)
    changes = {chance.choice(numbers): chance.choice(values) for _ in range(2)}
    return pdu(DATA, pdv(command(sent.uid, **changes), command=True)) + pdu(DATA, pdv(sent.data_set))


def _tiny_fragments(sent: Image, chance: Random) -> bytes:
    """Fragments of one byte: a PDU for each, or all in one."""
    pieces = [sent.data_set[at : at + 1] for at in range(min(200, len(sent.data_set)))]
    values = [pdv(each, last=False) for each in pieces] + [pdv(sent.data_set[len(pieces) :])]
    head = pdu(DATA, pdv(command(sent.uid), command=True))
    together = chance.random() < 0.5
    return head + (pdu(DATA, b"".join(values)) if together else b"".join(pdu(DATA, each) for each in values))


def _odd_context(sent: Image, chance: Random) -> bytes:
    value = pdv(sent.data_set, context=chance.randrange(256), last=chance.random() < 0.5)
    return pdu(DATA, pdv(command(sent.uid), command=True)) + pdu(DATA, value)


def _lying_value(sent: Image, chance: Random) -> bytes:
    """A value that says it is longer or shorter than it is."""
    head = struct.pack(">IBB", chance.choice(odd.LENGTHS), MR_CONTEXT, chance.randrange(256))
    return pdu(DATA, pdv(command(sent.uid), command=True)) + pdu(DATA, head + sent.data_set[:100])


def _wrong_order(sent: Image, _chance: Random) -> bytes:
    return pdu(DATA, pdv(sent.data_set)) + pdu(DATA, pdv(command(sent.uid), command=True))


def _many_commands(sent: Image, chance: Random) -> bytes:
    return pdu(DATA, pdv(command(sent.uid), command=True) * chance.choice((2, 40))) + pdu(DATA, pdv(sent.data_set))


def _cut_command(sent: Image, chance: Random) -> bytes:
    cut = command(sent.uid)[: chance.randrange(60)]
    return pdu(DATA, pdv(cut, command=True)) + pdu(DATA, pdv(sent.data_set))


def _nothing_first(sent: Image, chance: Random) -> bytes:
    return pdu(DATA, b"") * chance.choice((1, 300)) + pdu(DATA, pdv(b"", last=False)) + store(sent.uid, sent.data_set)


def _data_of_odd_length(sent: Image, chance: Random) -> bytes:
    return pdu(DATA, store(sent.uid, sent.data_set)[6:], length=chance.choice(odd.LENGTHS))


ODD_STORES: Final[Sequence[Callable[[Image, Random], bytes]]] = (
    _odd_command, _tiny_fragments, _odd_context, _lying_value, _wrong_order, _many_commands, _cut_command,
    _nothing_first, _data_of_odd_length,
)  # fmt: skip


def _odd_pdu(chance: Random) -> bytes:
    kind = chance.choice((*range(9), 0x41, 0xFF))
    content = chance.choice((b"", bytes(4), chance.randbytes(4), chance.randbytes(70), associate()[6:]))
    return pdu(kind, content, length=chance.choice((None, None, *odd.LENGTHS)))


def _odd_bytes(part: bytes, chance: Random) -> bytes:
    if chance.random() < 0.4:
        return part[: chance.randrange(len(part) + 1)]
    changed = bytearray(part)
    for _ in range(chance.choice((1, 3, 12))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def talk(port: int, parts: Sequence[bytes]) -> str:
    """Send parts, wait for an answer to the first, say that there is no more, and read until the node closes.

    Returns:
        How it ended: the kinds of PDUs that came back; "left open" if the node did not close.
    """
    answer = bytearray()
    deadline = time.monotonic() + CLOSED_WITHIN_S
    with socket.create_connection(("127.0.0.1", port), timeout=CLOSED_WITHIN_S) as connection:
        try:
            for number, part in enumerate(parts):
                connection.sendall(part)
                if number == 0:
                    connection.settimeout(0.2)
                    with contextlib.suppress(TimeoutError):
                        answer += connection.recv(65536)
                    connection.settimeout(CLOSED_WITHIN_S)
            connection.shutdown(socket.SHUT_WR)
            while True:
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                received = connection.recv(65536)
                if not received:
                    break
                answer += received
        except TimeoutError:
            return "left open"
        except OSError:  # the node had enough of it before all was said
            pass
    return " ".join(f"{each:02x}" for each in kinds(bytes(answer))) or "closed"


def kinds(stream: bytes) -> list[int]:
    """Return the types of the PDUs in a stream."""
    found, at = [], 0
    while at + 6 <= len(stream):
        found.append(stream[at])
        at += 6 + struct.unpack_from(">I", stream, at + 2)[0]
    return found


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Return the type and content of the next PDU.

    Raises:
        ConnectionError: if there is none.
    """
    head = _exactly(connection, 6)
    return head[0], _exactly(connection, struct.unpack_from(">I", head, 2)[0])


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        received = connection.recv(count - len(found))
        if not received:
            msg = f"expected {count} bytes, found {len(found)} before the node closed"
            raise ConnectionError(msg)
        found += received
    return bytes(found)


class GoodPeer:
    """An association that stores images one after the other, as a scanner does."""

    def __init__(self, port: int, *, timeout_s: float = 150.0) -> None:
        self._image = image()
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.sendall(associate())
        kind, content = read_pdu(self._connection)
        if kind != ASSOCIATE_AC:
            self._connection.close()
            msg = f"expected A-ASSOCIATE-AC, found PDU type {kind:#04x} {content.hex()}"
            raise ConnectionError(msg)

    def store(self, number: int) -> int:
        """Store an image under a UID made of a number; return the status."""
        uid = b"1.2.826.0.1.3680043.8.498.9.%d" % number
        old = self._image.uid
        at = self._image.data_set.index(old)
        head = self._image.data_set[: at - 2]
        padded, was = uid + b"\0" * (len(uid) % 2), len(old) + len(old) % 2
        data_set = head + struct.pack("<H", len(padded)) + padded + self._image.data_set[at + was :]
        self._connection.sendall(store(uid, data_set))
        _kind, content = read_pdu(self._connection)
        return status_of(content[6:])

    def release(self) -> None:
        """Release the association."""
        self._connection.sendall(pdu(RELEASE_RQ, bytes(4)))
        with contextlib.suppress(OSError):
            read_pdu(self._connection)
        self._connection.close()


def status_of(command_set: bytes) -> int:
    """Return the status of a response's command set."""
    at = 0
    while at < len(command_set):
        _group, number, length = struct.unpack_from("<HHI", command_set, at)
        if number == 0x0900:
            return int(struct.unpack_from("<H", command_set, at + 8)[0])
        at += 8 + length
    msg = "expected a C-STORE-RSP with a status, found none"
    raise ConnectionError(msg)
