"""Stock-taking at a start: received files held against the ledger's rows, both ways, and what is done about it.

A file without a row was never acknowledged and is deleted once it is old. A row without its file, or with one cut
short, was acknowledged, and something outside took the bytes: the row is noted as lost, so that a case that needs it
says so and the object can be sent or fetched again. A file that is here again, on a disk that was not mounted perhaps,
is taken back. A file that contradicts another stays a contradiction, with bytes or without: a person must settle it.
Encoded objects that are gone are only told: their delivery ends with the reason when it is attempted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.ledger import stock
from dicom_node.ledger.cohort import write_audit
from dicom_node.ledger.tables import ArrivalState

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.stock import PromisedFile
    from dicom_node.receive.files import InstanceFiles

GONE = "its file is gone"
CUT_SHORT = "its file has another size than was received"


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Where files and rows do not agree: each with what was found."""

    promised: int  # files that rows promise
    lost: tuple[tuple[PromisedFile, str], ...]
    back: tuple[PromisedFile, ...]
    noted: int  # lost files that an earlier start noted and that are still not here
    contradictions: int  # contradicting files without bytes
    outbox: tuple[str, ...]  # encoded objects that are gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a start-up scan found and did."""

    promised: int
    lost: int
    back: int
    removed: int
    outbox: int
    contradictions: int


def compare(database: Database, files: InstanceFiles, outbox: Path) -> Differences:
    """Find the rows whose file is not here as it was received; changes nothing."""
    count, noted, contradictions, lost, back = 0, 0, 0, [], []
    with database.read() as ledger:
        for chunk in stock.promised(ledger):
            for each in chunk:
                count += 1
                found = _fault(files, each)
                if each.state is ArrivalState.LOST and found is None:
                    back.append(each)
                elif each.state is ArrivalState.LOST:
                    noted += 1
                elif found is not None and each.state is ArrivalState.CONFLICT:
                    contradictions += 1
                elif found is not None:
                    lost.append((each, found))
        encoded = stock.outbox_paths(ledger)
    return Differences(
        promised=count,
        lost=tuple(lost),
        back=tuple(back),
        noted=noted,
        contradictions=contradictions,
        outbox=tuple(sorted(path for path in encoded if not (outbox / path).is_file())),
    )


def take_stock(database: Database, files: InstanceFiles, outbox: Path, now: datetime) -> Taken:
    """Bring rows and files together, and keep in the audit what was done where anything had to be."""
    found = compare(database, files, outbox)
    removed = _remove_orphans(database, files, now)
    taken = Taken(
        promised=found.promised,
        lost=len(found.lost),
        back=len(found.back),
        removed=removed,
        outbox=len(found.outbox),
        contradictions=found.contradictions,
    )
    if found.lost or found.back:
        details: dict[str, object] = {
            "lost": taken.lost,
            "back": taken.back,
            "removed": removed,
            "outbox": taken.outbox,
        }
        with database.write() as ledger:
            stock.lose(ledger, found.lost)
            stock.take_back(ledger, found.back)
            write_audit(
                ledger, at=now, actor="start", action="storage reconciled", subject="instances", details=details
            )
    return taken


def _remove_orphans(database: Database, files: InstanceFiles, now: datetime) -> int:
    """Delete old files nobody was told are stored, one sub-folder after the other."""
    removed = 0
    for paths in files.old_files(now_s=now.timestamp()):
        with database.read() as ledger:
            orphans = stock.without_row(ledger, paths)
        for path in orphans:
            files.remove(path)
        removed += len(orphans)
    return removed


def _fault(files: InstanceFiles, each: PromisedFile) -> str | None:
    try:
        size_bytes = files.path(each.path).stat().st_size
    except FileNotFoundError:
        return GONE
    return None if size_bytes == each.size_bytes else CUT_SHORT
