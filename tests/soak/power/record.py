"""The record of what processes wrote under a folder: how it is made, marked and read."""

from __future__ import annotations

import fcntl
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER_VARIABLE: Final = "DICOM_NODE_RECORDED"
RECORD_VARIABLE: Final = "DICOM_NODE_RECORD"
SOURCE: Final = Path(__file__).with_name("recorder.c")
MARK: Final = "X"
_HEAD: Final = struct.Struct("<c5Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that changed a file or a folder, or a mark; `offset` is a length of 'T', a token of syncs."""

    kind: str
    inode: int
    offset: int
    data: bytes
    path: str
    other: str


def compiler() -> str | None:
    """Return the C compiler, None where there is none."""
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path) -> Path:
    """Compile the recorder; return the shared object to preload.

    Raises:
        RuntimeError: if there is no compiler, or it fails.
    """
    found = compiler()
    if found is None:
        msg = "no C compiler (gcc): writes cannot be recorded"
        raise RuntimeError(msg)
    target = folder / "recorder.so"
    command = [found, "-O2", "-shared", "-fPIC", "-o", str(target), str(SOURCE), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return target


def mark(record: Path, text: str) -> None:
    """Enter into the record that something was promised: whatever is before it in the record had happened."""
    said = text.encode()
    with record.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(_HEAD.pack(MARK.encode(), 0, 0, 0, len(said), 0) + said)


def read(record: Path) -> Iterator[Call]:
    """Give the calls in order."""
    with record.open("rb") as file:
        while head := file.read(_HEAD.size):
            kind, inode, offset, length, one, two = _HEAD.unpack(head)
            path, other = file.read(one).decode(), file.read(two).decode()
            yield Call(kind=kind.decode(), inode=inode, offset=offset, data=file.read(length), path=path, other=other)
