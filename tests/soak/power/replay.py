"""What a disk holds after the power failed: the record up to a cut, less what was not synced.

A file's bytes are durable up to its last sync, a name from the sync of its folder on. What came later may be there or
not, page by page and name by name: a strict cut drops all of it, a torn one keeps each piece by chance. One rename is
one step, as every journalling file system keeps it: the old name never goes before the new one is there.

Source: POSIX fsync; Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014 (what may be lost, and how).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from tests.soak.power.record import Call

PAGE: Final = 4096
NOT_COMPARED: Final = ("-shm", ".lock")  # mapped by SQLite, and made anew; locks have no content


@dataclass
class File:
    """The bytes of a file: as a process reads them, as the disk holds them, and what lies between."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int, bytes | None]] = field(default_factory=list)  # (call, offset, data; None: truncate)

    def change(self, call: int, offset: int, data: bytes | None) -> None:
        """Write, or truncate to an offset."""
        _apply(self.content, offset, data)
        self.pending.append((call, offset, data))

    def sync(self, up_to: int) -> None:
        """Make durable what was written before a call."""
        for call, offset, data in self.pending:
            if call < up_to:
                _apply(self.durable, offset, data)
        self.pending = [each for each in self.pending if each[0] >= up_to]

    def after_cut(self, rng: random.Random | None) -> bytes:
        """Return what the disk holds; without chance, nothing that was not synced."""
        found = bytearray(self.durable)
        for _, offset, data in self.pending if rng is not None else ():
            for start, piece in _pages(offset, data):
                if rng.random() < 0.5:
                    _apply(found, start, piece)
        return bytes(found)


@dataclass
class Naming:
    """A name given or taken away, or both in one step, and not yet durable."""

    call: int
    removed: str | None = None
    added: str | None = None
    node: File | None = None  # what the added name means; None: a folder
    done: bool = False


class Disk:
    """A file system under one folder, as the record tells it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.names: dict[str, File | None] = {root: None}
        self._durable: dict[str, File | None] = {root: None}
        self._namings: dict[str, list[Naming]] = {}  # folder -> in order
        self._inodes: dict[int, File] = {}
        self._begun: dict[int, int] = {}  # token of a sync -> the call at which it began
        self._calls = 0

    def play(self, calls: Iterable[Call]) -> None:
        """Let calls happen."""
        for each in calls:
            self._calls += 1
            getattr(self, f"_play_{each.kind.lower()}")(each)

    def after_cut(self, rng: random.Random | None) -> dict[str, bytes | None]:
        """Return path -> bytes of what is there when the power comes back; None is a folder."""
        names = dict(self._durable)
        for each in self._left() if rng is not None else ():
            if rng.random() < 0.5:
                _rename(names, each)
        return {
            path: None if node is None else node.after_cut(rng)
            for path, node in names.items()
            if all(str(parent) in names for parent in PurePosixPath(path).parents if _inside(str(parent), self.root))
        }

    def differences(self) -> list[str]:
        """Compare what the record says with the folder itself: what differs, the recorder did not see."""
        there = {str(path): path for path in Path(self.root).rglob("*") if not path.is_symlink()}
        told = {path for path in self.names if path != self.root}
        found = [f"{path}: only in the record" for path in sorted(told - set(there))]
        found += [f"{path}: not in the record" for path in sorted(set(there) - told)]
        for path, node in self.names.items():
            compared = node is not None and path in there and not path.endswith(NOT_COMPARED)
            if compared and there[path].read_bytes() != bytes(node.content):  # type: ignore[union-attr]
                found.append(f"{path}: other bytes than in the record")
        return [each for each in found if not each.split(": ")[0].endswith(NOT_COMPARED)]

    def _left(self) -> list[Naming]:
        unique = {id(each): each for namings in self._namings.values() for each in namings if not each.done}
        return sorted(unique.values(), key=lambda each: each.call)

    def _name(self, naming: Naming) -> None:
        _rename(self.names, naming)
        for path in {naming.removed, naming.added} - {None}:
            self._namings.setdefault(str(PurePosixPath(str(path)).parent), []).append(naming)

    def _play_c(self, call: Call) -> None:
        self._inodes[call.inode] = File()
        self._name(Naming(call=self._calls, added=call.path, node=self._inodes[call.inode]))

    def _play_m(self, call: Call) -> None:
        self._name(Naming(call=self._calls, added=call.path))

    def _play_r(self, call: Call) -> None:
        self._name(Naming(call=self._calls, removed=call.path, added=call.other, node=self.names[call.path]))

    def _play_l(self, call: Call) -> None:
        self._name(Naming(call=self._calls, added=call.other, node=self.names[call.path]))

    def _play_u(self, call: Call) -> None:
        self._name(Naming(call=self._calls, removed=call.path))

    def _play_w(self, call: Call) -> None:
        self._inodes[call.inode].change(self._calls, call.offset, call.data)

    def _play_t(self, call: Call) -> None:
        self._inodes[call.inode].change(self._calls, call.offset, None)

    def _play_b(self, call: Call) -> None:
        self._begun[call.offset] = self._calls

    def _play_s(self, call: Call) -> None:
        self._inodes[call.inode].sync(self._begun.pop(call.offset))

    def _play_d(self, call: Call) -> None:
        begun = self._begun.pop(call.offset)
        namings = self._namings.get(call.path, [])
        for each in namings:
            if each.call < begun and not each.done:
                _rename(self._durable, each)
                each.done = True
        self._namings[call.path] = [each for each in namings if not each.done]

    def _play_x(self, _call: Call) -> None:
        """Be a mark."""


def write_out(state: dict[str, bytes | None], root: str, folder: Path) -> None:
    """Write what a cut left into another folder."""
    for path in sorted(state):
        target = folder / PurePosixPath(path).relative_to(root)
        content = state[path]
        if content is None:
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
        else:
            target.write_bytes(content)


def _rename(names: dict[str, File | None], naming: Naming) -> None:
    if naming.removed is not None:
        names.pop(naming.removed, None)
    if naming.added is not None:
        names[naming.added] = naming.node


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None and offset <= len(content):
        del content[offset:]
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    if data is not None:
        content[offset : offset + len(data)] = data


def _pages(offset: int, data: bytes | None) -> list[tuple[int, bytes | None]]:
    """Cut a write at the borders of pages: a disk may hold some of them."""
    if data is None:
        return [(offset, None)]
    pieces: list[tuple[int, bytes | None]] = []
    start = offset
    while start < offset + len(data):
        end = min((start // PAGE + 1) * PAGE, offset + len(data))
        pieces.append((start, data[start - offset : end - offset]))
        start = end
    return pieces


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
