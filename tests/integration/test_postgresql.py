"""A real PostgreSQL holds the ledger as SQLite does: schema, every query of the time line, and a whole story."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dicom_node.ledger import (
    arrivals,
    cohort,
    conflicts,
    deliveries,
    holdings,
    identity,
    identity_changes,
    orders,
    patients,
    prior_series,
    priors,
    purge,
    rejections,
    retention,
    runs,
)
from dicom_node.ledger.conflicts import Choice, Settled
from dicom_node.ledger.database import Database
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.orders import Order, OrderKind
from dicom_node.ledger.prior_series import Verdict
from dicom_node.ledger.priors import Answer, PriorStudy
from dicom_node.ledger.tables import ArrivalState, PriorState, metadata
from dicom_node.observe.identities import describe_identity
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging, Retention
from dicom_node.timeline.model import CohortFacts, RunState
from dicom_node.timeline.rejection import RejectionNote, RejectionTitle
from dicom_node.work.judge import Rules
from dicom_node.work.retention import ImageSweep
from tests.factories.bench import Bench
from tests.factories.facts import PATIENT, a_cohort, a_series
from tests.factories.flair import ISSUER
from tests.factories.ledger import NOW, arrive, arrive_all, owners, read_again
from tests.factories.postgresql import Cluster, a_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

pytestmark = pytest.mark.peer

JUNE, JULY = date(2025, 6, 2), date(2025, 7, 2)
OLD = replace(PATIENT, patient_id="OLD-1")
TASK = "glioma-recurrence"
BY = By(actor="admin", at=NOW)
LONG_AFTER = NOW + timedelta(days=40)


cluster = pytest.fixture(scope="module")(a_cluster)  # one server for this file


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """An empty ledger of its own."""
    found = Database(cluster.new_database())
    found.migrate()
    yield found
    found.close()


@pytest.fixture
def ledger(database: Database) -> Iterator[Connection]:
    """One write transaction, with two small studies under two IDs in it."""
    with database.write() as connection:
        arrive_all(connection, [*a_series(JUNE, slices=2), *a_series(JULY, slices=2, patient=OLD)])
        yield connection


def test_the_migrations_make_exactly_the_tables(database: Database) -> None:
    """The schema that grew step by step is the one the queries are written for; migrating twice is harmless."""
    database.migrate()
    database.require_newest_schema()
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_arrivals_are_told_apart(ledger: Connection) -> None:
    """New, a duplicate, a conflict with what is held, and one still unread."""
    first = a_series(JUNE, slices=2)[0]
    assert arrive(ledger, first) is ArrivalState.DUPLICATE
    assert arrive(ledger, replace(first, content_digest="sha256:other")) is ArrivalState.CONFLICT
    assert arrivals.conflicts(ledger, 1) == 1
    assert arrivals.counts_by_state(ledger) == {"indexed": 4, "duplicate": 1, "conflict": 1}
    assert [each["count"] for each in arrivals.set_aside_reasons(ledger)] == [1]
    assert len(arrivals.instance_paths(ledger, [first.sop_instance_uid])) == 1
    assert arrivals.oldest_pending(ledger) is None


def test_a_contradiction_is_settled_by_a_person(ledger: Connection) -> None:
    """The newest file takes the place of the instance; one that comes afterwards is laid aside."""
    first = a_series(JUNE, slices=2)[0]
    second, third = (replace(first, content_digest=f"sha256:{word}") for word in ("second", "third"))
    arrive(ledger, second)
    assert conflicts.settle(ledger, 1, Choice.NEW, BY) == Settled(instances=1, laid_aside=0, to_read=1)
    assert read_again(ledger, [second]) == [ArrivalState.INDEXED]
    arrive(ledger, third)
    assert conflicts.settle(ledger, 1, Choice.OLD, BY) == Settled(instances=1, laid_aside=1, to_read=0)
    assert arrivals.conflicts(ledger, 1) == 0
    assert arrivals.counts_by_state(ledger) == {"indexed": 4, "set-aside": 2}


def test_a_merge_and_back(ledger: Connection) -> None:
    """Two IDs become one patient and two again; one study is given away and taken back."""
    ours = a_series(JULY, slices=2, patient=OLD)[0]
    assert identity_changes.merge(ledger, OLD.key, PATIENT.key, BY).derived.instances == 2
    assert set(owners(ledger).values()) == {1}
    assert identity.ids_of(ledger, 1) == [PATIENT.key, OLD.key]
    assert identity_changes.split(ledger, OLD.key, BY).derived.instances == 2
    assert set(owners(ledger).values()) == {1, 2}
    assert identity_changes.give_study(ledger, ours.study_instance_uid, PATIENT.key, BY).derived.studies == 1
    assert identity_changes.give_study(ledger, ours.study_instance_uid, None, BY).derived.studies == 1
    assert read_again(ledger, []) == []


def test_what_a_registry_and_a_person_say_of_a_name(ledger: Connection) -> None:
    """A correction is accepted beside the old spelling; another spelling in the images is a person's to accept."""
    assert identity_changes.state(ledger, replace(PATIENT, name="SENTINEL-NEW^PATIENT"), BY).new
    assert identity.accepted(ledger, 1)["PatientName"] == {PATIENT.name, "SENTINEL-NEW^PATIENT"}
    arrive_all(ledger, a_series(date(2025, 8, 2), slices=1, patient=replace(PATIENT, name="SENTINEL-THIRD^PATIENT")))
    assert describe_identity(ledger, patients.get(ledger, 1))["differs_in"] == ["PatientName"]
    assert identity_changes.accept(ledger, 1, ["PatientName"], BY)
    assert describe_identity(ledger, patients.get(ledger, 1))["differs_in"] == []


def test_old_images_are_found_and_age_out(ledger: Connection) -> None:
    """Found once their patient is decided on, given up, and told as missing where they are wanted again."""
    assert retention.patients_with_old_images(ledger, LONG_AFTER) == []
    for found in patients.all_patients(ledger):
        patients.decided(ledger, found, None)
    old = retention.patients_with_old_images(ledger, LONG_AFTER)
    assert [each.row_id for each in old] == [1, 2]
    files = retention.old_images(ledger, 1, LONG_AFTER)
    retention.age_out(ledger, files)
    assert len(files) == 2
    assert retention.old_leftovers(ledger, LONG_AFTER) == []
    assert retention.needed_by_runs(ledger) == retention.contradicted(ledger) == set()
    (missing,) = retention.missing_series(ledger, 1, [each.sop_instance_uid for each in files])
    assert missing.instances == 2


def test_a_rejection_note_takes_instances_out(ledger: Connection) -> None:
    """What a note names is rejected, and only that."""
    first = a_series(JUNE, slices=2)[0]
    note = RejectionNote(
        sop_instance_uid="2.25.4711",
        title=RejectionTitle.QUALITY,
        patient=PATIENT,
        study_instance_uids=(first.study_instance_uid,),
        sop_instance_uids=(first.sop_instance_uid,),
    )
    arrivals.record(ledger, an_arrival(note.sop_instance_uid))
    (waiting,) = arrivals.pending(ledger, 2)
    assert rejections.enter(ledger, waiting.arrival_id, note) is ArrivalState.NOT_AN_INPUT
    assert rejections.rejected(ledger, 1) == {first.sop_instance_uid}
    assert rejections.rejected(ledger, 2) == set()


def test_an_archive_is_asked_answers_and_a_series_is_fetched(ledger: Connection) -> None:
    """The whole record of one question, and of one attempt to fetch."""
    priors.open_lookup(ledger, patient_row=1, pacs="main", held=(), now=NOW)
    (lookup,) = priors.due_lookups(ledger, "main", NOW, 10)
    verdict = Verdict(
        study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", state=PriorState.WANTED, reason="", instances=2
    )
    study = PriorStudy(study_instance_uid="1.2.3", day=JUNE, state=PriorState.WANTED)
    priors.answer_lookup(ledger, lookup, Answer(studies=[study], series={"1.2.3": [verdict]}), NOW)
    (series,) = prior_series.due_series(ledger, "main", NOW, 10)
    prior_series.begin(ledger, series, NOW)
    assert prior_series.started_since(ledger, "main", NOW - timedelta(hours=1)) == 1
    prior_series.end(ledger, series, PriorState.FETCHED, fetched=2, reason="", method="c-get", now=NOW)
    priors.settle_study(ledger, "main", "1.2.3")
    assert [each.state for each in priors.studies_of(ledger, 1, "main")] == [PriorState.FETCHED]
    assert priors.instance_counts(ledger, 1) == {"1.2.3.4": 2}
    assert [each["pacs"] for each in priors.summary(ledger, 1)] == ["main"]
    assert holdings.strangers(ledger, 1, "1.2.3.4", pacs="main", after=0) == 0
    assert holdings.own_series(ledger, 1) == frozenset()
    assert holdings.fetched_but_no_input(ledger, "main", 0) == set()
    assert holdings.others_at_work(ledger, "main", "1.2.3.4", NOW - timedelta(hours=1)) is False


def test_orders_and_the_cohort_are_kept_and_taken_back(ledger: Connection) -> None:
    """A hold by hand, released; what is recorded of a patient, replaced."""
    orders.give(ledger, 1, TASK, Order(kind=OrderKind.HOLD, given_at=NOW, actor="admin", reason="why"))
    assert set(orders.of_case(ledger, 1, TASK)) == {OrderKind.HOLD}
    assert orders.withdraw(ledger, 1, TASK, OrderKind.HOLD)
    assert cohort.replace(ledger, *PATIENT.key, a_cohort())
    assert not cohort.replace(ledger, *PATIENT.key, a_cohort())
    assert cohort.read(ledger, *PATIENT.key) == a_cohort()


def test_a_patient_is_forgotten(ledger: Connection) -> None:
    """Nothing of one stays, everything of the other does."""
    assert purge.obstacles(ledger, [1]) == []
    purge.forget(ledger, purge.belongings(ledger, 1), NOW)
    assert set(owners(ledger).values()) == {2}
    assert [each.row_id for each in patients.all_patients(ledger)] == [2]
    assert purge.unattributed(ledger) == []


def test_what_no_text_of_postgresql_can_hold_is_refused_whole(database: Database) -> None:
    """A failed entry leaves nothing behind, and the next one is entered."""
    first, second = a_series(JUNE, slices=2)
    with pytest.raises(Exception, match=r"NUL|0x00"), database.write() as ledger:
        arrive(ledger, replace(first, patient=replace(PATIENT, patient_id="a\0b")))
    with database.write() as ledger:
        assert arrive(ledger, second) is ArrivalState.INDEXED


def test_from_reception_to_a_report_and_on_to_ageing_out(cluster: Cluster, tmp_path: Path, studies: list[Path]) -> None:
    """A node with its ledger on a server receives, decides, runs, reports once, and gives up what it needs no more."""
    bench = Bench(tmp_path / "node", database_url=cluster.new_database())
    for path in studies:
        bench.receive(path)
    bench.tick()
    bench.now += timedelta(minutes=5)
    for _ in range(3):
        bench.tick()
    with bench.database.read() as ledger:
        assert [each.state for each in runs.of_patient(ledger, 1)] == [RunState.REPORTED]
        assert deliveries.due(ledger, bench.now) == []
    assert len(bench.outcome()[2]) >= 1
    with bench.database.write() as ledger:
        cohort.replace(ledger, ISSUER, "PHANTOM-1", CohortFacts(diagnosis="meningioma"))
    bench.tick()
    settings = bench.settings.model_copy(update={"retention": Retention(images_days=30)})
    sweep = ImageSweep(
        rules=Rules(settings=settings, selection=bench.reconciler.rules.selection),
        database=bench.database,
        files=bench.instances,
        tasks=bench.reconciler.tasks,
        log=open_log(Logging(level="error", format="json"), b"key"),
    )
    assert sweep.run_once(bench.now + timedelta(days=31)) == len(studies)
    bench.database.close()


def an_arrival(sop_instance_uid: str) -> arrivals.Arrival:
    """Return a file as the listener notes it."""
    return arrivals.Arrival(
        sop_instance_uid=sop_instance_uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"{sop_instance_uid}.dcm",
        size_bytes=1,
        calling_ae_title="SCANNER",
        default_issuer=PATIENT.issuer,
        stat=False,
        received_at=NOW,
    )
