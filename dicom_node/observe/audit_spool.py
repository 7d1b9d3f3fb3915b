"""Audit messages that wait to be sent, in a SQLite file of their own beside the ledger, readable by us alone.

The ledger holds the facts; here stands how far they have been told. The new position and the messages that follow from
it commit together, so each fact becomes a message once, whatever is killed when; how a message leaves is another step.
Nothing of this touches the ledger's transactions: a full disk or a dead repository costs reception nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "waiting.sqlite"
KEPT_S: Final = 7 * 86400.0  # the keys of what was told
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS position (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS told (key TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, line BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS waiting_sink ON waiting (sink, id);
CREATE TABLE IF NOT EXISTS dropped (sink TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message ready to be sent; `key` names the fact it tells, empty: told whenever it is offered."""

    key: str
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message that waits."""

    number: int
    line: bytes


class Spool:
    """The file; opened anew for every transaction, so that any thread or process may use it."""

    def __init__(self, path: Path, sinks: Sequence[str], most_waiting: int) -> None:
        self._path = path
        self._sinks = tuple(sinks)
        self._most = most_waiting

    def prepare(self) -> None:
        """Make the file.

        Raises:
            OSError: if the disk says no.
            sqlite3.Error: the same.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        with self._open() as file:
            file.executescript(SCHEMA)

    def positions(self) -> dict[str, float]:
        """Return how far each kind of fact has been told."""
        with self._open() as file:
            return dict(file.execute("SELECT name, value FROM position").fetchall())

    def add(self, entries: Sequence[Entry], *, positions: Mapping[str, float], now_s: float) -> int:
        """Take messages in and move the positions, together; return how many old ones had to be dropped."""
        with self._write() as file:
            for entry in entries:
                if not entry.key or self._is_new(file, entry.key, now_s):
                    rows = [(sink, entry.line) for sink in self._sinks]
                    file.executemany("INSERT INTO waiting (sink, line) VALUES (?, ?)", rows)
            file.executemany("INSERT OR REPLACE INTO position VALUES (?, ?)", list(positions.items()))
            file.execute("DELETE FROM told WHERE at < ?", (now_s - KEPT_S,))
            return sum(self._bound(file, sink) for sink in self._sinks)

    def next(self, sink: str, limit: int) -> list[Waiting]:
        """Return what waits longest for a way out."""
        query = "SELECT id, line FROM waiting WHERE sink = ? ORDER BY id LIMIT ?"
        with self._open() as file:
            return [Waiting(number=row[0], line=row[1]) for row in file.execute(query, (sink, limit))]

    def sent(self, sink: str, messages: Sequence[Waiting], *, told_dropped: int) -> None:
        """Forget what was handed over, and as many dropped ones as were told."""
        with self._write() as file:
            file.executemany("DELETE FROM waiting WHERE id = ?", [(each.number,) for each in messages])
            file.execute("UPDATE dropped SET count = count - ? WHERE sink = ?", (told_dropped, sink))

    def exists(self) -> bool:
        """Say whether anything was ever told."""
        return self._path.exists()

    def counts(self, sink: str) -> tuple[int, int]:
        """Return how many messages wait for a way out, and how many were dropped and not told yet."""
        with self._open() as file:
            (waiting,) = file.execute("SELECT count(*) FROM waiting WHERE sink = ?", (sink,)).fetchone()
            dropped = file.execute("SELECT count FROM dropped WHERE sink = ?", (sink,)).fetchone()
        return int(waiting), int(dropped[0]) if dropped else 0

    @staticmethod
    def _is_new(file: sqlite3.Connection, key: str, now_s: float) -> bool:
        return file.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (key, now_s)).rowcount == 1

    def _bound(self, file: sqlite3.Connection, sink: str) -> int:
        """Drop the oldest of more than may wait."""
        (count,) = file.execute("SELECT count(*) FROM waiting WHERE sink = ?", (sink,)).fetchone()
        surplus = max(0, int(count) - self._most)
        if surplus:
            oldest = "SELECT id FROM waiting WHERE sink = ? ORDER BY id LIMIT ?"
            file.execute(f"DELETE FROM waiting WHERE id IN ({oldest})", (sink, surplus))  # noqa: S608 - a constant
            file.execute("INSERT OR IGNORE INTO dropped VALUES (?, 0)", (sink,))
            file.execute("UPDATE dropped SET count = count + ? WHERE sink = ?", (surplus, sink))
        return surplus

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            try:
                yield file
            except BaseException:
                file.execute("ROLLBACK")
                raise
            file.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as file:
            file.execute("PRAGMA journal_mode=WAL")
            file.execute("PRAGMA synchronous=FULL")
            yield file
