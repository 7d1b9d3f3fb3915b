"""A backlog of reports: an archive that is away for hours keeps nothing from the others, and drains by priority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from dicom_node.deliver.consignment import job_key
from dicom_node.ledger import deliveries, patients, runs
from dicom_node.ledger.database import Database
from dicom_node.work.backlog import AT_ONCE, next_attempts
from tests.factories.ledger import a_proposal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPORTS = 9
URGENT = 6  # the report that is STAT, neither the first nor the last


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A ledger with nine reports, each for two archives."""
    found = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    found.migrate()
    with found.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        for number in range(REPORTS):
            proposal = a_proposal(key(number), stat=number == URGENT)
            runs.propose(ledger, proposal, NOW)
            deliveries.create(ledger, key(number), ["away", "there"], NOW + timedelta(seconds=number))
    yield found
    found.close()


def key(number: int) -> str:
    """Return the run key of a report."""
    return f"{number}" * 64


def begun(database: Database, now: datetime, taken: Collection[str] = ()) -> list[deliveries.Delivery]:
    """Return the attempts that are begun at a moment."""
    with database.read() as ledger:
        due, failing = deliveries.due(ledger, now), deliveries.failing(ledger, now)
    chosen = next_attempts(due, priority=lambda each: 1 if each.stat else 200, taken=taken, failing=failing)
    return [each.delivery for each in chosen]


def fail(database: Database, found: deliveries.Delivery, now: datetime) -> None:
    """Let an attempt fail, with an hour to wait."""
    with database.write() as ledger:
        deliveries.retry(ledger, found, error="away", now=now, next_attempt_at=now + timedelta(hours=1))


def succeed(database: Database, found: deliveries.Delivery, now: datetime) -> None:
    """Let an attempt succeed."""
    with database.write() as ledger:
        deliveries.sent(ledger, found, now)


def test_the_urgent_report_is_begun_first_and_no_archive_gets_all_hands(database: Database) -> None:
    """STAT before older ones; four to each archive."""
    found = begun(database, NOW + timedelta(minutes=1))
    assert [each.run_key for each in found[:2]] == [key(URGENT)] * 2
    assert [each.destination for each in found].count("away") == AT_ONCE
    assert [each.destination for each in found].count("there") == AT_ONCE


def test_what_the_engine_has_already_counts_and_is_not_begun_again(database: Database) -> None:
    """However many ticks pass while four hang."""
    now = NOW + timedelta(minutes=1)
    taken = {job_key(each) for each in begun(database, now)}
    assert begun(database, now, taken) == []


def test_an_archive_that_failed_gets_one_at_a_time_and_the_other_goes_on(database: Database) -> None:
    """The most urgent one that is due probes it; four at a time still go to the archive that is there."""
    now = NOW + timedelta(minutes=1)
    for each in begun(database, now):
        if each.destination == "away":
            fail(database, each, now)
    found = begun(database, now)
    assert [each.run_key for each in found if each.destination == "away"] == [key(3)]
    assert len([each for each in found if each.destination == "there"]) == AT_ONCE


def test_after_hours_away_one_success_lets_everything_go_urgent_first(database: Database) -> None:
    """No report waits for the end of its own long pause, and none is lost."""
    now = NOW + timedelta(minutes=1)
    while tried := [each for each in begun(database, now) if each.destination == "away"]:
        for each in tried:
            fail(database, each, now)
    now += timedelta(minutes=30)
    with database.write() as ledger:  # the oldest happens to be due, the urgent one is not
        oldest = deliveries.get(ledger, key(0), "away")
        assert oldest is not None
        deliveries.retry(ledger, oldest, error="away", now=now, next_attempt_at=now)
    (probe,) = [each for each in begun(database, now) if each.destination == "away"]
    succeed(database, probe, now)
    order = []
    while found := [each for each in begun(database, now) if each.destination == "away"]:
        succeed(database, found[0], now)
        order.append(found[0].run_key)
    assert order[0] == key(URGENT)
    assert sorted(order) == [key(number) for number in range(1, REPORTS)]
