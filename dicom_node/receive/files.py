"""Instance files: temporary name, fsync, rename, fsync of the folder. A file under its final name is whole and durable.

Names are random, never made of received text. A file without a row in the ledger was never acknowledged, so the
start-up scan may delete it once it is old enough that nobody can still be about to commit its row.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ORPHAN_AGE_S: Final = 3600.0


def fsync_folder(folder: Path) -> None:
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
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


class InstanceFiles:
    """The folder of received instances: 256 sub-folders, made once, so that none grows too large to list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"

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

    def write(self, chunks: Iterable[bytes | memoryview]) -> str:
        """Store one file durably.

        Returns:
            Its path relative to the folder.

        Raises:
            OSError: if the disk says no.
        """
        name = uuid.uuid4().hex
        relative = f"{name[:2]}/{name}.dcm"
        write_durably(self.folder / relative, chunks, temporary=self._incoming / name)
        return relative

    def path(self, relative: str) -> Path:
        """Return where a stored file lies."""
        return self.folder / relative

    def remove(self, relative: str) -> None:
        """Delete a stored file that no row promises any more."""
        self.path(relative).unlink(missing_ok=True)

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
