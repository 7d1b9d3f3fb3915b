"""The tick: look at what is known, derive what is due, hand it to the engine. Level-triggered and idempotent.

Nothing is remembered between two ticks but the ledger. A tick that is killed half-way, runs twice, or runs in two
processes does no harm: runs are named by their inputs, jobs by their runs, and a patient's revision says how far the
decisions have come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node import events
from dicom_node.deliver.consignment import job_key
from dicom_node.ledger import cases, deliveries, patients, presence, runs
from dicom_node.priors import search
from dicom_node.timeline.model import RunState
from dicom_node.work.backlog import next_attempts
from dicom_node.work.decisions import Decider
from dicom_node.work.engine import ROUTINE, STAT, JobKind, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.deliveries import Due
    from dicom_node.ledger.runs import OpenRun
    from dicom_node.observe.logs import Log
    from dicom_node.work.judge import Rules
    from dicom_node.work.tasks import ServedTask

SILENT_AFTER: Final = timedelta(seconds=90)
MOST_RESCUES: Final = 3
TAKEN: Final = frozenset({JobStatus.WAITING, JobStatus.WORKING})
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
        decider = Decider(rules=self.rules, database=self.database, tasks=self.tasks, log=self.log)
        decider.decide_all(self.clock())

    def _start_runs(self) -> None:
        """Hand waiting runs to the engine, urgent ones first, and never two of one patient at a time."""
        with self.database.read() as ledger:
            waiting = runs.open_runs(ledger)
        statuses = self.engine.status(run.run_key for run in waiting)
        taken = {run.run_key for run in waiting if statuses[run.run_key] in TAKEN}
        busy = {run.patient_row for run in waiting if run.state is RunState.RUNNING or run.run_key in taken}
        for run in waiting:
            if run.state is RunState.QUEUED and run.patient_row not in busy:
                busy.add(run.patient_row)
                self._submit(run, statuses[run.run_key])

    def _submit(self, run: OpenRun, status: JobStatus) -> None:
        if status is JobStatus.UNKNOWN:
            self.engine.submit(JobKind.RUN, run.run_key, priority=self._priority(run))
        else:
            self.engine.retry(run.run_key)  # ended once without a report, wanted again
        self.log.info(events.RUN_SUBMITTED, run=run.run_key[:12], task=run.task)

    def _priority(self, wanted: OpenRun | Due) -> int:
        """Return where something stands in its queue: STAT first, then by the task's priority, lower numbers first."""
        served = self.tasks.get(wanted.task)
        return STAT if wanted.stat else ROUTINE - (served.task.priority if served else 0)

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
                self._move(run, RunState.FAILED, "took its worker down again and again")
            elif status is JobStatus.FAILED:
                self._move(run, RunState.FAILED, run.error or "failed; see the log")
            elif status in LOST:
                self._move(run, RunState.QUEUED, None)  # no report, and nobody at work: derive it again

    def _move(self, run: OpenRun, state: RunState, error: str | None) -> None:
        with self.database.write() as ledger:
            now_found = runs.get(ledger, run.run_key)
            if now_found is None or now_found.state is not run.state:
                return  # it moved on since we looked
            runs.set_state(ledger, run.run_key, state, error)
            patients.touch(ledger, run.patient_row)
        if state is RunState.FAILED:
            self.log.error(events.RUN_FAILED, run=run.run_key[:12], task=run.task)  # why: in the ledger, with dates

    def _start_deliveries(self) -> None:
        now = self.clock()
        with self.database.read() as ledger:
            due = [each for each in deliveries.due(ledger, now) if not cases.pauses(ledger, each.delivery.run_key)]
            failing = deliveries.failing(ledger, now)
        statuses = self.engine.status(job_key(each.delivery) for each in due)
        taken = {key for key, status in statuses.items() if status in TAKEN}
        for each in next_attempts(due, priority=self._priority, taken=taken, failing=failing):
            key = job_key(each.delivery)
            self._start_attempt(JobKind.DELIVER, key, statuses[key], priority=self._priority(each))

    def _start_searches(self) -> None:
        """Have archives asked, and series fetched, as far as their limits let it."""
        with self.database.read() as ledger:
            due = search.due(ledger, settings=self.rules.settings, now=self.clock())
        statuses = self.engine.status(key for _, key in due)
        for kind, key in due:
            self._start_attempt(JobKind(kind), key, statuses[key])

    def _start_attempt(self, kind: JobKind, key: str, status: JobStatus, *, priority: int = ROUTINE) -> None:
        if status is JobStatus.UNKNOWN:
            self.engine.submit(kind, key, priority=priority)
        elif status not in TAKEN:
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
