"""Enters received files so that those that come at the same time share one commit.

Whoever comes first writes for all who wait: one transaction at a time, over one connection that stays open. Nobody is
told that a row is in the ledger before the commit it was part of. A batch that fails is tried again row by row, so that
one that cannot be entered costs only itself.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from dicom_node.ledger import arrivals

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.arrivals import Arrival
    from dicom_node.ledger.database import Database


class _Entry:
    """A row on its way."""

    def __init__(self, new: Arrival) -> None:
        self.new = new
        self.is_done = False
        self.error: SQLAlchemyError | None = None


class GroupCommit:
    """The way of received files into the ledger, for any number of threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Entry] = deque()
        self._turn = threading.Lock()
        self._connection: Connection | None = None

    def record(self, new: Arrival) -> None:
        """Note a durable file; returns when its row is committed.

        Raises:
            SQLAlchemyError: if it cannot be.
        """
        entry = _Entry(new)
        self._waiting.append(entry)
        with self._turn:
            if not entry.is_done:
                self._write_waiting()
        if entry.error is not None:
            raise entry.error

    def close(self) -> None:
        """Give the connection back; the next row opens another."""
        with self._turn:
            self._close()

    def _write_waiting(self) -> None:
        batch = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        error = self._write([entry.new for entry in batch])
        for entry in batch:
            entry.error = error if error is None or len(batch) == 1 else self._write([entry.new])
            entry.is_done = True

    def _write(self, rows: list[Arrival]) -> SQLAlchemyError | None:
        """Commit rows; over a new connection where the old one turns out to be lost."""
        error = self._try(rows)
        if not isinstance(error, DBAPIError) or not error.connection_invalidated:
            return error
        for row in rows:
            error = self._try([row])
            if error is not None and not isinstance(error, IntegrityError):
                return error  # IntegrityError: its path is there, so only the answer to the commit was lost
        return None

    def _try(self, rows: list[Arrival]) -> SQLAlchemyError | None:
        try:
            if self._connection is None:
                self._connection = self._database.connect()
            with self._connection.begin():
                arrivals.record(self._connection, *rows)
        except SQLAlchemyError as error:
            self._close()
            return error
        return None

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
