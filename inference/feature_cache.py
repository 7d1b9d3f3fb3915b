"""What was once computed for a time point: files named by what went in, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# What a torn, foreign or older cache file raises when it is read.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


class Stored(Protocol):
    """A value that writes itself to a file and reads itself back."""

    def save(self, path: Path) -> None:
        """Write the value."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the value."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Features:
    """The encoder's features of one time point, (D,)."""

    values: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the features to an uncompressed .npz file."""
        with path.open("wb") as file:
            np.savez(file, values=self.values)

    @classmethod
    def load(cls, path: Path) -> Features:
        """Read features written by `save`.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it holds pickled objects.
        """
        with np.load(path, allow_pickle=False) as arrays:
            return cls(values=arrays["values"])


StoredT = TypeVar("StoredT", bound=Stored)


def cache_key(*parts: str) -> str:
    """Return a file name for a value that depends on exactly these parts, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part.encode())
    return digest.hexdigest()


def recall(folder: Path | None, key: str, kind: type[StoredT]) -> StoredT | None:
    """Return the stored value, or None if there is none or it cannot be read (then it is computed anew)."""
    if folder is None:
        return None
    path = folder / f"{key}.npz"
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()  # checks every member's CRC
        value = None if torn else kind.load(path)
        path.touch()  # in use: a sweep by age leaves it
    except _UNREADABLE:
        return None
    return value


def remember(folder: Path | None, key: str, value: Stored) -> None:
    """Write a value under its final name in one step, so that no reader ever sees a part of it.

    Raises:
        OSError: if the folder cannot be written.
    """
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        value.save(temporary)
        temporary.replace(folder / f"{key}.npz")
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def recall_or_compute(folder: Path | None, key: str, kind: type[StoredT], compute: Callable[[], StoredT]) -> StoredT:
    """Return the stored value, computing and storing it if it is not there."""
    value = recall(folder, key, kind)
    if value is None:
        value = compute()
        remember(folder, key, value)
    return value
