"""Choose the time points of a run: which are usable, which of them go in, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.decision import Missing
from dicom_node.timeline.kinds import anchor_of
from dicom_node.timeline.model import Event, Reason, TimePointKind
from dicom_node.timeline.thin import thin_evenly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from dicom_node.timeline.model import CohortFacts, Series, TimeLine, TimePoint
    from dicom_node.timeline.task import Task


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
    left_out: list[LeftOut] = []
    usable: list[TimePoint] = []
    event = ending_event(task, cohort, today)
    for point in time_line.time_points:
        refused = _unusable(point, task, event)
        if refused is None:
            usable.append(point)
        else:
            left_out.append(refused)
    pick = _spread if task.time_points.choose == "spread" else _newest
    chosen, skipped = pick(usable, task)
    by_day = sorted([*left_out, *skipped], key=lambda each: time_line.time_points.index(each.point))
    return Choice(points=tuple(chosen), left_out=tuple(by_day))


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


def _unusable(point: TimePoint, task: Task, event: Event | None) -> LeftOut | None:
    day = point.acquired_on.isoformat()
    if event is not None and point.acquired_on >= event.on:
        text = f"{day} is on or after {event.kind} on {event.on.isoformat()}"
        return LeftOut(point=point, reason=Reason(code="after-event", text=text))
    if point.kind not in task.time_points.kinds:
        kind = "not told apart from surgery" if point.kind is TimePointKind.UNKNOWN else point.kind
        return LeftOut(point=point, reason=Reason(code="kind", text=f"{day} is {kind}"))
    lacking = [role for role in task.roles.required if role not in point.chosen]
    if lacking:
        text = "needs " + ", ".join(f"{role} on {day}{_why(point, role)}" for role in lacking)
        missing = tuple(Missing(acquired_on=point.acquired_on, role=role) for role in lacking)
        return LeftOut(point=point, reason=Reason(code="missing-role", text=text), missing=missing)
    return None


def _why(point: TimePoint, role: str) -> str:
    """Say why the series that would have filled a role were left out."""
    series: list[Series] = [each for study in point.studies for each in study.series]
    texts = sorted({each.excluded.text for each in series if each.verdict.role == role and each.excluded is not None})
    return f" ({'; '.join(texts)})" if texts else ""


def _newest(usable: Sequence[TimePoint], task: Task) -> tuple[list[TimePoint], list[LeftOut]]:
    """Walk from the newest time point back, keeping the gaps, until there are enough."""
    chosen: list[TimePoint] = []
    skipped: list[LeftOut] = []
    gates, too_old = task.gates, ""
    for point in reversed(usable):
        gap = (chosen[0].acquired_on - point.acquired_on).days if chosen else None
        day = point.acquired_on.isoformat()
        if len(chosen) == task.time_points.maximum:
            skipped.append(_skip(point, "older", f"{day} is older than the last {task.time_points.maximum}"))
        elif too_old:
            skipped.append(_skip(point, "before-gap", f"{day} lies before {too_old}"))
        elif gap is not None and gap < gates.min_gap_days:
            skipped.append(
                _skip(point, "too-near", f"{day} is {gap} days before the next (at least {gates.min_gap_days})")
            )
        elif gap is not None and gates.max_gap_days is not None and gap > gates.max_gap_days:
            too_old = f"a gap of {gap} days (at most {gates.max_gap_days})"
            skipped.append(_skip(point, "before-gap", f"{day} lies before {too_old}"))
        else:
            chosen.insert(0, point)
    return chosen, skipped


def _spread(usable: Sequence[TimePoint], task: Task) -> tuple[list[TimePoint], list[LeftOut]]:
    """Thin the time points evenly, and say of each that falls out why."""
    gates = task.gates
    kept = thin_evenly(
        [point.acquired_on for point in usable],
        maximum=task.time_points.maximum,
        min_gap_days=gates.min_gap_days,
        max_gap_days=gates.max_gap_days,
    )
    chosen = [usable[position] for position in kept]
    skipped = [_thinned(point, chosen, task) for number, point in enumerate(usable) if number not in kept]
    return chosen, skipped


def _thinned(point: TimePoint, chosen: Sequence[TimePoint], task: Task) -> LeftOut:
    day, gates = point.acquired_on, task.gates
    nearest = min(abs((each.acquired_on - day).days) for each in chosen)
    if nearest < gates.min_gap_days:
        text = f"{day.isoformat()} is {nearest} days from a scan that is used (at least {gates.min_gap_days})"
        return _skip(point, "too-near", text)
    if day < chosen[0].acquired_on and gates.max_gap_days is not None:
        reach = f"{task.time_points.maximum} scans at most {gates.max_gap_days} days apart"
        return _skip(point, "before-gap", f"{day.isoformat()} lies farther back than {reach} reach")
    text = f"{day.isoformat()} is thinned out: {task.time_points.maximum} scans are spread over the history"
    return _skip(point, "thinned", text)


def _skip(point: TimePoint, code: str, text: str) -> LeftOut:
    return LeftOut(point=point, reason=Reason(code=code, text=text))
