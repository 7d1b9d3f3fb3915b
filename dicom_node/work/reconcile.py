"""The tick: look at what is known, derive what is due, hand it to the engine. Level-triggered and idempotent.

Nothing is remembered between two ticks but the ledger. A tick that is killed half-way, runs twice, or runs in two
processes does no harm: runs are named by their inputs, jobs by their runs, and a patient's revision says how far the
decisions have come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy.exc import OperationalError

from dicom_node import events
from dicom_node.deliver.consignment import job_key
from dicom_node.ledger import arrivals, cases, deliveries, orders, patients, presence, prior_series, runs
from dicom_node.ledger.orders import OrderKind
from dicom_node.ledger.tables import CaseState
from dicom_node.priors import search
from dicom_node.timeline.decision import Decision, Due, Waiting
from dicom_node.timeline.model import Reason, RunState
from dicom_node.work.engine import ROUTINE, STAT, JobKind, JobStatus
from dicom_node.work.judge import judge_case, may_ask_archives
from dicom_node.work.known import Known, read_known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.patients import Patient
    from dicom_node.ledger.runs import Run
    from dicom_node.observe.logs import Log
    from dicom_node.work.judge import Judged, Rules
    from dicom_node.work.tasks import ServedTask

PATIENTS_PER_TICK: Final = 100
SILENT_AFTER: Final = timedelta(seconds=90)
MOST_RESCUES: Final = 3
UNDECIDABLE_AGAIN: Final = timedelta(minutes=1)
LOST: Final = frozenset({JobStatus.UNKNOWN, JobStatus.DONE, JobStatus.CANCELLED})


class Jobs(Protocol):
    """What does the work: the engine, seen from here."""

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Ask for a job to be done, once per key."""
        ...

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Return how far each job is."""
        ...

    def rescue(self, executor_id: str) -> list[str]:
        """Hand the unfinished jobs of a dead executor to the living; return their keys."""
        ...

    def retry(self, key: str) -> None:
        """Do an ended job again, under the same key."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reconciler:
    """Derives what is due and has it done."""

    rules: Rules
    database: Database
    engine: Jobs
    tasks: Mapping[str, ServedTask]
    executor_id: str
    clock: Callable[[], datetime]
    log: Log

    def tick(self) -> None:
        """Do everything that is due now."""
        self._beat_and_rescue()
        self._follow_runs()
        self._decide()
        self._start_runs()
        self._start_deliveries()
        self._start_searches()

    def _decide(self) -> None:
        now = self.clock()
        with self.database.read() as ledger:
            waiting = patients.undecided(ledger, now, PATIENTS_PER_TICK)
            oldest_unread = arrivals.oldest_pending(ledger)
        known_until = min(now, oldest_unread).astimezone(now.tzinfo) if oldest_unread else now
        for patient in waiting:
            try:
                with self.database.write() as ledger:
                    self._decide_patient(ledger, patient, now, known_until)
            except OperationalError:
                raise  # the ledger is away, not the patient at fault
            except Exception as error:  # noqa: BLE001 - the edge: one patient must not stop the others
                self._undecidable(patient, error, now)

    def _decide_patient(self, ledger: Connection, patient: Patient, now: datetime, known_until: datetime) -> None:
        """Bring every case of a patient up to date; facts, cases and proposed runs commit together."""
        known = read_known(ledger, patient)
        if not known.held:
            cases.forget(ledger, patient.row_id)  # nothing of theirs is here (any more)
        decisions = []
        for served in self.tasks.values() if known.held else ():
            judged = judge_case(ledger, known, served, rules=self.rules, now=known_until)
            decisions.append(judged.decision)
            if isinstance(judged.decision, Due) and judged.state is CaseState.DUE:
                self._propose(ledger, patient, served, judged, now)
            for each in judged.to_fetch:
                prior_series.want_again(ledger, patient.row_id, each.series_instance_uid, now)
            self._show(ledger, patient, served, judged, now)
        self._ask_archives(ledger, known, decisions, known_until)
        checks = [each.next_check_at for each in decisions if isinstance(each, Waiting)]
        next_check_at = min((max(each, now) for each in checks if each is not None), default=None)
        patients.decided(ledger, patient, next_check_at)

    def _ask_archives(self, ledger: Connection, known: Known, decisions: list[Decision], known_until: datetime) -> None:
        """Open the questions to archives that could bring a case of this patient forward."""
        if any(may_ask_archives(decision) for decision in decisions):
            search.ensure(
                ledger,
                known.patient.row_id,
                settings=self.rules.settings,
                held_studies=known.received,
                waiting=any(isinstance(decision, Waiting) for decision in decisions),
                now=known_until,
            )

    def _undecidable(self, patient: Patient, error: Exception, now: datetime) -> None:
        """Show that a patient's cases could not be decided, and try again in a minute."""
        self.log.failure(events.TICK_FAILED, error, patient=self.log.pseudonym(patient.issuer, patient.patient_id))
        reason = Reason(code="undecidable", text=f"could not be decided: {type(error).__name__}; see the log")
        with self.database.write() as ledger:
            for task in self.tasks:
                case = cases.Case(
                    patient_row=patient.row_id, task=task, state=CaseState.FAILED, reasons=(reason,), decided_at=now
                )
                cases.set_case(ledger, case)
            patients.decided(ledger, patient, now + UNDECIDABLE_AGAIN)

    def _propose(self, ledger: Connection, patient: Patient, served: ServedTask, judged: Judged, now: datetime) -> None:
        due = judged.decision
        assert isinstance(due, Due)  # noqa: S101 - the caller asked
        for older in due.supersedes:
            self._supersede(ledger, older)
        proposal = runs.Proposal(
            run_key=due.run_key,
            patient_row=patient.row_id,
            task=served.name,
            stat=judged.stat,
            inputs=due.inputs,
            inputs_key=due.inputs_key,
            remarks=tuple(flag.text for flag in due.flags),
            bundle_digest=served.bundle_digest,
            task_digest=served.task.digest(),
        )
        known = runs.get(ledger, due.run_key)
        if known is None:
            runs.propose(ledger, proposal, now)
        elif known.state is RunState.SUPERSEDED:
            runs.set_state(ledger, due.run_key, RunState.QUEUED)  # wanted again
        orders.withdraw(ledger, patient.row_id, served.name, OrderKind.FORCE)

    def _supersede(self, ledger: Connection, run_key: str) -> None:
        """Take back a run that a newer one makes pointless, unless its answer is frozen already."""
        run = runs.get(ledger, run_key)
        if run is not None and run.state is RunState.QUEUED and run.result is None:
            runs.set_state(ledger, run_key, RunState.SUPERSEDED)
            self.log.info(events.RUN_SUPERSEDED, run=run_key[:12])

    def _show(self, ledger: Connection, patient: Patient, served: ServedTask, judged: Judged, now: datetime) -> None:
        case = cases.Case(
            patient_row=patient.row_id,
            task=served.name,
            state=judged.state,
            reasons=judged.reasons,
            decided_at=now,
            run_key=judged.run_key,
        )
        if cases.set_case(ledger, case):
            self.log.info(
                events.CASE_DECIDED,
                patient=self.log.pseudonym(patient.issuer, patient.patient_id),
                task=served.name,
                state=judged.state.value,
                code=judged.reasons[0].code if judged.reasons else "",
            )

    def _start_runs(self) -> None:
        """Hand waiting runs to the engine, urgent ones first, and never two of one patient at a time."""
        with self.database.read() as ledger:
            waiting = runs.open_runs(ledger)
        busy = {run.patient_row for run in waiting if run.state is RunState.RUNNING}
        for run in waiting:
            if run.state is RunState.QUEUED and run.patient_row not in busy:
                busy.add(run.patient_row)
                self._submit(run)

    def _submit(self, run: Run) -> None:
        status = self.engine.status([run.run_key])[run.run_key]
        if status is JobStatus.UNKNOWN:
            self.engine.submit(JobKind.RUN, run.run_key, priority=self._priority(run))
            self.log.info(events.RUN_SUBMITTED, run=run.run_key[:12], task=run.task)
        elif status not in {JobStatus.WAITING, JobStatus.WORKING}:
            self.engine.retry(run.run_key)  # ended once without a report, wanted again
            self.log.info(events.RUN_SUBMITTED, run=run.run_key[:12], task=run.task)

    def _priority(self, run: Run) -> int:
        """Return where a run stands in the queue: STAT first, then by the task's priority, lower numbers first."""
        served = self.tasks.get(run.task)
        return STAT if run.stat else ROUTINE - (served.task.priority if served else 0)

    def _follow_runs(self) -> None:
        """Take over from the engine how far the open runs are."""
        with self.database.read() as ledger:
            waiting = runs.open_runs(ledger)
        statuses = self.engine.status(run.run_key for run in waiting)
        for run in waiting:
            status = statuses[run.run_key]
            if status is JobStatus.WORKING and run.state is RunState.QUEUED:
                self._move(run, RunState.RUNNING, None)
            elif run.state is not RunState.RUNNING:
                continue  # not begun, or wanted again after an end: `_start_runs` has it done
            elif status is JobStatus.CRASHED:
                self._move(run, RunState.FAILED, "took its worker down three times")
            elif status is JobStatus.FAILED:
                self._move(run, RunState.FAILED, run.error or "failed; see the log")
            elif status in LOST:
                self._move(run, RunState.QUEUED, None)  # no report, and nobody at work: derive it again

    def _move(self, run: Run, state: RunState, error: str | None) -> None:
        with self.database.write() as ledger:
            now_found = runs.get(ledger, run.run_key)
            if now_found is None or now_found.state is not run.state:
                return  # it moved on since we looked
            runs.set_state(ledger, run.run_key, state, error)
            patients.touch(ledger, run.patient_row)
        if state is RunState.FAILED:
            self.log.error(events.RUN_FAILED, run=run.run_key[:12], task=run.task)  # why: in the ledger, with dates

    def _start_deliveries(self) -> None:
        with self.database.read() as ledger:
            due = deliveries.due(ledger, self.clock())
        self._start_attempts(JobKind.DELIVER, [job_key(each) for each in due])

    def _start_searches(self) -> None:
        """Have archives asked, and series fetched, as far as their limits let it."""
        with self.database.read() as ledger:
            due = search.due(ledger, settings=self.rules.settings, now=self.clock())
        for kind in (JobKind.LOOKUP, JobKind.FETCH):
            self._start_attempts(kind, [key for each, key in due if each == kind])

    def _start_attempts(self, kind: JobKind, keys: list[str]) -> None:
        statuses = self.engine.status(keys)
        for key in keys:
            if statuses[key] is JobStatus.UNKNOWN:
                self.engine.submit(kind, key)
            elif statuses[key] not in {JobStatus.WAITING, JobStatus.WORKING}:
                self.engine.retry(key)  # the attempt broke before it could be written down

    def _beat_and_rescue(self) -> None:
        now = self.clock()
        with self.database.write() as ledger:
            presence.beat(ledger, self.executor_id, now)
            silent = presence.silent_since(ledger, now - SILENT_AFTER)
        for executor_id in silent:
            self._rescue(executor_id)

    def _rescue(self, executor_id: str) -> None:
        keys = self.engine.rescue(executor_id)
        with self.database.write() as ledger:
            presence.forget(ledger, executor_id)
            for key in keys:
                run = runs.get(ledger, key)
                if run is not None and runs.count_rescue(ledger, key) > MOST_RESCUES:
                    runs.set_state(ledger, key, RunState.FAILED, "took several workers down")
                    patients.touch(ledger, run.patient_row)
        self.log.warning(events.EXECUTOR_RESCUED, executor=executor_id, count=len(keys))
