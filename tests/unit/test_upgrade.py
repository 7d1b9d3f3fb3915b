"""A data folder of an earlier version, with work unfinished, goes on under the same keys; a swap of models is safe."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import alembic.command
import alembic.config
import pytest
from sqlalchemy import MetaData, create_engine, insert, select

from dicom_node.ledger import cases, deliveries, patients, runs
from dicom_node.ledger.database import MIGRATIONS, Database
from dicom_node.ledger.tables import ArrivalState, CaseState, DeliveryState, arrival
from dicom_node.timeline.model import RunState
from dicom_node.work.engine import JobStatus
from tests.factories.bench import NOW, AtOnce, Bench
from tests.factories.flair import flair_studies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EARLIER = ("0001", "0002", "0003")


class Nobody:
    """An engine that never comes to anything."""

    def submit(self, *_: Any, **__: Any) -> None:
        """Leave it lying."""

    def status(self, keys: Any) -> dict[str, JobStatus]:
        """Say that all is waiting."""
        return dict.fromkeys(keys, JobStatus.WAITING)

    def rescue(self, executor_id: str) -> list[str]:
        """Nobody dies here."""
        return []

    def retry(self, key: str) -> None:
        """Leave it lying."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies of one patient, oldest first, a file per slice."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture
def queued(tmp_path: Path, studies: list[Path]) -> Iterator[Bench]:
    """A node that stopped when a run was queued."""
    bench = Bench(tmp_path / "node", Nobody())
    bench.receive(*studies)
    bench.now = NOW + timedelta(minutes=5)
    bench.tick()
    yield bench
    bench.database.close()


def only_run(bench: Bench) -> runs.Run:
    """Return the run that counts."""
    with bench.database.read() as ledger:
        (found,) = [each for each in runs.of_patient(ledger, 1) if each.state is not RunState.SUPERSEDED]
    return found


def turn_back(folder: Path, revision: str) -> None:
    """Write the ledger of a data folder as an earlier version kept it: its schema, and the rows that it had."""
    new, old = folder / "ledger.sqlite", folder / "old.sqlite"
    source, target = create_engine(f"sqlite:///{new}"), create_engine(f"sqlite:///{old}")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with target.connect() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
        connection.commit()
    now, then = MetaData(), MetaData()
    now.reflect(source)
    then.reflect(target)
    with source.connect() as reading, target.begin() as writing:
        for table in then.sorted_tables:
            if table.name != "alembic_version":
                names = [column.name for column in table.columns if column.name in now.tables[table.name].columns]
                rows = reading.execute(select(*[now.tables[table.name].c[name] for name in names])).mappings().all()
                if rows:
                    writing.execute(insert(table), [dict(row) for row in rows])
    source.dispose()
    target.dispose()
    for beside in folder.glob("ledger.sqlite*"):
        beside.unlink()
    old.rename(new)


def reopened(bench: Bench) -> Bench:
    """Start the next version on the same folder."""
    again = Bench(bench.settings.node.data_dir, cohort_known=False)
    again.now = NOW + timedelta(hours=1)
    return again


@pytest.mark.parametrize("revision", EARLIER)
def test_a_queued_run_is_done_after_the_migration(queued: Bench, revision: str) -> None:
    """Under the key that it was queued with, once."""
    key = only_run(queued).run_key
    queued.database.close()
    turn_back(queued.settings.node.data_dir, revision)
    again = reopened(queued)
    with closing(again.database):
        for _ in range(3):
            again.tick()
        done = only_run(again)
        assert (done.run_key, done.state, done.version) == (key, RunState.REPORTED, 1)
        assert again.outcome()[2]


@pytest.mark.parametrize("revision", EARLIER)
def test_what_was_received_and_not_read_is_read_after_the_migration(
    tmp_path: Path, studies: list[Path], revision: str
) -> None:
    """Files that an earlier version answered for wait for the next one."""
    bench = Bench(tmp_path / "node")
    bench.receive(*studies[:5])
    with bench.database.write() as ledger:
        ledger.execute(arrival.update().where(arrival.c.id == 5).values(state=ArrivalState.RECEIVED))
    bench.database.close()
    turn_back(tmp_path / "node", revision)
    database = Database(bench.settings.ledger_url)
    with closing(database):
        database.migrate()
        database.require_newest_schema()
        with database.read() as ledger:
            assert ledger.scalar(select(arrival.c.id).where(arrival.c.state == ArrivalState.RECEIVED)) == 5


@pytest.mark.parametrize("revision", EARLIER)
def test_a_report_on_its_way_stays_as_it_was_encoded(queued: Bench, revision: str) -> None:
    """Its bytes, its UIDs and its open delivery are there; nothing is made a second time."""
    bench = reopened(queued)
    bench.tick()
    before = bench.outcome()
    with bench.database.write() as ledger:
        deliveries.create(ledger, only_run(bench).run_key, ["main"], bench.now)
    bench.database.close()
    turn_back(bench.settings.node.data_dir, revision)
    again = reopened(queued)
    with closing(again.database):
        with again.database.read() as ledger:
            (waiting,) = deliveries.of_run(ledger, only_run(again).run_key)
        assert waiting.state is DeliveryState.PENDING
        for _ in range(3):
            again.tick()
        assert again.outcome() == before


def swapped(bench: Bench, digest: str) -> Bench:
    """Start the node again with another model in its task's bundle folder."""
    again = reopened(bench)
    tasks = {name: replace(served, bundle_digest=digest) for name, served in dict(again.reconciler.tasks).items()}
    again.steps = replace(again.steps, tasks=tasks)
    again.reconciler = replace(again.reconciler, tasks=tasks, engine=AtOnce(again.steps))
    with again.database.write() as ledger:
        patients.touch_all(ledger)  # as every start does
    return again


def test_a_queued_run_of_the_old_model_gives_way_to_one_of_the_new(queued: Bench) -> None:
    """Nothing was issued of it: it is superseded, the same scans are run once by the new model, as version 1."""
    old = only_run(queued)
    again = swapped(queued, "sha256:new")
    with closing(again.database):
        for _ in range(3):
            again.tick()
        with again.database.read() as ledger:
            states = {each.bundle_digest: each.state for each in runs.of_patient(ledger, 1)}
        assert states == {old.bundle_digest: RunState.SUPERSEDED, "sha256:new": RunState.REPORTED}
        assert only_run(again).version == 1


def test_a_worker_that_still_has_the_old_model_answers_nothing_for_the_new(queued: Bench) -> None:
    """A run is done by its own model or by none: a worker with another one gives it back."""
    again = swapped(queued, "sha256:new")
    with closing(again.database):
        again.steps = replace(again.steps, tasks=queued.steps.tasks)
        again.reconciler = replace(again.reconciler, engine=AtOnce(again.steps))
        for _ in range(4):
            again.tick()
        with again.database.read() as ledger:
            found = {each.bundle_digest: each for each in runs.of_patient(ledger, 1)}
            (case,) = cases.of_patient(ledger, 1)
        assert found["sha256:new"].state is RunState.FAILED
        assert found["sha256:new"].error == runs.OTHER_MODEL
        assert case.state is CaseState.FAILED
        assert not any(again.folders.outbox.iterdir())


def test_what_the_old_model_issued_stands_and_is_not_issued_again(queued: Bench) -> None:
    """Whatever the new model is asked, the bytes that went out stay as they are."""
    bench = reopened(queued)
    bench.tick()
    before = bench.outcome()
    bench.database.close()
    again = swapped(queued, "sha256:new")
    with closing(again.database):
        again.tick()
        with again.database.read() as ledger:
            first = next(each for each in runs.of_patient(ledger, 1) if each.bundle_digest != "sha256:new")
            objects = runs.objects_of(ledger, first.run_key)
        assert first.state is RunState.REPORTED
        assert tuple((again.folders.outbox / each.path).read_bytes() for each in objects) == before[2]
