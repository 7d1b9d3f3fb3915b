"""Whether a receiver holds what was sent: every instance once, and which data sets byte by byte."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

from pydicom import dcmread

from dicom_node.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PREAMBLE_BYTES: Final = 132
META_LENGTH: Final = slice(132, 144)  # (0002,0000) UL, always the first element, always explicit little endian


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a receiver holds of what it was sent."""

    sent: int
    missing: int
    repeated: int
    foreign: int  # held, and never sent
    identical: int  # data sets equal byte by byte
    altered: int  # that differ in a value, not only in how it is written

    @property
    def complete(self) -> bool:
        """Whether every instance is there exactly once, and none says anything else than it was sent with."""
        return not (self.missing or self.repeated or self.foreign or self.altered)

    @property
    def faithful(self) -> bool:
        """Whether every data set is there byte by byte too."""
        return self.complete and self.identical == self.sent


def data_set_bytes(content: bytes) -> bytes:
    """Return what follows the file meta information of a Part 10 file: what goes over the network.

    Raises:
        PeerError: if it is no Part 10 file with the length of its file meta information.

    Source: PS3.10 7.1.
    """
    tag, vr, size, length = struct.unpack("<I2sHI", content[META_LENGTH].ljust(12, b"\0"))
    if content[128:PREAMBLE_BYTES] != b"DICM" or (tag, vr, size) != (2, b"UL", 4):
        msg = "expected a Part 10 file that begins with the length of its file meta information (0002,0000)"
        raise PeerError(msg)
    return content[META_LENGTH.stop + length :]


def compare(sent: Iterable[Path], held: Iterable[Path]) -> Comparison:
    """Compare the files of a sender with those of a receiver.

    Raises:
        PeerError: if one of them is no Part 10 file.
        OSError: if one of them cannot be read.
    """
    sources = {_uid(path): path for path in sent}
    digests = {uid: _digest(path) for uid, path in sources.items()}
    copies: Counter[str] = Counter()
    identical = altered = 0
    for path in held:
        uid = _uid(path)
        copies[uid] += 1
        if _digest(path) == digests.get(uid):
            identical += 1
        elif uid in sources and not _says_the_same(sources[uid], path):
            altered += 1
    return Comparison(
        sent=len(sources),
        missing=sum(uid not in copies for uid in sources),
        repeated=sum(count - 1 for uid, count in copies.items() if uid in sources),
        foreign=sum(count for uid, count in copies.items() if uid not in sources),
        identical=identical,
        altered=altered,
    )


def _uid(path: Path) -> str:
    return str(dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(data_set_bytes(path.read_bytes())).digest()


def _says_the_same(sent: Path, held: Path) -> bool:
    return bool(dcmread(BytesIO(sent.read_bytes())) == dcmread(BytesIO(held.read_bytes())))
