"""A consistent copy of the ledger as one SQLite file, from SQLite or from a server, and the way back into either.

SQLite copies itself, page by page, under one snapshot (sqlite.org/backup.html). From a server the rows are read in
one transaction that sees one snapshot, and entered into a new file of the same schema: the copy needs no program of
the server's, and may be restored into a database of either kind.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, inspect, select, text
from sqlalchemy.engine import make_url

from dicom_node.errors import NodeError
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

AT_ONCE: Final = 1000  # rows entered together


def copy_out(database: Database, file: Path) -> None:
    """Write everything that the ledger holds at one moment into a new SQLite file.

    Raises:
        OSError: if the disk says no.
        sqlite3.Error: the same, from SQLite.
        sqlalchemy.exc.SQLAlchemyError: if the ledger cannot be read.
    """
    url = make_url(database.url)
    if url.get_backend_name() == "sqlite":
        assert url.database is not None  # noqa: S101 - a ledger in memory is no ledger
        with closing(sqlite3.connect(url.database)) as source, closing(sqlite3.connect(file)) as target:
            source.backup(target)  # one step, one snapshot; in WAL mode it keeps no writer waiting
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        return
    copy = Database(f"sqlite:///{file}")
    try:
        copy.migrate()
        with database.read() as source_rows, copy.write() as target_rows:
            _copy_rows(source_rows, target_rows)
    finally:
        copy.close()
    with closing(sqlite3.connect(file)) as alone:
        alone.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def open_copy(file: Path) -> Iterator[Connection]:
    """Give a connection to a copy that changes nothing in its folder.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if it cannot be opened, or is no database.
    """
    engine = create_engine(f"sqlite:///file:{quote(str(file.absolute()))}?mode=ro&immutable=1&uri=true")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def faults(connection: Connection) -> list[str]:
    """Return what SQLite finds wrong with a copy: broken pages, rows that refer to nothing."""
    found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    dangling = [
        f"{row[0]}: a row refers to none in {row[2]}" for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
    ]
    return [each for each in found if each != "ok"] + dangling


def copy_in(file: Path, database: Database) -> None:
    """Enter everything that a SQLite file holds into an empty database on a server.

    Raises:
        NodeError: if the database is not empty.
        sqlalchemy.exc.SQLAlchemyError: if the database says no.
    """
    copy = Database(f"sqlite:///{file}")
    try:
        copy.migrate()
        database.migrate()
        with copy.read() as source, database.write() as target:
            if sum(counts(target).values()) > 0:
                msg = "the database to restore into: expected no rows, found some"
                raise NodeError(msg)
            _copy_rows(source, target)
            _set_sequences(target)
    finally:
        copy.close()


def counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table of the ledger holds, of those that this schema has."""
    present = set(inspect(connection).get_table_names())
    return {
        table.name: connection.scalar(select(func.count()).select_from(table)) or 0
        for table in metadata.sorted_tables
        if table.name in present
    }


def revision(connection: Connection) -> str:
    """Return the revision of the schema."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in metadata.sorted_tables:  # those that others refer to first
        keys = list(table.primary_key.columns)
        own = [column for column in table.columns if any(key.column.table is table for key in column.foreign_keys)]
        unlinked = {column.name: None for column in own}
        found = source.execution_options(stream_results=True).execute(select(table).order_by(*keys)).mappings()
        for rows in found.partitions(AT_ONCE):
            target.execute(table.insert(), [dict(row) | unlinked for row in rows])
        for column in own:  # a row may refer to a later one of its own table
            linked = select(*keys, column).where(column.is_not(None))
            for row in source.execute(linked).mappings().all():
                same = [key == row[key] for key in keys]
                target.execute(table.update().where(*same).values({column: row[column]}))


def _set_sequences(target: Connection) -> None:
    """Let numbers that the server gives go on after those that were entered."""
    if target.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        key = table.autoincrement_column
        if key is not None:
            highest = f"SELECT COALESCE(MAX({key.name}), 0) + 1 FROM {table.name}"  # noqa: S608 - our own names
            name = f"pg_get_serial_sequence('{table.name}', '{key.name}')"
            target.execute(text(f"SELECT setval({name}, ({highest}), false)"))
