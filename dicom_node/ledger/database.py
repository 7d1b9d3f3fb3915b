"""One database, opened durably: SQLite in WAL with synchronous=FULL, or PostgreSQL by URL.

A write transaction on SQLite begins IMMEDIATE, so that two writers queue up (busy_timeout) instead of failing half-way;
a read transaction sees one snapshot and blocks nobody.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import alembic.command
import alembic.config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy import Connection, Engine

BUSY_TIMEOUT_MS: Final = 30_000
MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Database:
    """The door to the ledger: `read()` and `write()` give a connection in one transaction each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)
        one_snapshot = {} if self._engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(readonly=True, **one_snapshot)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one snapshot."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection whose changes commit together at the end, or not at all."""
        with self._engine.begin() as connection:
            yield connection

    def connect(self) -> Connection:
        """Give a connection to keep: each `begin()` on it is a transaction like those of `write`."""
        return self._engine.connect()

    def migrate(self) -> None:
        """Bring the schema to the newest revision."""
        with self._engine.connect() as connection:
            alembic.command.upgrade(_alembic_config(connection), "head")
            connection.commit()

    def require_newest_schema(self) -> None:
        """Refuse to work on a schema of another version.

        Raises:
            NodeError: if the database was never migrated or belongs to another version.
        """
        with self.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        expected = ScriptDirectory(str(MIGRATIONS)).get_current_head()
        if found != expected:
            msg = f"ledger: expected schema revision {expected}, found {found or 'none'}; start dicom-node run once"
            raise NodeError(msg)

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


def _alembic_config(connection: Connection) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Set what must hold on every SQLite connection (sqlite.org/pragma.html)."""
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    readonly = connection.get_execution_options().get("readonly", False)
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")
