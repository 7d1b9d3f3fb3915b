"""From a decision to the one visible state of a case, with the reasons that everybody sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.ledger import arrivals, deliveries, orders, patients, retention, runs
from dicom_node.ledger.orders import Order, OrderKind
from dicom_node.ledger.tables import CaseState, DeliveryState
from dicom_node.priors import search
from dicom_node.timeline.circumstances import contradiction
from dicom_node.timeline.decide import decide
from dicom_node.timeline.decision import (
    Circumstances,
    Decision,
    Due,
    Ended,
    Held,
    Ineligible,
    UpToDate,
    Waiting,
)
from dicom_node.timeline.model import Reason, RunState
from dicom_node.work.recipients import may_answer
from inference.results import AbstentionKind, Result

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.ledger.patients import Patient
    from dicom_node.ledger.retention import MissingSeries
    from dicom_node.ledger.runs import Run
    from dicom_node.settings import Settings
    from dicom_node.timeline.model import TimeLine
    from dicom_node.timeline.selection import Selection
    from dicom_node.work.known import Known
    from dicom_node.work.tasks import ServedTask

STATES: Final[dict[type[object], CaseState]] = {
    Waiting: CaseState.WAITING,
    Held: CaseState.HELD,
    Ineligible: CaseState.INELIGIBLE,
    Ended: CaseState.ENDED,
}
PHANTOM_MODEL: Final = Reason(
    code="model-trained-on-phantoms",
    text="model trained on phantoms: it answers for phantoms only, and nothing is delivered for anyone else",
)

_ABSTENTIONS: Final = {
    AbstentionKind.NOT_ATTEMPTED: "not attempted",
    AbstentionKind.INDETERMINATE: "indeterminate",
    AbstentionKind.FAILURE: "the computation failed",
}
_TO_FETCH: Final = Reason(
    code="input-aged-out",
    text="images are not here any more, aged out or lost; to be fetched again from an archive or sent again",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A decision with the state and the reasons that are shown."""

    decision: Decision
    state: CaseState
    reasons: tuple[Reason, ...]
    time_line: TimeLine
    run_key: str | None
    stat: bool
    forced_by: str | None = None  # who ordered the run by hand
    to_fetch: tuple[MissingSeries, ...] = ()  # inputs whose bytes aged out: the run waits for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What cases are judged by, beside the facts."""

    settings: Settings
    selection: Selection


def judge_case(ledger: Connection, known: Known, served: ServedTask, *, rules: Rules, now: datetime) -> Judged:
    """Decide a case on everything the ledger knows at `now`."""
    patient, receive = known.patient, rules.settings.receive
    standing = orders.of_case(ledger, patient.row_id, served.name)
    line = known.time_line(served.task, rules.selection)
    earlier = [runs.facts(each) for each in runs.of_patient(ledger, patient.row_id, served.name)]
    priors = search.look(ledger, patient.row_id, settings=rules.settings, held_studies=known.received, now=now)
    decision = decide(
        line,
        served.task,
        known.cohort_for(rules.selection),
        earlier,
        now,
        circumstances=Circumstances(
            patient=known.person,
            bundle_digest=served.bundle_digest,
            identity=known.identity,
            received={uid: each.clock for uid, each in known.received.items()},
            quiet_period_s=receive.quiet_period_s,
            max_wait_s=receive.max_wait_s,
            priors=priors,
            hold=_hold(ledger, patient, standing.get(OrderKind.HOLD)),
            forced=OrderKind.FORCE in standing,
        ),
    )
    to_fetch = _aged_out(ledger, patient, decision)
    state, reasons = _state(ledger, patient, decision, served, rules.settings)
    if to_fetch and state is CaseState.DUE:
        told = (Reason(code="priors", text=priors.text or "no archive can be asked: send them again"),)
        state, reasons = CaseState.WAITING, (_TO_FETCH, *told, *reasons)
    return Judged(
        decision=decision,
        state=state,
        reasons=reasons,
        to_fetch=to_fetch,
        forced_by=standing[OrderKind.FORCE].actor if OrderKind.FORCE in standing else None,
        time_line=line,
        run_key=decision.run_key if isinstance(decision, Due | UpToDate) else None,
        stat=any(each.stat for each in known.received.values()),
    )


def _aged_out(ledger: Connection, patient: Patient, decision: Decision) -> tuple[MissingSeries, ...]:
    """Return the series that a due run needs and whose bytes were given up."""
    if not isinstance(decision, Due):
        return ()
    series = [each for point in decision.inputs.time_points for each in point.series]
    wanted = {instance.sop_instance_uid for each in series for instance in each.instances}
    return tuple(retention.missing_series(ledger, patient.row_id, wanted))


def may_ask_archives(decision: Decision) -> bool:
    """Say whether a case may have archives asked about its patient: one that older studies could bring forward."""
    if isinstance(decision, Waiting):
        return all(reason.code != "surgery-date-unknown" for reason in decision.reasons)
    return isinstance(decision, Due | UpToDate)


def _hold(ledger: Connection, patient: Patient, order: Order | None) -> Reason | None:
    """Return why the case may not run: a person's order, or received files that contradict each other."""
    if order is not None:
        text = f"held by hand since {order.given_at.date().isoformat()}" + (f": {order.reason}" if order.reason else "")
        return Reason(code="held-by-hand", text=text)
    return contradiction(arrivals.conflicts(ledger, patient.row_id))


def _state(
    ledger: Connection, patient: Patient, decision: Decision, served: ServedTask, settings: Settings
) -> tuple[CaseState, tuple[Reason, ...]]:
    if isinstance(decision, UpToDate):
        return _run_state(ledger, decision)
    if isinstance(decision, Due):
        phantom = patients.is_phantom(ledger, patient.row_id)
        answers = may_answer(settings, served, phantom=phantom)
        return (CaseState.DUE, decision.reasons) if answers else (CaseState.HELD, (PHANTOM_MODEL,))
    if isinstance(decision, Held) and decision.reasons[0].code == "run-failed":
        return CaseState.FAILED, decision.reasons
    return STATES[type(decision)], decision.reasons


def _run_state(ledger: Connection, decision: UpToDate) -> tuple[CaseState, tuple[Reason, ...]]:
    run = runs.get(ledger, decision.run_key)
    if run is None or run.state in runs.OPEN_STATES:
        return CaseState.RUNNING, decision.reasons
    found = deliveries.of_run(ledger, decision.run_key)
    reasons = tuple(_delivery_reason(each, run) for each in found)
    if run.state is RunState.WITHDRAWN:
        return CaseState.WITHDRAWN, (*decision.reasons, *reasons)
    open_ = [each for each in found if each.state not in deliveries.DONE_STATES]
    if any(each.state is DeliveryState.DEAD for each in open_):
        return CaseState.FAILED, reasons
    state = CaseState.RUNNING if open_ else CaseState.REPORTED
    return state, (*decision.reasons, *_abstained(run), *reasons)


def _abstained(run: Run) -> tuple[Reason, ...]:
    """Say why the report of a run holds no number, where it holds none."""
    abstention = None if run.result is None else Result.from_json(run.result).abstention
    if abstention is None:
        return ()
    code = abstention.kind.name.lower().replace("_", "-")
    text = f"{_ABSTENTIONS[abstention.kind]}: {abstention.reason or 'the reason stands in the report'}"
    return (Reason(code=code, text=text),)


def _delivery_reason(found: Delivery, run: Run) -> Reason:
    """Say where a report stands with one destination."""
    text = f"{found.destination}: {'rejection note ' if found.note else ''}{found.state}"
    if found.error:
        text += f", {found.attempts} attempts, {found.error}"
    if found.state in deliveries.DONE_STATES and found.encoding < run.encoding and found.note is None:
        text += f", as encoding {found.encoding} of {run.encoding}: before the archive's correction"
    return Reason(code=f"delivery-{found.state}", text=text)
