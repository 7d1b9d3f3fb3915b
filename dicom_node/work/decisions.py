"""Decide what changed: judge a patient's cases on one snapshot, then write what follows in one short transaction.

Judging reads every fact of a patient and may take seconds; it holds no lock, so that reception goes on. What it found
is written only if nothing new was learned of the patient meanwhile (its revision); else it is judged again at the next
tick. A run that its case no longer wants is taken back with the same commit that says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import OperationalError

from dicom_node import events
from dicom_node.ledger import arrivals, cases, orders, patients, prior_series, runs
from dicom_node.ledger.orders import OrderKind
from dicom_node.ledger.tables import CaseState
from dicom_node.priors import search
from dicom_node.timeline.decision import Due, UpToDate, Waiting
from dicom_node.timeline.model import Reason, RunState
from dicom_node.work.judge import judge_case, may_ask_archives
from dicom_node.work.known import read_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.patients import Patient
    from dicom_node.ledger.runs import Run
    from dicom_node.observe.logs import Log
    from dicom_node.work.judge import Judged, Rules
    from dicom_node.work.known import Known
    from dicom_node.work.tasks import ServedTask

PATIENTS_PER_TICK: Final = 100
SOONEST_AGAIN: Final = timedelta(seconds=5)  # what should have been looked at before now waits for something else
UNDECIDABLE_AGAIN: Final = timedelta(minutes=1)
TO_FETCH_AGAIN: Final = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Decider:
    """Brings the cases of patients up to date."""

    rules: Rules
    database: Database
    tasks: Mapping[str, ServedTask]
    log: Log

    def decide_all(self, now: datetime) -> None:
        """Decide every patient of whom something new is known, or whose time to be looked at again has come."""
        with self.database.read() as ledger:
            waiting = patients.undecided(ledger, now, PATIENTS_PER_TICK)
            oldest_unread = arrivals.oldest_pending(ledger)
        known_until = min(now, oldest_unread).astimezone(now.tzinfo) if oldest_unread else now
        for patient in waiting:
            try:
                self._decide(patient, now, known_until)
            except OperationalError:
                raise  # the ledger is away, not the patient at fault
            except Exception as error:  # noqa: BLE001 - the edge: one patient must not stop the others
                self._undecidable(patient, error, now)

    def _decide(self, patient: Patient, now: datetime, known_until: datetime) -> None:
        with self.database.read() as ledger:
            known = read_known(ledger, patient)
            judged = {
                served.name: judge_case(ledger, known, served, rules=self.rules, now=known_until)
                for served in self.tasks.values()
                if known.held
            }
        with self.database.write() as ledger:
            if patients.locked_revision(ledger, patient.row_id) == patient.revision:
                self._write(ledger, known, judged, now, known_until)

    def _write(
        self, ledger: Connection, known: Known, judged: Mapping[str, Judged], now: datetime, known_until: datetime
    ) -> None:
        """Enter cases, runs, orders spent and questions to archives together."""
        patient = known.patient
        if not known.held:
            cases.forget(ledger, patient.row_id)  # nothing of theirs is here (any more)
        self._take_back(ledger, known, judged)
        for name, each in judged.items():
            if isinstance(each.decision, Due) and each.state is CaseState.DUE:
                self._propose(ledger, patient, self.tasks[name], each, now)
            if isinstance(each.decision, Due | UpToDate):
                orders.withdraw(ledger, patient.row_id, name, OrderKind.FORCE)  # spent, or nothing to force
            for series in each.to_fetch:
                prior_series.want_again(ledger, patient.row_id, series.series_instance_uid, now)
            self._show(ledger, patient, name, each, now)
        asks = self._ask_archives(ledger, known, tuple(judged.values()), known_until)
        patients.decided(ledger, patient, _next_check(judged.values(), asks, now))

    def _take_back(self, ledger: Connection, known: Known, judged: Mapping[str, Judged]) -> None:
        """Take back the runs on their way that their case does not want, as far as nothing of them was issued."""
        on_their_way = [each for each in runs.open_of_patient(ledger, known.patient.row_id) if each.task in self.tasks]
        held = {each.sop_instance_uid for each in known.facts} if on_their_way else set()
        for run in on_their_way:
            case = judged.get(run.task)
            wanted = case is not None and _still_wanted(run, case, held)
            if not wanted and runs.take_back(ledger, run.run_key):
                self.log.info(events.RUN_SUPERSEDED, run=run.run_key[:12], task=run.task)

    def _propose(self, ledger: Connection, patient: Patient, served: ServedTask, judged: Judged, now: datetime) -> None:
        due = judged.decision
        assert isinstance(due, Due)  # noqa: S101 - the caller asked
        known = runs.get(ledger, due.run_key)
        if known is None:
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
                requested_by=judged.forced_by,
            )
            runs.propose(ledger, proposal, now)
        elif known.state is RunState.SUPERSEDED and known.error == runs.OTHER_MODEL:
            runs.set_state(ledger, due.run_key, RunState.FAILED, runs.OTHER_MODEL)  # wanted here, refused there
            patients.touch(ledger, patient.row_id)
        elif known.state is RunState.SUPERSEDED:
            runs.set_state(ledger, due.run_key, RunState.QUEUED)  # wanted again

    def _show(self, ledger: Connection, patient: Patient, task: str, judged: Judged, now: datetime) -> None:
        case = cases.Case(
            patient_row=patient.row_id,
            task=task,
            state=judged.state,
            reasons=judged.reasons,
            decided_at=now,
            run_key=judged.run_key,
        )
        if cases.set_case(ledger, case):
            self.log.info(
                events.CASE_DECIDED,
                patient=self.log.pseudonym(patient.issuer, patient.patient_id),
                task=task,
                state=judged.state.value,
                code=judged.reasons[0].code if judged.reasons else "",
            )

    def _ask_archives(
        self, ledger: Connection, known: Known, judged: Sequence[Judged], known_until: datetime
    ) -> datetime | None:
        """Open the questions to archives that could bring a case forward; return when the next one can be asked."""
        if not any(may_ask_archives(each.decision) for each in judged):
            return None
        settings, row_id = self.rules.settings, known.patient.row_id
        search.ensure(
            ledger,
            row_id,
            settings=settings,
            held_studies=known.received,
            waiting=any(isinstance(each.decision, Waiting) or each.to_fetch for each in judged),
            now=known_until,
        )
        return search.settles_at(ledger, row_id, settings=settings, now=known_until)

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


def _still_wanted(run: Run, judged: Judged, held: set[str]) -> bool:
    """Say whether a run on its way may go on: it is the one decided on, or nothing speaks against it while we wait.

    What only waits in the queue gives way to what is still arriving; what is at work may end, if its images are all
    still this patient's and not rejected.
    """
    if isinstance(judged.decision, Waiting):
        series = [each for point in run.inputs.time_points for each in point.series]
        used = {instance.sop_instance_uid for each in series for instance in each.instances}
        return run.state is RunState.RUNNING and used <= held
    return run.run_key == judged.run_key


def _next_check(judged: Iterable[Judged], asks: datetime | None, now: datetime) -> datetime | None:
    """Return when to look again without news; never at once, for that would be a circle."""
    moments = [asks]
    for each in judged:
        if isinstance(each.decision, Waiting):
            moments.append(each.decision.next_check_at)
        if each.to_fetch:
            moments.append(now + TO_FETCH_AGAIN)
    return min((at if at > now else now + SOONEST_AGAIN for at in moments if at is not None), default=None)
