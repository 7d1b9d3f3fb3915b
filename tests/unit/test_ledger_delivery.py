"""What the ledger knows of deliveries: what an older node had sent is not forgotten, and what each archive holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import alembic.command
import alembic.config
import pytest
from sqlalchemy import create_engine, select, text

from dicom_node.ledger import commitments, deliveries, patients, runs
from dicom_node.ledger.database import MIGRATIONS, Database
from dicom_node.ledger.tables import DeliveryState, handed_over
from tests.factories.ledger import a_proposal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.ledger.deliveries import Delivery

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = "a" * 64
KINDS = ("saliency", "summary", "report", "report-compr")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A ledger with one report of four objects that waits for two archives."""
    found = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    found.migrate()
    with found.write() as ledger:
        patients.patient_row(ledger, "A", "1")
        proposal = a_proposal(KEY)
        runs.propose(ledger, proposal, NOW)
        runs.record_objects(ledger, KEY, [an_object(number) for number in range(len(KINDS))], NOW)
        deliveries.create(ledger, KEY, ["main", "second"], NOW)
    yield found
    found.close()


def an_object(number: int, encoding: int = 1) -> runs.OutboxObject:
    """Return an encoded object."""
    return runs.OutboxObject(
        position=number,
        kind=KINDS[number],
        sop_class_uid=f"1.2.{number}",
        sop_instance_uid=uid(number, encoding),
        series_instance_uid=f"2.25.1{number}",
        study_instance_uid="2.25.3",
        path=f"{encoding}-{number}.dcm",
        sha256="0" * 64,
        encoding=encoding,
    )


def uid(number: int, encoding: int = 1) -> str:
    """Return the SOP Instance UID of an object."""
    return f"2.25.{encoding}{number}"


def delivery(database: Database, name: str = "main") -> Delivery:
    """Return where a destination stands."""
    with database.read() as ledger:
        found = deliveries.get(ledger, KEY, name)
    assert found is not None
    return found


def held(database: Database, name: str = "main") -> list[str]:
    """Return what a destination holds or may hold."""
    with database.read() as ledger:
        return [each.sop_instance_uid for each in deliveries.held_by(ledger, delivery(database, name))]


def test_what_an_older_node_had_sent_is_known_after_the_migration(tmp_path: Path) -> None:
    """Whole where it was sent; as what may be there where it was tried in vain; nothing where nothing was tried."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    engine = create_engine(url)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0002")
        connection.execute(text("INSERT INTO patient VALUES (1, 'A', '1', 0, 0, NULL)"))
        connection.execute(
            text(
                "INSERT INTO run (run_key, patient, task, state, stat, inputs, inputs_key, remarks, bundle_digest,"
                " task_digest, created_at, rescues) VALUES"
                " (:key, 1, 't', 'reported', 0, '{\"time_points\":[]}', 'i', '[]', 'b', 't', :now, 0)"
            ),
            {"key": KEY, "now": "2026-03-01 12:00:00"},
        )
        for position, kind in enumerate(("summary", "report")):
            connection.execute(
                text("INSERT INTO outbox_object VALUES (:uid, :key, :n, :kind, '1.2', '1.3', '1.4', 'p', 's', 1)"),
                {"uid": f"2.25.{position}", "key": KEY, "n": position, "kind": kind},
            )
        for name, state, attempts in (("main", "sent", 1), ("second", "dead", 2), ("third", "pending", 0)):
            connection.execute(
                text(
                    "INSERT INTO delivery (run_key, destination, state, attempts, next_attempt_at)"
                    " VALUES (:key, :name, :state, :attempts, '2026-03-01 12:00:00')"
                ),
                {"key": KEY, "name": name, "state": state, "attempts": attempts},
            )
        connection.commit()
    engine.dispose()
    database = Database(url)
    database.migrate()
    with database.read() as ledger:
        rows = {(row.destination, row.sop_instance_uid): row.attempt for row in ledger.execute(select(handed_over))}
        assert [each.state for each in deliveries.of_run(ledger, KEY)] == ["sent", "dead", "pending"]
        assert not any(each.to_commit for each in deliveries.of_run(ledger, KEY))
    assert rows == {
        ("main", "2.25.0"): None,
        ("main", "2.25.1"): None,
        ("second", "2.25.0"): 2,
        ("second", "2.25.1"): 2,
    }
    database.close()


def test_what_was_begun_may_be_there_and_what_was_settled_is(database: Database) -> None:
    """An attempt enters everything beforehand; its end leaves what was taken, each destination on its own."""
    with database.write() as ledger:
        found = delivery(database)
        deliveries.begin(ledger, found, [uid(number) for number in range(4)])
        assert deliveries.at_work(ledger, found)
    assert held(database) == [uid(number) for number in range(4)]
    assert held(database, "second") == []
    with database.write() as ledger:
        deliveries.settle(ledger, found, [uid(0)])
        assert not deliveries.at_work(ledger, found)
    assert held(database) == [uid(0)]


def test_an_attempt_in_vain_takes_nothing_back_that_was_there(database: Database) -> None:
    """A second attempt that never reached the archive says nothing of the first."""
    with database.write() as ledger:
        first = delivery(database)
        deliveries.begin(ledger, first, [uid(0), uid(1)])
        deliveries.settle(ledger, first, [uid(0)])
        deliveries.retry(ledger, first, error="away", now=NOW, next_attempt_at=NOW)
    second = delivery(database)
    with database.write() as ledger:
        deliveries.begin(ledger, second, [uid(0), uid(1)])
        deliveries.settle(ledger, second, [])
    assert held(database) == [uid(0)]


def test_an_archive_holds_what_it_got_of_every_encoding(database: Database) -> None:
    """Sent in part, corrected, sent anew: a withdrawal has to name both."""
    with database.write() as ledger:
        first = delivery(database)
        deliveries.begin(ledger, first, [uid(0)])
        deliveries.settle(ledger, first, [uid(0)])
        runs.record_objects(ledger, KEY, [an_object(number, 2) for number in range(4)], NOW)
        deliveries.begin(ledger, first, [uid(2, 2)])
        deliveries.settle(ledger, first, [uid(2, 2)])
    assert held(database) == [uid(0), uid(2, 2)]


def test_the_class_an_archive_takes_stands_first(database: Database) -> None:
    """Images in their order, then the report's classes; what is waited for is the first of these."""
    with database.write() as ledger:
        before = deliveries.contents(ledger, delivery(database))
        deliveries.remember_class(ledger, delivery(database), "1.2.3")
    assert [each.kind for each in before] == list(KINDS)
    with database.read() as ledger:
        assert [each.kind for each in deliveries.contents(ledger, delivery(database))][2:] == list(KINDS[:1:-1])
        waited_for = deliveries.awaited(ledger, delivery(database))
    assert [each.kind for each in waited_for] == ["saliency", "summary", "report-compr"]


def test_a_later_report_asks_first_for_the_class_of_the_one_before(database: Database) -> None:
    """So that it names what this archive holds; another archive has its own."""
    later = "b" * 64
    with database.write() as ledger:
        deliveries.remember_class(ledger, delivery(database), "1.2.3")
        row = ledger.execute(text("SELECT * FROM run")).one()._asdict()
        row |= {"run_key": later, "predecessor": KEY}
        columns = ", ".join(row)
        ledger.execute(text(f"INSERT INTO run ({columns}) VALUES (:{', :'.join(row)})"), row)
        objects = [an_object(number, 3) for number in range(4)]
        for each in objects:
            values = {name: getattr(each, name) for name in runs.OutboxObject.__slots__} | {"encoding": 1}
            columns = ", ".join(values)
            insert = f"INSERT INTO outbox_object (run_key, {columns}) VALUES (:run_key, :{', :'.join(values)})"
            ledger.execute(text(insert), values | {"run_key": later})
        deliveries.create(ledger, later, ["main", "second"], NOW)
        kinds = {
            each.destination: [found.kind for found in deliveries.contents(ledger, each)]
            for each in deliveries.of_run(ledger, later)
        }
    assert kinds["main"] == ["saliency", "summary", "report-compr", "report"]
    assert kinds["second"] == list(KINDS)


def test_an_answer_about_other_objects_counts_for_nothing(database: Database) -> None:
    """A request made before the report was sent anew, or withdrawn, says nothing of what lies there now."""
    with database.write() as ledger:
        deliveries.sent(ledger, delivery(database), NOW, to_commit=True)
        now_held = [each.sop_instance_uid for each in deliveries.awaited(ledger, delivery(database))]
        commitments.enter(ledger, "2.25.8", delivery(database), ["2.25.4711"], NOW)
        commitments.enter(ledger, "2.25.9", delivery(database), now_held, NOW)
    with database.write() as ledger:
        stale, right = (commitments.get(ledger, each) for each in ("2.25.8", "2.25.9"))
        assert stale is not None
        assert right is not None
        assert commitments.answered(ledger, stale, NOW) is None
        assert commitments.answered(ledger, right, NOW) is not None
        assert commitments.get(ledger, "2.25.7") is None


def test_an_answer_during_the_request_stands(database: Database) -> None:
    """The archive may report before its response to the request is written down."""
    with database.write() as ledger:
        deliveries.sent(ledger, delivery(database), NOW, to_commit=True)
    found = delivery(database)
    with database.write() as ledger:
        deliveries.ask_commitment(ledger, found, next_attempt_at=NOW + timedelta(minutes=5))
    with database.write() as ledger:
        deliveries.committed(ledger, delivery(database), NOW)
        deliveries.asked_commitment(ledger, found, error="late", next_attempt_at=NOW + timedelta(days=1))
    assert (delivery(database).state, delivery(database).error) == (DeliveryState.COMMITTED, None)
    with database.read() as ledger:
        assert [each.delivery.destination for each in deliveries.due(ledger, NOW + timedelta(days=9))] == ["second"]
