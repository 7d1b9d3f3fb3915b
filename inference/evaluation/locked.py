"""The locked test: test data open only when asked for as final, and every opening is written down first.

A test set that is looked at while choosing becomes a validation set. The record cannot prevent a second look, but it
makes the number of looks part of every report. Delete the record and the digest in older reports still tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OPENINGS = "openings.jsonl"
_TABLES = (".csv", ".parquet", ".json")  # wherever they lie
_INDEX = ".npz"  # of the folder itself; below it, .npz files are prepared volumes


class LockedTestError(Exception):
    """Test data were asked for without saying that this is the final evaluation, or cannot be opened on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One look at test data."""

    number: int  # of all openings of this folder, from 1
    opened_at: str  # ISO 8601, UTC
    command: str
    reason: str
    digest: str  # SHA-256 of what was opened


def open_locked(folder: Path, *, final: bool, reason: str, command: str | None = None) -> Opening:
    """Record an opening of a folder of test data and return it; only then may the caller read from there.

    Args:
        folder: holds predictions or a cohort's index.
        final: the caller was told in so many words that this is the final evaluation (`--final`).
        reason: why it is opened, for whoever reads the report.
        command: what opens it; the command line by default.

    Raises:
        LockedTestError: without `final` or a reason, or if the opening cannot be recorded.
    """
    if not final:
        raise LockedTestError(
            f"{folder}: test data are locked; choose and tune on validation data. Expected --final for the one final "
            f"evaluation; every opening is recorded ({count_openings(folder)} so far)"
        )
    if not reason.strip():
        raise LockedTestError(f"{folder}: expected a reason for opening test data, found none")
    try:
        opening = Opening(
            number=count_openings(folder) + 1,
            opened_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=" ".join(sys.argv) if command is None else command,
            reason=reason.strip(),
            digest=folder_digest(folder),
        )
        with (folder / OPENINGS).open("a", encoding="utf-8") as record:
            record.write(json.dumps(asdict(opening), ensure_ascii=False) + "\n")
            record.flush()
            os.fsync(record.fileno())
    except OSError as error:
        raise LockedTestError(f"{folder}: expected to record the opening, found {error.strerror}") from error
    return opening


def count_openings(folder: Path) -> int:
    """Return how often the test data of a folder were opened; 0 where nothing is recorded."""
    path = folder / OPENINGS
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over all files below a folder by name, the record of openings left out.

    Tables and the folder's own index count with their bytes, anything else (volumes of many gigabytes, in one file or
    one by one in a folder of their own) by its size.

    Raises:
        OSError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and each.name != OPENINGS):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        if path.suffix in _TABLES or (path.suffix == _INDEX and path.parent == folder):
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        else:
            digest.update(str(path.stat().st_size).encode() + b"\0")
    return digest.hexdigest()
