"""The tick against an engine that fails, crashes and forgets: every end is seen, told, and mended by `retry`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from dicom_node.ledger import cases, deliveries, patients, runs
from dicom_node.ledger.tables import CaseState
from dicom_node.timeline.model import Reason, RunState
from dicom_node.work.engine import ROUTINE, JobKind, JobStatus
from tests.factories.bench import NOW, Bench

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LATER = NOW + timedelta(minutes=5)


@dataclass
class ScriptedJobs:
    """Notes what is asked of it and answers with the status it is told to; does no work by itself."""

    answer: JobStatus = JobStatus.UNKNOWN
    submitted: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Note the job."""
        self.submitted.append(key)

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Answer as told, for what was submitted."""
        return {key: self.answer if key in self.submitted else JobStatus.UNKNOWN for key in keys}

    def rescue(self, executor_id: str) -> list[str]:
        """Hand over everything."""
        return self.submitted[:]

    def retry(self, key: str) -> None:
        """Note the retry."""
        self.retried.append(key)


@pytest.fixture
def jobs() -> ScriptedJobs:
    """An engine that has never heard of any job."""
    return ScriptedJobs()


@pytest.fixture
def bench(tmp_path: Path, studies: list[Path], jobs: ScriptedJobs) -> Iterator[Bench]:
    """A node whose patient is due."""
    found = Bench(tmp_path, jobs)
    for path in studies:
        found.receive(path)
    found.tick()
    found.now = LATER
    found.tick()
    yield found
    found.database.close()


def case(bench: Bench) -> cases.Case:
    """Return the only case."""
    with bench.database.read() as ledger:
        (found,) = cases.of_patient(ledger, 1)
    return found


def run(bench: Bench) -> runs.Run:
    """Return the only run."""
    with bench.database.read() as ledger:
        (found,) = runs.of_patient(ledger, 1)
    return found


def begin(bench: Bench) -> None:
    """Let the worker begin the run, as the first thing its step does."""
    with bench.database.write() as ledger:
        runs.set_state(ledger, run(bench).run_key, RunState.RUNNING)


def retry(bench: Bench) -> None:
    """Do what `dicom-node retry` does to a failed run."""
    with bench.database.write() as ledger:
        runs.set_state(ledger, run(bench).run_key, RunState.QUEUED)
        patients.touch(ledger, 1)


def test_a_due_run_is_submitted_once(bench: Bench, jobs: ScriptedJobs) -> None:
    """However many ticks pass while it waits."""
    jobs.answer = JobStatus.WAITING
    for _ in range(3):
        bench.tick()
    assert jobs.submitted == [run(bench).run_key]
    assert jobs.retried == []
    assert case(bench).state is CaseState.DUE


@pytest.mark.parametrize("end", [JobStatus.FAILED, JobStatus.CRASHED])
def test_an_end_without_a_report_is_told_and_not_repeated_by_itself(
    bench: Bench, jobs: ScriptedJobs, end: JobStatus
) -> None:
    """However fast it failed: the case is failed with a reason, and nobody tries again unasked."""
    begin(bench)
    jobs.answer = end
    for _ in range(3):
        bench.tick()
    assert run(bench).state is RunState.FAILED
    assert case(bench).state is CaseState.FAILED
    assert case(bench).reasons[0].text
    assert jobs.retried == []


@pytest.mark.parametrize("end", [JobStatus.FAILED, JobStatus.CRASHED])
def test_retry_has_an_ended_run_done_again(bench: Bench, jobs: ScriptedJobs, end: JobStatus) -> None:
    """Also one that took its worker down."""
    begin(bench)
    jobs.answer = end
    bench.tick()
    retry(bench)
    bench.tick()
    assert jobs.retried == [run(bench).run_key]


def test_a_run_that_the_engine_lost_is_derived_again(bench: Bench, jobs: ScriptedJobs) -> None:
    """The engine's tables may vanish: the ledger is the truth."""
    begin(bench)
    jobs.submitted.clear()
    bench.tick()
    assert jobs.submitted == [run(bench).run_key]


def test_a_real_step_failure_stands_in_the_ledger_with_its_reason(bench: Bench, jobs: ScriptedJobs) -> None:
    """A lost input file is told by the step, shown by the case, and its text stays out of the engine."""
    for path in bench.instances.folder.glob("*/*.dcm"):
        path.unlink()
    with pytest.raises(Exception, match=r"."):
        bench.steps.infer(run(bench).run_key)
    jobs.answer = JobStatus.FAILED
    bench.tick()
    assert case(bench).state is CaseState.FAILED
    assert run(bench).error


def test_a_report_is_delivered_and_a_broken_attempt_repeated(bench: Bench, jobs: ScriptedJobs) -> None:
    """An attempt the engine ended without a word in the ledger is made again."""
    key = run(bench).run_key
    bench.steps.infer(key)
    bench.steps.encode(key)
    with bench.database.write() as ledger:
        deliveries.create(ledger, key, ["main"], LATER)
    bench.tick()
    assert f"{key}/main/1" in jobs.submitted
    jobs.answer = JobStatus.FAILED
    bench.tick()
    assert jobs.retried == [f"{key}/main/1"]


def test_an_issued_run_is_not_touched_by_a_repeated_step(bench: Bench) -> None:
    """A step recovered after its commit, perhaps under another model, leaves report and version alone."""
    key = run(bench).run_key
    bench.steps.infer(key)
    bench.steps.encode(key)
    before = run(bench)
    bench.steps.tasks.clear()  # type: ignore[attr-defined] # the task was taken out of the configuration
    bench.steps.infer(key)
    bench.steps.encode(key)
    assert run(bench) == before
    assert before.state is RunState.REPORTED


def test_a_run_of_an_exchanged_model_is_superseded(bench: Bench) -> None:
    """Nothing is answered by a model the run was not proposed for."""
    bench.steps.tasks.clear()  # type: ignore[attr-defined] # the task was taken out of the configuration
    bench.steps.infer(run(bench).run_key)
    assert run(bench).state is RunState.SUPERSEDED
    assert run(bench).result is None


def test_one_patient_that_cannot_be_decided_does_not_stop_the_tick(bench: Bench, jobs: ScriptedJobs) -> None:
    """Its cases say so, and everything else goes on."""
    with bench.database.write() as ledger:
        patients.touch(ledger, 1)
        ledger.exec_driver_sql("UPDATE instance SET facts = '{}'")
    jobs.answer = JobStatus.WAITING
    bench.tick()
    assert case(bench).state is CaseState.FAILED
    assert case(bench).reasons == (Reason(code="undecidable", text="could not be decided: KeyError; see the log"),)


def test_a_late_series_starts_a_quiet_period_of_its_own(bench: Bench, studies: list[Path], jobs: ScriptedJobs) -> None:
    """Hours after the first image: what is still arriving is not decided on."""
    bench.now = NOW + timedelta(hours=7)
    with bench.database.write() as ledger:
        ledger.exec_driver_sql(
            "DELETE FROM instance WHERE sop_instance_uid = (SELECT MAX(sop_instance_uid) FROM instance)"
        )
    with bench.database.read() as ledger:
        held = {each.sop_instance_uid for each in patients.facts_of(ledger, 1)}
    (late,) = [path for path in studies if bench.uid(path) not in held]
    bench.receive(late)
    jobs.answer = JobStatus.WAITING
    bench.tick()
    assert case(bench).state is CaseState.WAITING
    assert case(bench).reasons[0].code == "quiet-period"
