"""Makes a backup while the node is at work: rows of one moment first, then the files that they promise.

Files are written before their rows and never changed, so every file that a copied row promises is there when the rows
are copied. Only retention and `purge` delete; what they delete while files are being taken is missed, and then the
rows are copied once more. The folder gets its name when everything in it is durable: a backup is whole or not there.

On the file system of the data folder files are linked, not copied: that takes no room and hardly any time, and is no
protection against the loss of that disk until the folder is copied elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.backup.contents import (
    INSTANCES,
    KEY,
    LEDGER,
    OUTBOX,
    RESULTS,
    SHEET,
    SUMS,
    Sheet,
    write_sums,
)
from dicom_node.errors import NodeError
from dicom_node.ledger import copying, stock
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import ArrivalState
from dicom_node.receive.files import fsync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.settings import Settings

MOST_LOOKS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The files that the rows of one moment promise, and others; relative to the data folder as to the backup."""

    promised: frozenset[str]
    beside: frozenset[str]  # taken where they are there: saliency maps can be made anew
    rows: dict[str, int]
    schema: str


def make_backup(settings: Settings, folder: Path, now: datetime) -> Sheet:
    """Make a backup under a name that is not taken.

    Raises:
        NodeError: if the folder is not empty, or lies in the data folder.
        OSError: if a disk says no; nothing is left under the name.
        sqlalchemy.exc.SQLAlchemyError: if the ledger cannot be read.
        sqlite3.Error: the same.
    """
    folder = folder.absolute()
    data = settings.node.data_dir
    _refuse(folder, data)
    partial = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir(mode=0o700)
    try:
        sheet = _fill(settings, partial, now)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_folder(folder.parent)
    return sheet


def _refuse(folder: Path, data: Path) -> None:
    if folder.resolve().is_relative_to(data.resolve()):
        msg = f"{folder}: a backup must not lie in the data folder {data}"
        raise NodeError(msg)
    if folder.is_mount():
        msg = f"{folder}: is where a disk is mounted; name a folder in it that does not exist yet"
        raise NodeError(msg)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder}: expected nothing or an empty folder, found something: a backup is never written over another"
        raise NodeError(msg)


def _fill(settings: Settings, partial: Path, now: datetime) -> Sheet:
    data = settings.node.data_dir
    database = Database(settings.ledger_url)
    try:
        for _ in range(MOST_LOOKS):
            wanted = _copy_ledger(database, data, partial)
            _take_all(data, partial, wanted.beside)
            missing = _take_all(data, partial, wanted.promised)
            if not missing:
                break
    finally:
        database.close()
    _drop_unwanted(partial, wanted.promised | wanted.beside)
    sums = {path: sha256_of(partial / path) for path in sorted(_files(partial))}
    listed = write_sums(sums.items())
    sheet = Sheet(
        made_at=now.isoformat(timespec="seconds"),
        ae_title=settings.node.ae_title,
        schema=wanted.schema,
        rows=wanted.rows,
        files=len(sums),
        size_bytes=sum((partial / path).stat().st_size for path in sums),
        missing=tuple(sorted(missing)),
        sums_sha256=hashlib.sha256(listed).hexdigest(),
    )
    _write(partial / SUMS, listed)
    _write(partial / SHEET, sheet.to_json().encode())
    for each in [path for path in partial.rglob("*") if path.is_dir()]:
        fsync_folder(each)
    fsync_folder(partial)
    return sheet


def _copy_ledger(database: Database, data: Path, partial: Path) -> _Wanted:
    """Copy the rows of this moment and return which files they promise."""
    file = partial / LEDGER
    file.unlink(missing_ok=True)
    copying.copy_out(database, file)
    _sync(file)
    with copying.open_copy(file) as ledger:
        paths = set(promised_paths(ledger))
        rows, schema = copying.counts(ledger), copying.revision(ledger)
    beside = {f"{RESULTS}/{each.name}" for each in (data / RESULTS).glob("[0-9a-f]*.npz")} | {KEY}
    return _Wanted(promised=frozenset(paths), beside=frozenset(beside), rows=rows, schema=schema)


def promised_paths(ledger: Connection) -> Iterator[str]:
    """Yield the files that rows promise, as POSIX paths; what is noted as lost is promised no more."""
    for chunk in stock.promised(ledger):
        for each in chunk:
            if each.state is not ArrivalState.LOST:
                yield f"{INSTANCES}/{each.path}"
    for path in stock.outbox_paths(ledger):
        yield f"{OUTBOX}/{path}"


def _take_all(data: Path, partial: Path, paths: frozenset[str]) -> set[str]:
    """Take every file that is not there yet; return those that the node has not."""
    missing = set()
    for path in sorted(paths):
        target = partial / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                _take(data / path, target)
            except FileNotFoundError:
                missing.add(path)
    return missing


def _take(source: Path, target: Path) -> None:
    """Link a file where that is possible, else copy it durably.

    Raises:
        OSError: if it is gone, or the disk says no.
    """
    if not source.exists():
        raise FileNotFoundError(source)
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        _sync(target)


def _drop_unwanted(partial: Path, paths: frozenset[str]) -> None:
    """Delete what an earlier look took and the rows of the last do not promise any more."""
    for path in _files(partial):
        if path != LEDGER and path not in paths:
            (partial / path).unlink()


def _files(partial: Path) -> list[str]:
    return [each.relative_to(partial).as_posix() for each in partial.rglob("*") if each.is_file()]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
