"""A patient as seen at fixed times: what a model would have been shown one, two, three years after the first scan.

Source: landmark evaluation of the group behind Tak et al., NEJM AI 2025 (repository LongitudinalEFS), re-implemented
from its description: scans up to first + 365 t days, thinned to six with the first and the last kept, and the label
that holds at the newest of them. They are thinned evenly in time, as the node does (`choose: spread`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from inference.selection import Candidate, SelectionRule, select
from inference.training.cohort import MAX_SCANS, Cohort
from inference.training.labels import HORIZON_DAYS, label_at

if TYPE_CHECKING:
    from collections.abc import Sequence

YEAR_DAYS = 365
_ORIGIN: Final = date(2000, 1, 1)  # any: only differences count


@dataclass(frozen=True, slots=True, kw_only=True)
class LandmarkRow:
    """One row of a landmark evaluation: the scans shown (places, oldest first) and the label at the newest of them."""

    year: int
    places: tuple[int, ...]
    label: bool


def landmark_rows(
    days: Sequence[int],
    *,
    event_day: float | None,
    follow_up_day: float,
    min_scans: int = 2,
    max_scans: int = MAX_SCANS,
    horizon_days: int = HORIZON_DAYS,
) -> list[LandmarkRow]:
    """Return the rows of one patient, a year apart; where the label is not known there is none.

    A year in which no scan was added repeats the row before it, and is left out.

    Args:
        days: of the scans, ascending; all days count from one origin. Scans on or after the event are never shown.
        event_day: of the first event, None where none was observed.
        follow_up_day: last day known to be free of an event, or later than the event.
        min_scans: fewer than these make no row.
        max_scans: more than these are thinned.
        horizon_days: how far the question reaches.
    """
    scans = [Candidate(day=_day(day - days[0])) for day in days]
    event = _day(math.ceil(event_day) - days[0]) if days and event_day is not None else None
    before_event = sum(each.kept for each in select(scans, SelectionRule(), event=event))
    rule = SelectionRule(maximum=max_scans, choose="spread")
    rows: list[LandmarkRow] = []
    before = 0
    for year in range(1, 2 + (days[before_event - 1] - days[0]) // YEAR_DAYS if before_event else 1):
        count = sum(day <= days[0] + YEAR_DAYS * year for day in days[:before_event])
        if count == before or count < min_scans:
            continue
        before = count
        newest = days[count - 1]
        label = label_at(newest, event_day=event_day, follow_up_day=follow_up_day, horizon_days=horizon_days)
        if label is not None:
            shown = [place for place, each in enumerate(select(scans[:count], rule, event=event)) if each.kept]
            rows.append(LandmarkRow(year=year, places=tuple(shown), label=label))
    return rows


def _day(number: int) -> date:
    """Return a day that lies so many days after some origin: the rule counts in dates."""
    return _ORIGIN + timedelta(days=number)


def cohort_landmarks(cohort: Cohort, patient: int, *, min_scans: int = 2) -> list[LandmarkRow]:
    """Return the landmark rows of a cohort's patient; places count the patient's scans, oldest = 0.

    The cohort should hold all scans of its patients, not the newest six only.
    """
    event = float(cohort.event_days[patient])
    return landmark_rows(
        [int(cohort.days[scan]) for scan in cohort.scans(patient)],
        event_day=None if math.isnan(event) else event,
        follow_up_day=float(cohort.follow_up_days[patient]),
        min_scans=min_scans,
    )
