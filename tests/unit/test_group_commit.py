"""Rows that come at the same time share a commit, and one that cannot be entered costs only itself."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from dicom_node.ledger import arrivals
from dicom_node.ledger.arrivals import Arrival
from dicom_node.ledger.database import Database
from dicom_node.ledger.group_commit import GroupCommit
from dicom_node.ledger.tables import arrival
from tests.factories.bench import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A fresh ledger."""
    found = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    found.migrate()
    yield found
    found.close()


def a_file(number: int) -> Arrival:
    """Return a received file."""
    return Arrival(
        sop_instance_uid=f"2.25.{number + 1}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2",
        path=f"00/{number}.dcm",
        size_bytes=1,
        calling_ae_title="SCANNER1",
        default_issuer="HOSPITAL",
        stat=False,
        received_at=NOW,
    )


def record_together(commits: GroupCommit, files: list[Arrival]) -> list[Exception | None]:
    """Record files in a thread each, and return what each was told."""
    told: list[Exception | None] = [None] * len(files)
    ready = threading.Barrier(len(files))

    def record(number: int) -> None:
        ready.wait()
        try:
            commits.record(files[number])
        except SQLAlchemyError as error:
            told[number] = error

    threads = [threading.Thread(target=record, args=(number,)) for number in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return told


def paths(database: Database) -> set[str]:
    """Return what the ledger promises."""
    with database.read() as ledger:
        return set(ledger.scalars(select(arrival.c.path)))


def test_rows_that_wait_together_are_committed_together(database: Database) -> None:
    """While the database is held by somebody else, all line up; then one commit takes them all but the first."""
    commits = GroupCommit(database)
    count = 0

    def counted(_connection: object) -> None:
        nonlocal count
        count += 1

    files = [a_file(number) for number in range(16)]
    told: list[list[Exception | None]] = []
    with database.write():
        sender = threading.Thread(target=lambda: told.append(record_together(commits, files)))
        event.listen(database._engine, "commit", counted)
        sender.start()
        while len(commits._waiting) < len(files) - 1:
            assert sender.is_alive()
    sender.join(timeout=60)
    assert told == [[None] * len(files)]
    assert paths(database) == {each.path for each in files}
    assert count <= 3  # the holder of the database, the first, the rest
    commits.close()


def test_a_row_is_committed_when_record_returns(database: Database) -> None:
    """Another connection sees it at once."""
    commits = GroupCommit(database)
    for number in range(3):
        commits.record(a_file(number))
        assert a_file(number).path in paths(database)
    commits.close()


def test_one_bad_row_costs_only_itself(database: Database) -> None:
    """The others of its batch are entered."""
    commits = GroupCommit(database)
    files = [a_file(number) for number in range(8)]
    files[3] = replace(files[3], default_issuer=None)  # type: ignore[arg-type] # what the database refuses
    told = record_together(commits, files)
    assert isinstance(told.pop(3), IntegrityError)
    assert told == [None] * 7
    assert paths(database) == {each.path for each in files} - {files[3].path}
    commits.close()


def test_after_a_failure_the_next_row_is_entered(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that failed is not used again."""
    commits = GroupCommit(database)
    record = arrivals.record

    def broken(*_arguments: object) -> None:
        raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(arrivals, "record", broken)
    with pytest.raises(OperationalError):
        commits.record(a_file(0))
    monkeypatch.setattr(arrivals, "record", record)
    commits.record(a_file(1))
    assert paths(database) == {a_file(1).path}
    commits.close()


@pytest.mark.parametrize("committed_before", [False, True])
def test_a_lost_connection_is_replaced_within_the_call(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, committed_before: bool
) -> None:
    """And a row whose commit was only not heard of is not entered twice."""
    commits = GroupCommit(database)
    record = arrivals.record
    calls = 0

    def lost_once(connection: object, *new: Arrival) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            record(connection, *new)  # type: ignore[arg-type]
            return
        if committed_before:
            connection.rollback()  # type: ignore[attr-defined]
            with database.write() as ledger:
                record(ledger, *new)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"), connection_invalidated=True)

    monkeypatch.setattr(arrivals, "record", lost_once)
    commits.record(a_file(0))
    assert paths(database) == {a_file(0).path}
    commits.close()
