"""Stock-taking at a start: received files held against the ledger's rows, both ways, and what is done about it.

A whole file without a row is entered once it is old: a crash came between, and nobody was told that it is stored, or
the ledger is not the one that promised it, and then the file is all that is left. A half file is deleted. A row without
its file, or with one cut short, was acknowledged, and something outside took the bytes: the row is noted as lost, so
that a case that needs it says so and the object can be sent or fetched again. A file that is here again, on a disk that
was not mounted perhaps, is taken back. A file that contradicts another stays a contradiction, with bytes or without: a
person must settle it. Encoded objects that are gone are only told: their delivery ends with the reason when it is
attempted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from dicom_node.errors import PeerError
from dicom_node.ledger import arrivals, stock
from dicom_node.ledger.cohort import write_audit
from dicom_node.ledger.tables import ArrivalState
from dicom_node.receive.intake import Origin, arrival_of, read_file_meta
from dicom_node.settings import UNKNOWN_ISSUER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.stock import PromisedFile
    from dicom_node.receive.files import InstanceFiles

GONE = "its file is gone"
CUT_SHORT = "its file has another size than was received"
HEAD_BYTES: Final = 1 << 20  # more than file meta information needs
HERE: Final = "FOUND-HERE"  # in place of a calling AE title, where a file does not say who sent it


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
    entered: int  # whole files that had no row
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


def take_stock(
    database: Database, files: InstanceFiles, outbox: Path, now: datetime, *, issuers: Mapping[str, str]
) -> Taken:
    """Bring rows and files together, and keep in the audit what was done where anything had to be.

    Args:
        database: the ledger.
        files: the received ones.
        outbox: where encoded objects lie.
        now: the present, tz-aware.
        issuers: calling AE title -> issuer of IDs that name none, for files that have to be entered anew.
    """
    found = compare(database, files, outbox)
    entered, removed = _settle_unknown(database, files, now, issuers)
    taken = Taken(
        promised=found.promised,
        lost=len(found.lost),
        back=len(found.back),
        entered=entered,
        removed=removed,
        outbox=len(found.outbox),
        contradictions=found.contradictions,
    )
    if found.lost or found.back or entered:
        details: dict[str, object] = {
            "lost": taken.lost,
            "back": taken.back,
            "entered": entered,
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


def _settle_unknown(
    database: Database, files: InstanceFiles, now: datetime, issuers: Mapping[str, str]
) -> tuple[int, int]:
    """Enter or delete old files that no row promises, one sub-folder after the other; return how many of each."""
    entered = removed = 0
    for paths in files.old_files(now_s=now.timestamp()):
        with database.read() as ledger:
            known = stock.states(ledger, paths)
        given_up = [path for path in paths if known.get(path) is ArrivalState.AGED_OUT]
        unknown = {path: _arrival(files, path, issuers) for path in paths if path not in known}
        whole = [each for each in unknown.values() if each is not None]
        if whole:
            with database.write() as ledger:
                arrivals.record(ledger, *whole)
        half = [path for path, each in unknown.items() if each is None]
        for path in (*given_up, *half):
            files.remove(path)
        entered, removed = entered + len(whole), removed + len(given_up) + len(half)
    return entered, removed


def _arrival(files: InstanceFiles, path: str, issuers: Mapping[str, str]) -> arrivals.Arrival | None:
    """Return what a file's own head says of its arrival, None if it is no whole file."""
    if files.is_half(path):
        return None
    try:
        with files.path(path).open("rb") as file:
            head, status = file.read(HEAD_BYTES), os.fstat(file.fileno())
        meta = read_file_meta(head)
    except (FileNotFoundError, PeerError):
        return None
    sender = str(meta.get("SendingApplicationEntityTitle") or "")
    origin = Origin(name=sender or HERE, default_issuer=issuers.get(sender, UNKNOWN_ISSUER))
    came = datetime.fromtimestamp(status.st_mtime, UTC)
    return arrival_of(meta, origin, path=path, size_bytes=status.st_size, received_at=came)


def _fault(files: InstanceFiles, each: PromisedFile) -> str | None:
    try:
        size_bytes = files.path(each.path).stat().st_size
    except FileNotFoundError:
        return GONE
    return None if size_bytes == each.size_bytes else CUT_SHORT
