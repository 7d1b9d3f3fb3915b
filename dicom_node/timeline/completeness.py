"""Never half a study: until when a study is waited for, and what becomes of one that stays incomplete.

A study is *arriving* while its newest instance is younger than the quiet period, and *incomplete* while a series that
could fill a role has gaps or fewer instances than its scanner or an archive says (`Series.incomplete`). Neither is
waited for longer than the longest wait, counted from the start of the study's latest burst; after that the task's
`completeness.when_overdue` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dicom_node.timeline.model import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dicom_node.timeline.decision import Circumstances, StudyClock
    from dicom_node.timeline.model import Series, Study, TimeLine, TimePoint
    from dicom_node.timeline.task import Task


ARCHIVE_HOLDS_MORE = "archive-holds-more"  # the code of `Series.incomplete` where an archive counts more instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What of a time line is still to come: the line to decide on, what is waited for and until when, what is told.

    `next_check_at` is None where `waiting` is empty or time alone will change nothing. `flags` name studies used, or
    left out, although they are incomplete.
    """

    line: TimeLine
    waiting: tuple[Reason, ...] = ()
    next_check_at: datetime | None = None
    flags: tuple[Reason, ...] = ()


def judge_reception(time_line: TimeLine, task: Task, circumstances: Circumstances, now: datetime) -> Reception:
    """Say what is still arriving or incomplete among the studies that matter to a task."""
    arriving = [
        at
        for study in _relevant(time_line, task)
        if (at := _quiet_at(study, circumstances)) is not None and at > now
    ]  # fmt: skip
    if arriving:
        at = max(arriving)
        text = f"still arriving; next look at {at.isoformat(timespec='seconds')}"
        return Reception(line=time_line, waiting=(Reason(code="quiet-period", text=text),), next_check_at=at)
    incomplete = _incomplete(time_line, task)
    if not incomplete:
        return Reception(line=time_line)
    ends = {uid: _overdue_at(circumstances.received.get(uid), circumstances) for uid in incomplete}
    waited_for = {uid: at for uid, at in ends.items() if at is not None and at > now}
    if waited_for:
        at = max(waited_for.values())
        reasons = _reasons(incomplete, waited_for, f"waited for until {at.isoformat(timespec='seconds')}")
        return Reception(line=time_line, waiting=reasons, next_check_at=at)
    return _overdue(time_line, task, incomplete)


def _overdue(time_line: TimeLine, task: Task, incomplete: Mapping[str, tuple[Series, ...]]) -> Reception:
    """Do what the task says when the longest wait is over."""
    policy = task.completeness.when_overdue
    if policy == "wait":
        return Reception(line=time_line, waiting=_reasons(incomplete, incomplete, "waited for without end"))
    if policy == "discard":
        line = _without(time_line, incomplete)
        return Reception(line=line, flags=_reasons(incomplete, incomplete, "left out"))
    return Reception(line=time_line, flags=_reasons(incomplete, incomplete, "not waited for any longer"))


def _relevant(time_line: TimeLine, task: Task) -> list[Study]:
    """Return the studies whose time points a task can use, and those without a date."""
    points = [point for point in time_line.time_points if point.kind in task.time_points.kinds]
    return [study for point in points for study in point.studies] + list(time_line.undated)


def _quiet_at(study: Study, circumstances: Circumstances) -> datetime | None:
    clock = circumstances.received.get(study.study_instance_uid)
    if clock is None:
        return None
    quiet_at = clock.last_received_at + timedelta(seconds=circumstances.quiet_period_s)
    return min(quiet_at, clock.burst_started_at + timedelta(seconds=circumstances.max_wait_s))


def _overdue_at(clock: StudyClock | None, circumstances: Circumstances) -> datetime | None:
    return None if clock is None else clock.burst_started_at + timedelta(seconds=circumstances.max_wait_s)


def _incomplete(time_line: TimeLine, task: Task) -> dict[str, tuple[Series, ...]]:
    """Return study UID -> the series worth waiting for: not all there, and no complete one fills their role.

    Scanners leave aborted series behind that never become complete; where a repetition is complete, only an archive
    that holds more of the aborted one is a reason to wait.
    """
    found: dict[str, list[Series]] = {}
    for point in time_line.time_points:
        if point.kind in task.time_points.kinds:
            for series in (each for study in point.studies for each in study.series):
                if _worth_waiting_for(series, point, task):
                    found.setdefault(series.study_instance_uid, []).append(series)
    return {uid: tuple(series) for uid, series in found.items()}


def _worth_waiting_for(series: Series, point: TimePoint, task: Task) -> bool:
    role = series.verdict.role
    if series.incomplete is None or role is None or role not in task.roles.wanted:
        return False
    chosen = point.chosen.get(role)
    return chosen is None or chosen.incomplete is not None or series.incomplete.code == ARCHIVE_HOLDS_MORE


def _reasons(incomplete: Mapping[str, tuple[Series, ...]], uids: Iterable[str], what: str) -> tuple[Reason, ...]:
    found = sorted(
        {
            f"{each.verdict.role} on {each.acquired_on or 'an unknown day'}: {each.incomplete.text}, {what}"
            for uid in uids
            for each in incomplete[uid]
            if each.incomplete is not None
        }
    )
    return tuple(Reason(code="incomplete-series", text=text) for text in found)


def _without(time_line: TimeLine, incomplete: Mapping[str, tuple[Series, ...]]) -> TimeLine:
    """Leave every series of the incomplete studies out of the choice, each with its reason."""
    points = tuple(
        _discard(point, incomplete) if set(point.study_instance_uids) & set(incomplete) else point
        for point in time_line.time_points
    )
    return replace(time_line, time_points=points)


def _discard(point: TimePoint, incomplete: Mapping[str, tuple[Series, ...]]) -> TimePoint:
    reason = Reason(code="incomplete-study", text="its study stayed incomplete and was left out")
    studies = tuple(
        replace(study, series=tuple(each if each.excluded else each.leave_out(reason) for each in study.series))
        if study.study_instance_uid in incomplete
        else study
        for study in point.studies
    )
    chosen = {role: each for role, each in point.chosen.items() if each.study_instance_uid not in incomplete}
    return replace(point, studies=studies, chosen=chosen)
