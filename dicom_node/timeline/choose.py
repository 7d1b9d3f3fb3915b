"""Choose the time points of a run: which are usable, which of them go in, and why the others do not.

The rule itself is `inference.selection`, which training and evaluation go by too; here it is told in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.decision import Missing
from dicom_node.timeline.kinds import anchor_of
from dicom_node.timeline.model import Event, Reason, Role, TimePointKind
from inference.selection import Candidate, Code, SelectionRule, select

if TYPE_CHECKING:
    from datetime import date

    from dicom_node.timeline.model import CohortFacts, Series, TimeLine, TimePoint
    from dicom_node.timeline.task import Task
    from inference.selection import Verdict


RECURRENCE: Final = "recurrence"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A time point that does not go in, and why."""

    point: TimePoint
    reason: Reason
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The time points that go in, oldest first, and those that do not, oldest first."""

    points: tuple[TimePoint, ...]
    left_out: tuple[LeftOut, ...]


def choose_time_points(time_line: TimeLine, task: Task, cohort: CohortFacts, today: date) -> Choice:
    """Choose usable time points that keep the task's gaps, at most as many as the model takes.

    They are the newest (`choose: last`), or evenly thinned over the whole history (`choose: spread`).
    """
    points, event = time_line.time_points, ending_event(task, cohort, today)
    verdicts = select(
        [_candidate(point) for point in points], selection_rule(task), event=None if event is None else event.on
    )
    judged = list(zip(points, verdicts, strict=True))
    return Choice(
        points=tuple(point for point, verdict in judged if verdict.kept),
        left_out=tuple(_left_out(point, verdict, task, event) for point, verdict in judged if not verdict.kept),
    )


def selection_rule(task: Task) -> SelectionRule:
    """Return what a task says of the scans that its model is shown."""
    return SelectionRule(
        roles=task.roles.required,
        kinds=task.time_points.kinds,
        maximum=task.time_points.maximum,
        choose=task.time_points.choose,
        min_gap_days=task.gates.min_gap_days,
        max_gap_days=task.gates.max_gap_days,
    )


def ending_event(task: Task, cohort: CohortFacts, today: date) -> Event | None:
    """Return the first recorded event since the anchoring surgery, None if surveillance goes on.

    A recurrence dated on the day of a later operation is what was operated on, so it lies before that operation.
    """
    anchor = anchor_of(cohort.surgeries, task.anchor)
    again = anchor is not None and anchor != anchor_of(cohort.surgeries, "first")

    def counts(event: Event) -> bool:
        if anchor is None or event.on > anchor.on:
            return True
        return event.on == anchor.on and not (again and event.kind == RECURRENCE)

    events = [event for event in cohort.events if event.on <= today and counts(event)]
    return min(events, key=lambda event: (event.on, event.kind)) if events else None


def _candidate(point: TimePoint) -> Candidate:
    return Candidate(day=point.acquired_on, kind=point.kind, roles=frozenset(point.chosen))


def _left_out(point: TimePoint, verdict: Verdict, task: Task, event: Event | None) -> LeftOut:
    """Put a verdict into words."""
    day = point.acquired_on.isoformat()
    if verdict.code is Code.AFTER_EVENT and event is not None:
        text = f"{day} is on or after {event.kind} on {event.on.isoformat()}"
    elif verdict.code is Code.KIND:
        kind = "not told apart from surgery" if point.kind is TimePointKind.UNKNOWN else point.kind
        text = f"{day} is {kind}"
    elif verdict.code is Code.MISSING_ROLE:
        text = "needs " + ", ".join(f"{role} on {day}{_why(point, role)}" for role in verdict.missing)
    else:
        text = f"{day} {_not_picked(verdict, task)}"
    missing = tuple(Missing(acquired_on=point.acquired_on, role=Role(role)) for role in verdict.missing)
    return LeftOut(point=point, reason=Reason(code=verdict.code.value, text=text), missing=missing)


def _not_picked(verdict: Verdict, task: Task) -> str:
    """Say why a usable time point is not among those that go in."""
    maximum, gates, gap_days = task.time_points.maximum, task.gates, verdict.gap_days
    spread = task.time_points.choose == "spread"
    if verdict.code is Code.OLDER:
        return f"is older than the last {maximum}"
    if verdict.code is Code.TOO_NEAR:
        whence = "from a scan that is used" if spread else "before the next"
        return f"is {gap_days} days {whence} (at least {gates.min_gap_days})"
    if verdict.code is Code.THINNED:
        return f"is thinned out: {maximum} scans are spread over the history"
    if spread:
        return f"lies farther back than {maximum} scans at most {gates.max_gap_days} days apart reach"
    return f"lies before a gap of {gap_days} days (at most {gates.max_gap_days})"


def _why(point: TimePoint, role: str) -> str:
    """Say why the series that would have filled a role were left out."""
    series: list[Series] = [each for study in point.studies for each in study.series]
    texts = sorted({each.excluded.text for each in series if each.verdict.role == role and each.excluded is not None})
    return f" ({'; '.join(texts)})" if texts else ""
