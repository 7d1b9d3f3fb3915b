"""Replay a patient's history with a clock of its own, and return every decision that the node would take on the way.

The decisions are those of `decide`, on time lines of `build_time_line`; nothing else is looked at. The node looks
whenever instances have arrived and none follows within the quiet period, whenever something else was learned, whenever
a decision asked to be taken again, and at the end. A run that falls due is noted as reported at once, so that later
decisions see it; no model runs. What a person orders by hand and what archives answer is not replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.choose import choose_time_points
from dicom_node.timeline.circumstances import contradiction, heard, subject
from dicom_node.timeline.decide import decide
from dicom_node.timeline.decision import Circumstances, Decision, Due, Held, StudyClock, UpToDate, Waiting
from dicom_node.timeline.history import Arrived, CohortChanged, Contradicted, Rejected
from dicom_node.timeline.identity import compare_patients
from dicom_node.timeline.model import Reason, RunFacts, RunState
from dicom_node.timeline.run_key import freeze_inputs
from dicom_node.timeline.surgery_date import with_surgery_from_images

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from dicom_node.timeline.history import Event, History
    from dicom_node.timeline.model import CohortFacts, Inputs, InstanceFacts, TimeLine
    from dicom_node.timeline.selection import Selection
    from dicom_node.timeline.task import Task


class Occasion(StrEnum):
    """Why a decision was taken."""

    ARRIVAL = "arrival"
    COHORT = "cohort"
    REJECTION = "rejection"
    CONTRADICTION = "contradiction"
    CHECK = "check"  # an earlier decision asked for it
    LOOK = "look"  # the node happened to look
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a history is judged by. `phantoms_only` names why nobody but a phantom is answered, None: everybody is."""

    task: Task
    selection: Selection
    bundle_digest: str
    quiet_period_s: float = 0.0
    max_wait_s: float = 0.0
    phantoms_only: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision; `inputs` is what goes in, or would if nothing stood against it, None: no usable time point."""

    at: datetime
    occasion: Occasion
    instances: int  # held then
    decision: Decision
    inputs: Inputs | None


def replay(
    history: History, rules: Rules, *, until: datetime | None = None, looks: Iterable[datetime] = ()
) -> list[Step]:
    """Feed a history to the decisions and return them in order; the last is how it ends.

    Args:
        history: of one patient.
        rules: the task and what belongs to it.
        until: when the last look is taken; not before the last event and what it asks for. None: then.
        looks: further moments at which the node happens to look.
    """
    known = _Known(history, rules)
    steps: list[Step] = []
    moments = _moments(history.events, looks)
    groups = list(_groups(moments, timedelta(seconds=rules.quiet_period_s)))
    for number, group in enumerate(groups):
        for moment in group:
            known.learn(moment)
        following = groups[number + 1][0].at if number + 1 < len(groups) else until
        steps += _look_until(known, group[-1].at, _OCCASIONS[type(group[-1])], following)
    last = max((each.at for each in (*steps, *moments)), default=until)
    at = max((each for each in (last, until) if each is not None), default=None)
    if at is not None and known.held:
        steps += _look_to_the_end(known, at)
    return steps


@dataclass(frozen=True, slots=True)
class _Look:
    at: datetime


_OCCASIONS: Final[dict[type[object], Occasion]] = {
    Arrived: Occasion.ARRIVAL,
    CohortChanged: Occasion.COHORT,
    Rejected: Occasion.REJECTION,
    Contradicted: Occasion.CONTRADICTION,
    _Look: Occasion.LOOK,
}


def _moments(events: Iterable[Event], looks: Iterable[datetime]) -> list[Event | _Look]:
    """Return everything in order of time; what happens at the same time stays as it was given."""
    return sorted((*events, *(_Look(at) for at in looks)), key=lambda each: each.at)


def _groups(moments: Sequence[Event | _Look], quiet: timedelta) -> Iterator[list[Event | _Look]]:
    """Split into what the node learns between two looks: arrivals that follow each other closely stay together."""
    group: list[Event | _Look] = []
    for moment in moments:
        together = group and isinstance(group[-1], Arrived) and isinstance(moment, Arrived)
        if group and not (together and moment.at - group[-1].at <= quiet):
            yield group
            group = []
        group.append(moment)
    if group:
        yield group


def _look_until(known: _Known, at: datetime, occasion: Occasion, following: datetime | None) -> Iterator[Step]:
    """Look, and look again whenever the decision asks for it before something new happens."""
    if not known.held:
        return
    step = known.look(at, occasion)
    yield step
    while (again := _again(step)) is not None and (following is None or again < following):
        step = known.look(again, Occasion.CHECK)
        yield step


def _look_to_the_end(known: _Known, at: datetime) -> Iterator[Step]:
    """Look for the last time, and once more where a run fell due, so that the last step says how it ends."""
    step = known.look(at, Occasion.END)
    yield step
    if isinstance(step.decision, Due):
        yield known.look(at, Occasion.END)


def _again(step: Step) -> datetime | None:
    """Return when a decision asked to be taken again, if that is later than it was taken."""
    if not isinstance(step.decision, Waiting) or step.decision.next_check_at is None:
        return None
    return step.decision.next_check_at if step.decision.next_check_at > step.at else None


class _Known:
    """What is known of the patient at one moment of the replay, and the runs made until then."""

    def __init__(self, history: History, rules: Rules) -> None:
        self._history = history
        self._rules = rules
        self._held: dict[str, InstanceFacts] = {}
        self._clocks: dict[str, StudyClock] = {}
        self._rejected: set[str] = set()
        self._contradictions = 0
        self._cohort = history.cohort
        self._runs: list[RunFacts] = []
        self._inputs: dict[str, Inputs] = {}

    @property
    def held(self) -> bool:
        """Whether anything of this patient was received, used or rejected: else there is no case."""
        return bool(self._held)

    @property
    def facts(self) -> list[InstanceFacts]:
        """What is held and not rejected."""
        return [each for uid, each in self._held.items() if uid not in self._rejected]

    def learn(self, event: Event | _Look) -> None:
        """Take in what happened; the first copy of an instance stays, as in the ledger."""
        if isinstance(event, Arrived):
            uid, study = event.facts.sop_instance_uid, event.facts.study_instance_uid
            if uid not in self._held:
                self._held[uid] = event.facts
                self._clocks[study] = heard(self._clocks.get(study), event.at)
        elif isinstance(event, CohortChanged):
            self._cohort = event.cohort
        elif isinstance(event, Rejected):
            self._rejected |= event.sop_instance_uids
        elif isinstance(event, Contradicted):
            self._contradictions += 1

    def look(self, at: datetime, occasion: Occasion) -> Step:
        """Decide on what is known, and note a run that falls due as reported."""
        facts, rules = self.facts, self._rules
        cohort = with_surgery_from_images(self._cohort, facts, rules.selection.surgery_date)
        line = build_time_line(
            facts, selection=rules.selection, task=rules.task, cohort=cohort, expected=self._history.expected
        )
        circumstances = self._circumstances(facts)
        decision = decide(line, rules.task, cohort, self._runs, at, circumstances=circumstances)
        inputs = self._inputs_of(decision, line, cohort, at)
        if isinstance(decision, Due):
            if rules.phantoms_only is not None and not circumstances.patient.phantom:
                decision = Held(reasons=(rules.phantoms_only, *decision.reasons))
            else:
                self._report(decision, at)
        return Step(at=at, occasion=occasion, instances=len(self._held), decision=decision, inputs=inputs)

    def _circumstances(self, facts: Collection[InstanceFacts]) -> Circumstances:
        return Circumstances(
            patient=subject(self._history.patient, facts),
            bundle_digest=self._rules.bundle_digest,
            identity=compare_patients(
                [*(each.patient for each in facts), *self._history.stated], accepted=self._history.accepted
            ),
            received=self._clocks,
            quiet_period_s=self._rules.quiet_period_s,
            max_wait_s=self._rules.max_wait_s,
            hold=contradiction(self._contradictions),
        )

    def _inputs_of(self, decision: Decision, line: TimeLine, cohort: CohortFacts, at: datetime) -> Inputs | None:
        if isinstance(decision, Due):
            return decision.inputs
        if isinstance(decision, UpToDate):
            return self._inputs[decision.run_key]
        chosen = choose_time_points(line, self._rules.task, cohort, at.date()).points
        return freeze_inputs(chosen, self._rules.task, cohort) if chosen else None

    def _report(self, due: Due, at: datetime) -> None:
        self._inputs[due.run_key] = due.inputs
        self._runs.append(
            RunFacts(
                run_key=due.run_key,
                inputs_key=due.inputs_key,
                task=self._rules.task.name,
                state=RunState.REPORTED,
                version=due.version,
                time_points=due.inputs.dates,
                studies=tuple(dict.fromkeys(uid for point in due.inputs.time_points for uid in point.studies)),
                bundle_digest=self._rules.bundle_digest,
                task_digest=self._rules.task.digest(),
                issued_at=at,
                instances=frozenset(
                    instance.sop_instance_uid
                    for point in due.inputs.time_points
                    for series in point.series
                    for instance in series.instances
                ),
            )
        )
