"""Instance files: temporary name, rename, fsync of the file and of the folder; only then may a row name them.

Names are random, never made of received text. A file without a row in the ledger was never acknowledged and may be cut
off, so the start-up scan may delete it once it is old enough that nobody can still be about to commit its row.

The rename comes before the fsync of the file, so that a journalling file system commits both at once; the fsync of the
folder then mostly finds nothing left to do. Neither is left out: POSIX promises no more than each of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ORPHAN_AGE_S: Final = 3600.0
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC  # a link there is refused
INCOMING: Final = "incoming"  # sub-folder of files under temporary names


def fsync_folder(folder: Path | str) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: if the disk says no.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, chunks: Iterable[bytes | memoryview], *, temporary: Path | None = None) -> None:
    """Write a file so that after the return it is whole under its name, whatever happens to the power.

    Args:
        path: the final name; its folder must exist.
        chunks: the content.
        temporary: where to write first, on the same file system; default: beside the final name.

    Raises:
        OSError: if the disk says no; nothing is left under either name.
    """
    temporary = temporary or path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(os.open(temporary, NEW_FILE, 0o600), "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


class NewFile:
    """A file on its way: under a temporary name until `keep`."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._name = name
        self._temporary = f"{folder}/{INCOMING}/{name}"
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size_bytes = 0

    def write(self, *chunks: bytes | memoryview) -> None:
        """Append, with one call to the system where it takes all at once.

        Raises:
            OSError: if the disk says no; `discard` what is there.
        """
        written = os.writev(self._descriptor, chunks)
        self.size_bytes += written
        for chunk in chunks:
            left = memoryview(chunk)[written:]
            written -= len(chunk) - len(left)
            while left:
                count = os.write(self._descriptor, left)
                self.size_bytes += count
                left = left[count:]

    def keep(self) -> str:
        """Make the file durable under its final name.

        Returns:
            Its path relative to the folder of instances.

        Raises:
            OSError: if the disk says no; nothing is left under either name.
        """
        subfolder = self._name[:2]
        relative = f"{subfolder}/{self._name}.dcm"
        final = f"{self._folder}/{relative}"
        try:
            os.rename(self._temporary, final)  # noqa: PTH104 - a Path costs as much as the call
            self._temporary = final
            os.fsync(self._descriptor)
            fsync_folder(f"{self._folder}/{subfolder}")
        except OSError:
            self.discard()
            raise
        os.close(self._descriptor)
        return relative

    def discard(self) -> None:
        """Delete it, under whichever name it lies."""
        os.close(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)  # noqa: PTH108


class InstanceFiles:
    """The folder of received instances: 256 sub-folders, made once, so that none grows too large to list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / INCOMING

    def prepare(self) -> None:
        """Make the folders, readable by us alone.

        Raises:
            OSError: if they cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._incoming.mkdir(exist_ok=True, mode=0o700)
        for number in range(256):
            (self.folder / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
        fsync_folder(self.folder)

    def create(self) -> NewFile:
        """Begin a file under a temporary name.

        Raises:
            OSError: if the disk says no.
        """
        return NewFile(str(self.folder), uuid.uuid4().hex)

    def write(self, chunks: Iterable[bytes | memoryview]) -> str:
        """Store one file durably.

        Returns:
            Its path relative to the folder.

        Raises:
            OSError: if the disk says no.
        """
        new = self.create()
        try:
            new.write(*chunks)
        except OSError:
            new.discard()
            raise
        return new.keep()

    def path(self, relative: str) -> Path:
        """Return where a stored file lies."""
        return self.folder / relative

    def remove(self, relative: str) -> None:
        """Delete a stored file that no row promises any more."""
        self.path(relative).unlink(missing_ok=True)

    @staticmethod
    def is_half(relative: str) -> bool:
        """Say whether a file still has a temporary name."""
        return relative.startswith(f"{INCOMING}/")

    def free_gb(self) -> float:
        """Return the free space of the file system in gigabytes (1e9 bytes)."""
        return shutil.disk_usage(self.folder).free / 1e9

    def old_files(self, *, now_s: float) -> Iterator[list[str]]:
        """Yield the relative paths of files so old that nobody can still be about to commit their row, by sub-folder.

        Args:
            now_s: the present as seconds since the epoch.
        """
        for folder in (self._incoming, *(self.folder / f"{number:02x}" for number in range(256))):
            with os.scandir(folder) as entries:
                yield [f"{folder.name}/{each.name}" for each in entries if _is_old_file(each, now_s)]


def _is_old_file(entry: os.DirEntry[str], now_s: float) -> bool:
    try:
        return entry.is_file(follow_symlinks=False) and now_s - entry.stat().st_mtime > ORPHAN_AGE_S
    except FileNotFoundError:
        return False  # it just got its final name, or was deleted
