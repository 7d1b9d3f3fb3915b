"""From the series of a study to exams with a day: almost always one, several where a study holds scans of days apart.

An exam that goes on past midnight is of the day it began. But archives also file scans of another day under one Study
Instance UID: a copy of an older exam for comparison, or tomorrow's control. What was acquired on days apart is never
one time point, so each part stands on its own day.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.model import Study
from dicom_node.timeline.series import acquired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.timeline.model import Series

NIGHT: Final = timedelta(days=1)
LONGEST_PAUSE: Final = timedelta(hours=12)  # within an exam across midnight
WEAK: Final = frozenset({"SeriesDate", "StudyDate"})  # typed or defaulted, often on another day than the scan


def exams_of(study_instance_uid: str, series: Sequence[Series]) -> list[Study]:
    """Part the series of one study by the days of those that can be used; the rest goes with the nearest of them.

    A series without a day of acquisition goes with the newest, for copies are older.
    """
    usable = [each for each in series if each.excluded is None and _is_dated(each)]
    firsts = _first_days(usable)
    parts: dict[date | None, list[Series]] = {}
    for each in series:
        parts.setdefault(_nearest(each, firsts), []).append(each)
    exams = []
    for part in parts.values():
        day, clock = _day_of(part)
        exams.append(
            Study(study_instance_uid=study_instance_uid, series=tuple(part), acquired_on=day, acquired_time=clock)
        )
    return exams


def _is_dated(series: Series) -> bool:
    return series.acquired_on is not None and series.acquired_from not in WEAK


def _first_days(usable: Sequence[Series]) -> list[date]:
    """Return the day each exam began, oldest first; a calendar day is never parted."""
    times: dict[date, list[time | None]] = defaultdict(list)
    for each in usable:
        if each.acquired_on is not None:
            times[each.acquired_on].append(each.acquired_time)
    firsts: list[date] = []
    for day in sorted(times):
        eve = day - NIGHT
        if not (firsts and firsts[-1] == eve and _goes_on(times[eve], times[day])):
            firsts.append(day)
    return firsts


def _goes_on(evening: Sequence[time | None], morning: Sequence[time | None]) -> bool:
    """Tell whether an exam may go on past midnight: there is no long pause, or times are not told."""
    told = [each for each in evening if each is not None], [each for each in morning if each is not None]
    if not (told[0] and told[1]):
        return True
    pause = datetime.combine(date.min + NIGHT, min(told[1])) - datetime.combine(date.min, max(told[0]))
    return pause <= LONGEST_PAUSE


def _nearest(series: Series, firsts: Sequence[date]) -> date | None:
    """Return the beginning of the exam that a series belongs to, None where no series of the study tells a day."""
    if not firsts:
        return None
    day = series.acquired_on
    if day is None or not _is_dated(series):
        return firsts[-1]
    begun = [first for first in firsts if first <= day]
    if begun and series.excluded is None:
        return begun[-1]
    return min(firsts, key=lambda first: (abs(first - day), first))


def _day_of(series: Sequence[Series]) -> tuple[date | None, time | None]:
    """Return the day an exam began.

    What was made from an older exam's images may be filed with it, so what was acquired more than a day before the
    earliest usable series does not count.
    """
    told = [instance for each in series for instance in each.instances]
    usable = [instance for each in series if each.excluded is None for instance in each.instances]
    day, clock, _ = acquired(usable or told)
    if day is None:
        return None, None
    near = [each for each in told if each.acquired_on is not None and each.acquired_on >= day - NIGHT]
    day, clock, _ = acquired(near)
    return day, clock
