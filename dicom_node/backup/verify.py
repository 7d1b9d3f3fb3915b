"""Holds a backup against itself: every file against its digest, every row against its file, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from dicom_node.backup.contents import INSTANCES, KEY, LEDGER, OUTBOX, RESULTS, Sheet, files_in, read_sheet, read_sums
from dicom_node.backup.make import promised_paths, sha256_of
from dicom_node.ledger import copying, stock

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection


def verify(folder: Path) -> list[str]:
    """Return what is wrong with a backup, one line each; nothing: it can be restored as it is.

    Files that the node had lost already when the backup was made are told by `Sheet.missing` and are no fault of it.

    Raises:
        NodeError: if it is no backup at all.
        OSError: if it cannot be read.
    """
    sheet = read_sheet(folder)
    sums = read_sums(folder, sheet)
    present = set(files_in(folder))
    problems = [f"{path}: is gone" for path in sorted(set(sums) - present)]
    problems += [f"{path}: is not of this backup" for path in sorted(present - set(sums))]
    problems += [
        f"{path}: its bytes changed" for path in sorted(present & set(sums)) if sha256_of(folder / path) != sums[path]
    ]
    try:
        with copying.open_copy(folder / LEDGER) as ledger:
            return problems + _compare(ledger, folder, sheet, sums)
    except SQLAlchemyError as error:
        return [*problems, f"{LEDGER}: cannot be read: {type(error).__name__}"]


def _compare(ledger: Connection, folder: Path, sheet: Sheet, sums: dict[str, str]) -> list[str]:
    problems = [f"{LEDGER}: {each}" for each in copying.faults(ledger)]
    rows = copying.counts(ledger)
    problems += [
        f"{LEDGER}: {table}: expected {sheet.rows.get(table)} rows, found {rows.get(table)}"
        for table in sorted(rows | sheet.rows)
        if rows.get(table) != sheet.rows.get(table)
    ]
    promised = set(promised_paths(ledger))
    made = {path for path in sums if not path.startswith(f"{RESULTS}/")} - {LEDGER, KEY}
    problems += [f"{path}: a row promises it, no file" for path in sorted(promised - made - set(sheet.missing))]
    problems += [f"{path}: a file, and no row promises it" for path in sorted(made - promised)]
    return problems + _unlike(ledger, folder, sums)


def _unlike(ledger: Connection, folder: Path, sums: dict[str, str]) -> list[str]:
    """Name files that are not what their rows say: received ones by size, encoded ones by digest."""
    problems = []
    for chunk in stock.promised(ledger):
        for each in chunk:
            path = f"{INSTANCES}/{each.path}"
            if path in sums and (folder / path).is_file() and (folder / path).stat().st_size != each.size_bytes:
                problems.append(f"{path}: has another size than was received")
    for name, sha256 in stock.outbox_paths(ledger).items():
        path = f"{OUTBOX}/{name}"
        if path in sums and sha256 and sums[path] != sha256:
            problems.append(f"{path}: is not what was encoded")
    return problems
