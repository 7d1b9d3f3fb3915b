"""Which queries read a whole table: asked of SQLite itself, for every statement that a piece of work makes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, event, func, select

from dicom_node.ledger.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database

SHOWN: Final = 160  # characters of a statement
READS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A statement that reads a table, or an index of it, from end to end."""

    work: str
    table: str
    rows: int
    plan: str  # SQLite's words
    statement: str


@contextmanager
def statements() -> Iterator[dict[str, Any]]:
    """Give what is executed while the block lasts, on any database: statement -> parameters of the first time."""
    seen: dict[str, Any] = {}

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool) -> None:  # noqa: FBT001 - SQLAlchemy's signature
        if statement.lstrip().startswith(READS):
            seen.setdefault(statement, parameters)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def scans(database: Database, work: str, seen: dict[str, Any]) -> list[Scan]:
    """Return the statements that read a whole table, with how many rows it has.

    Source: sqlite.org/eqp.html (SCAN and SEARCH).
    """
    found = []
    with database.read() as ledger:
        for statement, parameters in seen.items():
            once = parameters[0] if isinstance(parameters, list) else parameters
            for row in ledger.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", once):
                table = row.detail.split()[1] if row.detail.startswith("SCAN ") else ""
                if table in metadata.tables:
                    text = " ".join(statement.split())[:SHOWN]
                    count = _count(ledger, table)
                    found.append(Scan(work=work, table=table, rows=count, plan=row.detail, statement=text))
    return found


def _count(ledger: Connection, table: str) -> int:
    return ledger.scalar(select(func.count()).select_from(metadata.tables[table])) or 0
