"""A run on its way is taken back when its case no longer wants it, at whatever moment that is learned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dicom_node.ledger import cases, cohort, deliveries, orders, patients, runs
from dicom_node.ledger.identity_changes import By, give_study
from dicom_node.ledger.orders import Order, OrderKind
from dicom_node.ledger.tables import CaseState
from dicom_node.timeline.model import CohortFacts, Event, RunState, Surgery
from dicom_node.work.engine import ROUTINE, JobKind, JobStatus
from tests.factories.bench import NOW, Bench
from tests.factories.flair import ISSUER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

TASK = "glioma-recurrence"
GLIOMA = CohortFacts(diagnosis="glioma", surgeries=(Surgery(on=date(2025, 3, 3)),))


@dataclass
class Waiting:
    """An engine that keeps every job waiting, and counts what is asked of it."""

    submitted: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    answer: JobStatus = JobStatus.WAITING

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Note the job."""
        self.submitted.append(key)

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Answer as told, for what was submitted."""
        return {key: self.answer if key in self.submitted else JobStatus.UNKNOWN for key in keys}

    def rescue(self, executor_id: str) -> list[str]:
        """Nobody dies here."""
        return []

    def retry(self, key: str) -> None:
        """Note the retry."""
        self.retried.append(key)


@pytest.fixture
def jobs() -> Waiting:
    """An engine in which everything waits."""
    return Waiting()


@pytest.fixture
def bench(tmp_path: Path, studies: list[Path], jobs: Waiting) -> Iterator[Bench]:
    """A node whose run was handed to the engine."""
    found = Bench(tmp_path / "data", jobs)
    found.receive(*studies)
    found.tick()
    found.now = NOW + timedelta(minutes=5)
    found.tick()
    yield found
    found.database.close()


def the_run(bench: Bench) -> runs.Run:
    """Return the only run."""
    with bench.database.read() as ledger:
        (found,) = runs.of_patient(ledger, 1)
    return found


def case(bench: Bench) -> cases.Case:
    """Return the only case of the first patient."""
    with bench.database.read() as ledger:
        (found,) = cases.of_patient(ledger, 1)
    return found


def hold(bench: Bench, studies: list[Path]) -> None:
    """An admin holds the case."""
    with bench.database.write() as ledger:
        orders.give(ledger, 1, TASK, Order(kind=OrderKind.HOLD, given_at=bench.now, actor="admin", reason=""))


def correct_the_diagnosis(bench: Bench, studies: list[Path]) -> None:
    """It was a meningioma."""
    with bench.database.write() as ledger:
        cohort.replace(ledger, ISSUER, "PHANTOM-1", replace(GLIOMA, diagnosis="meningioma"))


def record_a_recurrence(bench: Bench, studies: list[Path]) -> None:
    """Surveillance was over before the newest scan."""
    with bench.database.write() as ledger:
        cohort.replace(ledger, ISSUER, "PHANTOM-1", replace(GLIOMA, events=(Event(on=date(2026, 2, 1)),)))


def reject_two_scans(bench: Bench, studies: list[Path]) -> None:
    """Two of the four scans are rejected: too few are left."""
    bench.reject(*(path for path in studies if path.parent.name in {"1", "2"}))


@pytest.mark.parametrize("change", [hold, correct_the_diagnosis, record_a_recurrence, reject_two_scans])
@pytest.mark.parametrize("working", [False, True])
def test_a_run_on_its_way_ends_when_its_case_does_not_want_it(
    bench: Bench, studies: list[Path], change: Callable[[Bench, list[Path]], None], working: bool
) -> None:
    """Queued or at work: nothing of it is issued, also by a worker that had begun."""
    key = the_run(bench).run_key
    if working:
        bench.steps.infer(key)
        assert the_run(bench).result is not None
    change(bench, studies)
    bench.tick()
    assert the_run(bench).state is RunState.SUPERSEDED
    bench.steps.infer(key)
    bench.steps.encode(key)
    assert the_run(bench).state is RunState.SUPERSEDED
    with bench.database.read() as ledger:
        assert runs.objects_of(ledger, key) == []
        assert deliveries.of_run(ledger, key) == []
    assert case(bench).state is not CaseState.RUNNING


def test_a_newer_revision_takes_back_what_is_still_queued(bench: Bench, studies: list[Path]) -> None:
    """A rejected scan leaves three: the run of four gives way to theirs, and only that one is made."""
    first = the_run(bench).run_key
    bench.reject(*(path for path in studies if path.parent.name == "1"))
    bench.tick()
    with bench.database.read() as ledger:
        found = runs.of_patient(ledger, 1)
    assert {each.run_key: each.state for each in found}[first] is RunState.SUPERSEDED
    assert [len(each.inputs.time_points) for each in found if each.state is RunState.QUEUED] == [3]


def test_a_case_that_wants_its_run_again_gets_it_afresh(bench: Bench, jobs: Waiting) -> None:
    """Held and released: the same run, the same answer, version 1."""
    hold(bench, [])
    bench.tick()
    with bench.database.write() as ledger:
        orders.withdraw(ledger, 1, TASK, OrderKind.HOLD)
    bench.tick()
    assert the_run(bench).state is RunState.QUEUED
    bench.steps.infer(the_run(bench).run_key)
    bench.steps.encode(the_run(bench).run_key)
    assert (the_run(bench).state, the_run(bench).version) == (RunState.REPORTED, 1)


def test_a_split_between_two_looks_of_the_worker_is_seen(bench: Bench, studies: list[Path]) -> None:
    """A study given to another patient takes the run back; a worker that read it before cannot begin it."""
    key = the_run(bench).run_key
    study = the_run(bench).inputs.time_points[1].studies[0]
    with bench.database.write() as ledger:
        give_study(ledger, study, (ISSUER, "PHANTOM-2"), By(actor="admin", at=bench.now))
    bench.steps.infer(key)
    bench.steps.encode(key)
    assert the_run(bench).state is RunState.SUPERSEDED
    with bench.database.read() as ledger:
        assert runs.objects_of(ledger, key) == []


def test_a_report_in_doubt_is_not_sent_before_a_person_has_looked(bench: Bench, jobs: Waiting) -> None:
    """Issued and not yet delivered when the case is held: the delivery waits, and goes on with the release."""
    key = the_run(bench).run_key
    bench.steps.infer(key)
    bench.steps.encode(key)
    with bench.database.write() as ledger:
        deliveries.create(ledger, key, ["main"], bench.now)
    hold(bench, [])
    for _ in range(3):
        bench.tick()
    assert not [each for each in jobs.submitted if "/" in each]
    with bench.database.write() as ledger:
        orders.withdraw(ledger, 1, TASK, OrderKind.HOLD)
    bench.tick()
    bench.tick()
    assert [each for each in jobs.submitted if "/" in each] == [f"{key}/main/1"]


def test_a_worker_of_another_model_ends_the_run_with_a_reason(bench: Bench, jobs: Waiting) -> None:
    """A node and a worker of different configurations must not hand a run to and fro."""
    tasks: Any = bench.steps.tasks
    kept = dict(tasks)
    tasks.clear()
    bench.steps.infer(the_run(bench).run_key)
    tasks.update(kept)
    jobs.answer = JobStatus.DONE
    for _ in range(5):
        bench.tick()
    assert jobs.retried == []
    assert case(bench).state is CaseState.FAILED
    assert "start both with one configuration" in case(bench).reasons[0].text


def test_a_forced_run_of_a_reported_case_is_no_order_for_later(bench: Bench, studies: list[Path]) -> None:
    """Otherwise it would let the next study in before it is whole."""
    key = the_run(bench).run_key
    bench.steps.infer(key)
    bench.steps.encode(key)
    with bench.database.write() as ledger:
        orders.give(ledger, 1, TASK, Order(kind=OrderKind.FORCE, given_at=bench.now, actor="admin", reason=""))
    bench.tick()
    with bench.database.read() as ledger:
        assert orders.of_case(ledger, 1, TASK) == {}


def test_a_check_that_is_overdue_is_not_made_at_every_tick(bench: Bench, jobs: Waiting) -> None:
    """Whatever asks for a look in the past, the next one lies in the future, and others come first."""
    with bench.database.write() as ledger:
        patient = patients.get(ledger, 1)
        patients.decided(ledger, patient, bench.now - timedelta(hours=1))
    bench.tick()
    with bench.database.read() as ledger:
        assert patients.undecided(ledger, bench.now, 10) == []
