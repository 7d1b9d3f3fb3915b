"""A merge or a split in the middle of the work: what becomes of cases, runs and reports, with the real reconciler."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from dicom_node.ledger import cases, cohort, identity_changes, patients, runs
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.tables import ArrivalState, CaseState
from dicom_node.timeline.model import CohortFacts, PatientFacts, RunState
from dicom_node.work.engine import ROUTINE, JobKind, JobStatus
from tests.factories.bench import NOW, Bench
from tests.factories.facts import a_series, uid
from tests.factories.flair import DAYS, ISSUER, flair_studies
from tests.factories.ledger import arrive, arrive_all, read_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.timeline.model import InstanceFacts

PHANTOM = PatientFacts(
    issuer=ISSUER, patient_id="PHANTOM-1", name="PHANTOM^1", birth_date="20150101", sex="O", phantom=True
)
OLD = replace(PHANTOM, patient_id="OLD-1")
BY = By(actor="admin", at=NOW + timedelta(minutes=1))
TASK = "glioma-recurrence"


@dataclass
class Workers:
    """An engine whose workers issue every run at once, as one small object, or never get to it."""

    database: Database | None = None
    busy: bool = False
    submitted: list[str] = field(default_factory=list)

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Take a job."""
        if kind is not JobKind.RUN:
            return
        self.submitted.append(key)
        assert self.database is not None
        if not self.busy:
            with self.database.write() as ledger:
                self._issue(ledger, key)

    def _issue(self, ledger: Connection, key: str) -> None:
        runs.freeze(ledger, key, "result", NOW)
        report = runs.OutboxObject(
            position=0,
            kind="report",
            sop_class_uid="1.2.3",
            sop_instance_uid=uid(key),
            series_instance_uid="2.25.2",
            study_instance_uid="2.25.3",
            path="x.dcm",
            sha256="0" * 64,
        )
        runs.record_objects(ledger, key, [report], NOW)
        found = runs.get(ledger, key)
        assert found is not None
        patients.touch(ledger, found.patient_row)

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Tell how far the jobs are."""
        ended = JobStatus.WAITING if self.busy else JobStatus.DONE
        return {key: ended if key in self.submitted else JobStatus.UNKNOWN for key in keys}

    def rescue(self, executor_id: str) -> list[str]:
        """Nobody dies here."""
        return []

    def retry(self, key: str) -> None:
        """Do an ended job again."""
        self.submit(JobKind.RUN, key)


class Node(Bench):
    """A bench that is fed with facts."""

    def __init__(self, folder: Path, *, busy: bool = False) -> None:
        self.workers = Workers(busy=busy)
        super().__init__(folder, self.workers)
        self.workers.database = self.database

    def take(self, day: date, said: PatientFacts = PHANTOM) -> list[InstanceFacts]:
        """Receive one study, of whom it says; its UIDs depend on its day alone."""
        facts = [replace(each, patient=said) for each in a_series(day, patient=PHANTOM)]
        with self.database.write() as ledger:
            arrive_all(ledger, facts, self.now)
        return facts

    def settle(self) -> None:
        """Let the studies become quiet, and everything due be done."""
        self.tick()
        self.now += timedelta(minutes=5)
        self.tick()
        self.tick()

    def row(self, said: PatientFacts = PHANTOM) -> int:
        """Return the row of exactly this ID."""
        with self.database.write() as ledger:
            return patients.patient_row(ledger, *said.key)

    def case(self, said: PatientFacts = PHANTOM) -> cases.Case | None:
        """Return the case of exactly this ID."""
        row = self.row(said)
        with self.database.read() as ledger:
            return cases.get(ledger, row, TASK)

    def stands(self, said: PatientFacts = PHANTOM) -> tuple[CaseState | None, str]:
        """Return the state of a case and the code of its first reason."""
        found = self.case(said)
        return (None, "") if found is None else (found.state, found.reasons[0].code if found.reasons else "")

    def runs(self, state: RunState, said: PatientFacts = PHANTOM) -> list[runs.Run]:
        """Return the runs of exactly this ID in one state."""
        row = self.row(said)
        with self.database.read() as ledger:
            return [each for each in runs.of_patient(ledger, row) if each.state is state]

    def the_cohort_knows_both(self) -> None:
        """Record the same of the retired ID."""
        with self.database.write() as ledger:
            cohort.replace(ledger, *OLD.key, cohort.read(ledger, *PHANTOM.key))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Return a maker of nodes."""
    made: list[Node] = []

    def make_node(**options: bool) -> Node:
        made.append(Node(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make_node
    for each in made:
        each.database.close()


@pytest.fixture
def node(make: Callable[..., Node]) -> Node:
    """A node that issues at once."""
    return make()


def test_a_merge_makes_one_time_line_and_one_report(node: Node) -> None:
    """Two scans under each ID are too few; four of one patient are enough."""
    for number, day in enumerate(DAYS):
        node.take(day, OLD if number < 2 else PHANTOM)
    node.settle()
    assert node.stands()[0] is CaseState.WAITING
    node.merge("OLD-1", "PHANTOM-1")
    node.settle()
    (run,) = node.runs(RunState.REPORTED)
    assert run.inputs.dates == DAYS
    assert node.case(OLD) is None


def test_when_a_merge_is_said_does_not_matter(make: Callable[..., Node]) -> None:
    """Before the images, between them, after them, or where no image carries the old ID: the same inputs and run."""
    outcomes = set()
    for moment in (None, 0, 2, 4):
        node = make()
        for number, day in enumerate(DAYS):
            if moment == number:
                node.merge("OLD-1", "PHANTOM-1")
            node.take(day, OLD if number % 2 and moment is not None else PHANTOM)
        if moment == len(DAYS):
            node.merge("OLD-1", "PHANTOM-1")
        node.settle()
        (run,) = node.runs(RunState.REPORTED)
        outcomes.add((run.inputs.to_json(), run.run_key, run.version))
    assert len(outcomes) == 1


def test_a_scan_that_a_merge_brings_makes_a_new_version_of_the_report(node: Node) -> None:
    """The earlier report is named as predecessor, for it stands."""
    for number, day in enumerate(DAYS):
        node.take(day, PHANTOM if number else OLD)
    node.settle()
    (first,) = node.runs(RunState.REPORTED)
    node.merge("OLD-1", "PHANTOM-1")
    node.settle()
    old, new = sorted(node.runs(RunState.REPORTED), key=lambda each: each.version or 0)
    assert (old.run_key, new.predecessor, new.version) == (first.run_key, first.run_key, 2)
    assert new.inputs.dates == DAYS


def test_one_patients_runs_never_overlap(make: Callable[..., Node]) -> None:
    """Two patients with an open run each become one: nothing of theirs stays open but the run of the whole history."""
    node = make(busy=True)
    node.the_cohort_knows_both()
    for number, day in enumerate((*DAYS, *(day + timedelta(days=9) for day in DAYS[:3]))):
        node.take(day, PHANTOM if number < 4 else OLD)
    node.settle()
    half = [each.run_key for said in (PHANTOM, OLD) for each in node.runs(RunState.QUEUED, said)]
    assert len(half) == 2
    node.merge("OLD-1", "PHANTOM-1")
    with node.database.read() as ledger:
        assert runs.open_runs(ledger) == []
    node.settle()
    with node.database.read() as ledger:
        (whole,) = runs.open_runs(ledger)
    assert whole.patient_row == node.row()
    assert whole.run_key not in half
    assert {each.run_key for each in node.runs(RunState.SUPERSEDED)} == set(half)


def test_two_humans_under_one_id_are_held_until_one_study_is_given_away(node: Node) -> None:
    """The reason names the fields and never their values."""
    (first, *_) = node.take(DAYS[0], replace(PHANTOM, birth_date="19440505", name="OTHER^HUMAN"))
    for day in DAYS[1:]:
        node.take(day)
    node.settle()
    held = node.case()
    assert held is not None
    assert (held.state, held.reasons[0].code) == (CaseState.HELD, "identity-conflict")
    assert "PatientBirthDate, PatientName" in held.reasons[0].text
    assert "1944" not in held.reasons[0].text
    with node.database.write() as ledger:
        identity_changes.give_study(ledger, first.study_instance_uid, OLD.key, BY)
    node.settle()
    (run,) = node.runs(RunState.REPORTED)
    assert run.inputs.dates == DAYS[1:]


def test_one_human_with_two_spellings_is_reported_after_accepting(node: Node) -> None:
    """Held with the advice what to do, then due."""
    for number, day in enumerate(DAYS):
        node.take(day, PHANTOM if number else replace(PHANTOM, name="PHANTOM^ONE"))
    node.settle()
    held = node.case()
    assert held is not None
    assert (held.state, held.reasons[0].code) == (CaseState.HELD, "identity-name")
    assert "patient accept" in held.reasons[0].text
    with node.database.write() as ledger:
        identity_changes.accept(ledger, patients.patient_row(ledger, *PHANTOM.key), ["PatientName"], BY)
    node.settle()
    (run,) = node.runs(RunState.REPORTED)
    assert run.inputs.dates == DAYS


def test_the_same_id_of_another_issuer_changes_nothing(node: Node) -> None:
    """Its scans, with another birth date, are another human's."""
    for day in DAYS:
        node.take(day)
    with node.database.write() as ledger:
        stranger = replace(PHANTOM, issuer="ELSEWHERE", birth_date="19440505")
        arrive_all(ledger, a_series(DAYS[0] + timedelta(days=30), patient=stranger))
    node.settle()
    (run,) = node.runs(RunState.REPORTED)
    assert run.inputs.dates == DAYS


def test_a_registry_that_contradicts_the_birth_date_holds_the_case(node: Node) -> None:
    """Whether the images or the registry is wrong, a person finds out."""
    for day in DAYS:
        node.take(day)
    with node.database.write() as ledger:
        identity_changes.state(ledger, replace(PHANTOM, birth_date="19440505", name="OTHER^NAME"), BY)
    node.settle()
    assert node.stands() == (CaseState.HELD, "identity-conflict")


def test_an_instance_under_two_ids_holds_both_until_they_are_one(node: Node) -> None:
    """The archive sends a corrected copy under the new ID before anybody says that the IDs are one human's."""
    node.the_cohort_knows_both()
    sent = [each for day in DAYS for each in node.take(day, OLD)]
    again = replace(sent[0], patient=PHANTOM)
    with node.database.write() as ledger:
        assert arrive(ledger, again, node.now) is ArrivalState.CONFLICT
    node.settle()
    assert node.stands(OLD) == (CaseState.HELD, "instance-conflict")
    node.merge("OLD-1", "PHANTOM-1")
    node.settle()
    assert node.stands() == (CaseState.HELD, "instance-conflict"), "until it was compared again"
    with node.database.write() as ledger:
        assert read_again(ledger, [*sent, again]) == [ArrivalState.DUPLICATE]
    node.settle()
    (run,) = node.runs(RunState.REPORTED)
    assert run.inputs.dates == DAYS


def test_a_cohort_fact_under_the_retired_id_counts(node: Node) -> None:
    """The cohort file goes on naming the old number."""
    node.the_cohort_knows_both()
    with node.database.write() as ledger:
        cohort.replace(ledger, *PHANTOM.key, CohortFacts())
    for day in DAYS:
        node.take(day)
    node.settle()
    assert node.stands()[0] is CaseState.INELIGIBLE
    node.merge("OLD-1", "PHANTOM-1")
    node.settle()
    assert len(node.runs(RunState.REPORTED)) == 1


def test_a_run_that_is_taken_back_while_it_is_encoded_is_not_issued(tmp_path: Path) -> None:
    """A study is given away while the worker writes: nothing made from two humans is recorded or sent."""
    bench = Bench(tmp_path / "node")
    paths = flair_studies(tmp_path / "files")
    for path in paths:
        bench.receive(path)
    bench.tick()
    study_uid = str(dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)
    split: list[str] = []

    def split_before_the_objects_are_kept() -> datetime:
        with bench.database.read() as ledger:
            (run,) = runs.of_patient(ledger, 1)
        if run.result is not None and not split:
            split.append(run.run_key)
            with bench.database.write() as ledger:
                identity_changes.give_study(ledger, study_uid, OLD.key, BY)
        return bench.now

    bench.now = NOW + timedelta(minutes=5)
    engine = bench.reconciler.engine
    engine.steps = replace(bench.steps, clock=split_before_the_objects_are_kept)  # type: ignore[attr-defined] # AtOnce
    bench.tick()
    with bench.database.read() as ledger:
        (run,) = [each for each in runs.of_patient(ledger, 1) if each.run_key in split]
        assert run.state is RunState.SUPERSEDED
        assert runs.objects_of(ledger, run.run_key) == []
    bench.database.close()
