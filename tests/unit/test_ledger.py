"""The ledger: migrations match the tables, both databases can hold it, and what is written once stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.schema import CreateTable

from dicom_node.errors import NodeError
from dicom_node.ledger import arrivals, cases, cohort, deliveries, patients, presence, runs
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import ArrivalState, CaseState, DeliveryState, metadata
from dicom_node.timeline.model import CohortFacts, Event, Reason, RunState, Surgery
from tests.factories.ledger import a_proposal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A fresh ledger on SQLite."""
    found = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    found.migrate()
    yield found
    found.close()


def proposal(key: str = "a" * 64, patient_row: int = 1, *, stat: bool = False) -> runs.Proposal:
    """Return a run with empty inputs."""
    base = a_proposal(key, patient_row=patient_row, stat=stat)
    return replace(base, inputs_key="i" * 64, remarks=("one remark",))


def test_the_migrations_make_exactly_the_tables(database: Database) -> None:
    """A table changed without its migration would show here."""
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_twice_changes_nothing(database: Database) -> None:
    """A start on a database that is up to date is harmless."""
    database.migrate()
    database.require_newest_schema()


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    """The message names both revisions."""
    empty = Database(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    with pytest.raises(NodeError, match=r"expected schema revision \d+, found none"):
        empty.require_newest_schema()
    empty.close()


def test_the_schema_compiles_for_postgresql() -> None:
    """Nothing in the tables is SQLite's alone."""
    dialect = postgresql.dialect()
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))


def test_sqlite_is_opened_durably(database: Database) -> None:
    """WAL, synchronous=FULL (2) and foreign keys, on every connection."""
    with database.read() as connection:
        settings = {key: connection.scalar(text(f"PRAGMA {key}")) for key in ("journal_mode", "synchronous")}
        assert settings == {"journal_mode": "wal", "synchronous": 2}
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    """All changes of a block commit together or not at all."""

    def half_right() -> None:
        with database.write() as ledger:
            patients.patient_row(ledger, "HOSPITAL", "1")
            ledger.execute(text("INSERT INTO task_case VALUES (99, 't', 's', '[]', '2026-01-01', NULL)"))

    with pytest.raises(IntegrityError):
        half_right()
    with database.read() as ledger:
        assert patients.all_patients(ledger) == []


def test_a_time_without_zone_is_refused(database: Database) -> None:
    """Every point in time has a zone."""
    with pytest.raises(StatementError, match="needs a zone"), database.write() as ledger:
        presence.beat(ledger, "host:node:0", NOW.replace(tzinfo=None))


def test_patients_are_compared_exactly(database: Database) -> None:
    """Case, zeros and issuers make different patients (PS3.4 C.2.2.2.1)."""
    with database.write() as ledger:
        rows = {
            patients.patient_row(ledger, *key) for key in (("A", "1"), ("A", "01"), ("B", "1"), ("A", "x"), ("A", "X"))
        }
        assert len(rows) == 5
        assert patients.patient_row(ledger, "A", "1") in rows


def test_a_patient_is_undecided_until_decided_and_again_when_touched(database: Database) -> None:
    """News and the time to look again both make a decision due."""
    with database.write() as ledger:
        row = patients.patient_row(ledger, "A", "1")
        (found,) = patients.undecided(ledger, NOW, 10)
        patients.decided(ledger, found, LATER)
        assert patients.undecided(ledger, NOW, 10) == []
        assert len(patients.undecided(ledger, LATER, 10)) == 1
        patients.touch(ledger, row)
        assert len(patients.undecided(ledger, NOW, 10)) == 1


def test_news_during_a_decision_is_not_lost(database: Database) -> None:
    """The revision that was decided on is noted, not the one that came meanwhile."""
    with database.write() as ledger:
        row = patients.patient_row(ledger, "A", "1")
        (found,) = patients.undecided(ledger, NOW, 10)
        patients.touch(ledger, row)
        patients.decided(ledger, found, None)
        assert len(patients.undecided(ledger, NOW, 10)) == 1


def test_what_was_frozen_first_stays(database: Database) -> None:
    """A repeated inference changes neither result nor version nor time of issue."""
    with database.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        assert runs.propose(ledger, proposal(), NOW)
        assert not runs.propose(ledger, proposal(), LATER)
        first = runs.freeze(ledger, "a" * 64, "first", NOW)
        again = runs.freeze(ledger, "a" * 64, "second", LATER)
        assert (first.result, first.version, first.issued_at) == ("first", 1, NOW)
        assert again == first


def test_the_next_version_names_the_last_report_as_predecessor(database: Database) -> None:
    """Versions count reports; a run that never was reported has no successor."""
    with database.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        for key in ("a", "b", "c"):
            runs.propose(ledger, proposal(key * 64), NOW)
        runs.freeze(ledger, "a" * 64, "r", NOW)
        runs.record_objects(ledger, "a" * 64, [an_object()], NOW)
        runs.set_state(ledger, "b" * 64, RunState.SUPERSEDED)
        second = runs.freeze(ledger, "c" * 64, "r", LATER)
        assert (second.version, second.predecessor) == (2, "a" * 64)


def an_object(uid: str = "2.25.1") -> runs.OutboxObject:
    """Return an encoded object."""
    return runs.OutboxObject(
        position=0,
        kind="report",
        sop_class_uid="1.2.3",
        sop_instance_uid=uid,
        series_instance_uid="2.25.2",
        study_instance_uid="2.25.3",
        path="x.dcm",
        sha256="0" * 64,
    )


def test_objects_are_recorded_once(database: Database) -> None:
    """Encoding again after a kill adds nothing."""
    with database.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        runs.propose(ledger, proposal(), NOW)
        runs.record_objects(ledger, "a" * 64, [an_object()], NOW)
        runs.record_objects(ledger, "a" * 64, [an_object("2.25.9")], NOW)
        assert runs.objects_of(ledger, "a" * 64) == [an_object()]
        assert arrivals.is_our_own(ledger, "2.25.1")
        assert not arrivals.is_our_own(ledger, "2.25.9")


def test_urgent_runs_come_first(database: Database) -> None:
    """STAT before routine, then oldest first."""
    with database.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        runs.propose(ledger, proposal("b" * 64), NOW)
        runs.propose(ledger, proposal("a" * 64, stat=True), LATER)
        assert [each.run_key[0] for each in runs.open_runs(ledger)] == ["a", "b"]


def test_a_delivery_goes_from_pending_over_retrying_to_sent_or_dead(database: Database) -> None:
    """Each destination on its own; the next attempt is due at its time; a person can revive the dead."""
    with database.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        runs.propose(ledger, proposal(), NOW)
        for _ in range(2):
            deliveries.create(ledger, "a" * 64, ["one", "two"], NOW)
        one, two = (each.delivery for each in deliveries.due(ledger, NOW))
        deliveries.sent(ledger, one, NOW)
        deliveries.retry(ledger, two, error="away", now=NOW, next_attempt_at=LATER)
        assert deliveries.due(ledger, NOW) == []
        (two,) = (each.delivery for each in deliveries.due(ledger, LATER))
        assert (two.destination, two.state, two.attempts) == ("two", DeliveryState.RETRYING, 1)
        deliveries.dead(ledger, two, error="given up")
        assert deliveries.counts_by_state(ledger) == {"sent": 1, "dead": 1}
        revived = deliveries.get(ledger, "a" * 64, "two")
        assert revived is not None
        deliveries.revive(ledger, revived, LATER)
        assert [each.delivery.destination for each in deliveries.due(ledger, LATER)] == ["two"]


def test_cohort_facts_survive_the_ledger(database: Database) -> None:
    """What is set is read back; setting the same again is no change."""
    facts = CohortFacts(
        diagnosis="glioma",
        surgeries=(Surgery(on=date(2025, 1, 2)), Surgery(on=date(2025, 6, 7))),
        radiotherapy=(date(2025, 2, 3),),
        events=(Event(on=date(2026, 1, 1), kind="death"),),
        birth_date=date(2015, 5, 5),
    )
    with database.write() as ledger:
        assert cohort.replace(ledger, "A", "1", facts)
        assert not cohort.replace(ledger, "A", "1", facts)
        assert cohort.read(ledger, "A", "1") == facts
        assert cohort.read(ledger, "B", "1") == CohortFacts()


def test_a_case_says_whether_it_changed(database: Database) -> None:
    """Only a change of state or reason is worth a log line."""
    case = cases.Case(
        patient_row=1,
        task="t",
        state=CaseState.WAITING,
        reasons=(Reason(code="too-few", text="2 of 3"),),
        decided_at=NOW,
    )
    with database.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        assert cases.set_case(ledger, case)
        assert not cases.set_case(ledger, case)
        assert cases.of_patient(ledger, 1) == [case]


def test_refused_callers_who_change_their_titles_fill_no_table(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond so many rows everybody new is counted together, and those known before still by themselves."""
    monkeypatch.setattr(presence, "MOST_REFUSALS", 3)
    with database.write() as ledger:
        for number in (0, 1, 2, 3, 4, 0):
            presence.refused(ledger, calling_ae_title=f"X{number}", address="192.0.2.1", reason="unknown", now=NOW)
        counts = {str(row["calling_ae_title"]): row["count"] for row in presence.refusals(ledger)}
    assert counts == {"X0": 2, "X1": 1, "X2": 1, presence.OTHERS: 2}


def test_refused_callers_are_counted_by_reason(database: Database) -> None:
    """The same caller refused twice is one line with a count."""
    with database.write() as ledger:
        for at in (NOW, LATER):
            presence.refused(ledger, calling_ae_title="X", address="192.0.2.1", reason="unknown", now=at)
        (line,) = presence.refusals(ledger)
        assert (line["count"], line["last_at"]) == (2, LATER)


def test_silent_executors_are_found_once(database: Database) -> None:
    """Who is silent is handed on and forgotten until it is heard again."""
    with database.write() as ledger:
        presence.beat(ledger, "host:worker:0", NOW)
        presence.beat(ledger, "host:node:0", LATER)
        assert presence.silent_since(ledger, LATER) == ["host:worker:0"]
        presence.forget(ledger, "host:worker:0")
        assert presence.silent_since(ledger, LATER) == []


def test_unread_files_come_urgent_first_and_say_how_old_they_are(database: Database) -> None:
    """The oldest unread arrival bounds what is known to be quiet."""
    with database.write() as ledger:
        for number, (stat, at) in enumerate(((False, NOW), (True, LATER))):
            arrivals.record(
                ledger,
                arrivals.Arrival(
                    sop_instance_uid=f"1.{number}",
                    sop_class_uid="1.2",
                    transfer_syntax_uid="1.3",
                    path=f"{number}.dcm",
                    size_bytes=1,
                    calling_ae_title="S",
                    default_issuer="A",
                    stat=stat,
                    received_at=at,
                ),
            )
        assert [each.sop_instance_uid for each in arrivals.pending(ledger, 5)] == ["1.1", "1.0"]
        assert arrivals.oldest_pending(ledger) == NOW
        for each in arrivals.pending(ledger, 5):
            arrivals.set_aside(ledger, each.arrival_id, ArrivalState.SET_ASIDE, "not-dicom")
        assert arrivals.oldest_pending(ledger) is None
        assert arrivals.set_aside_reasons(ledger) == [{"state": "set-aside", "reason": "not-dicom", "count": 2}]


def test_a_reader_blocks_no_writer(database: Database) -> None:
    """SQLite in WAL gives each its snapshot."""
    with database.read() as reader, database.write() as writer:
        assert patients.all_patients(reader) == []
        patients.patient_row(writer, "A", "1")
