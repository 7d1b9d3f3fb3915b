"""Lay a patient's history out in time: as the scanner made it, or shuffled, so that any order can be tried."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from dicom_node.timeline.history import Arrived, CohortChanged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dicom_node.timeline.history import Event, History
    from dicom_node.timeline.model import InstanceFacts

Piece: TypeAlias = "list[Event]"  # what comes in one association, or one other event
MOMENT: Final = timedelta(seconds=1)
NO_DATE_AT_ALL: Final = datetime(2000, 1, 1, tzinfo=UTC)


def as_acquired(instances: Iterable[InstanceFacts]) -> tuple[Arrived, ...]:
    """Let every study arrive when its last image was acquired (the scanner's clock read as UTC), series by series.

    Studies without a date come last.
    """
    studies: dict[str, list[InstanceFacts]] = defaultdict(list)
    for each in instances:
        studies[each.study_instance_uid].append(each)
    moments = {uid: _acquired(found) for uid, found in studies.items()}
    newest = max((at for at in moments.values() if at is not None), default=NO_DATE_AT_ALL)
    arrived = []
    for uid in sorted(studies):
        at = moments[uid] or newest + timedelta(days=1)
        for number, series in enumerate(_series(studies[uid])):
            arrived += [Arrived(at=at + number * MOMENT, facts=each) for each in series]
    return tuple(sorted(arrived, key=lambda each: (each.at, each.facts.sop_instance_uid)))


def shuffle(history: History, seed: int, *, pause: timedelta) -> History:
    """Return the same history in another order, from its last event on; the same seed gives the same order.

    Every series comes in two parts, all parts and all other events in any order; between two of them lies a moment or
    a `pause`. Only the changes of the cohort stay in order, for the last of them counts.
    """
    rng = random.Random(seed)  # noqa: S311 - an order to try, no secret
    pieces = _pieces(history.events, rng)
    rng.shuffle(pieces)
    _put_cohort_in_order(pieces)
    at = last_event(history)
    events: list[Event] = []
    for piece in pieces:
        at += rng.choice((MOMENT, pause))
        events += [replace(each, at=at) for each in piece]
    return replace(history, events=tuple(events))


def settled_at(history: History, *, pause: timedelta, patience: timedelta) -> datetime:
    """Return when everything is over, whether a history is shuffled or not, and the cohort's last day has come."""
    series = {each.facts.series_instance_uid for each in history.events if isinstance(each, Arrived)}
    parts = 2 * len(series) + sum(not isinstance(each, Arrived) for each in history.events)
    days = [event.on for event in history.cohort.events]
    days += [event.on for each in history.events if isinstance(each, CohortChanged) for event in each.cohort.events]
    ends = [datetime.combine(day, time(), tzinfo=UTC) + timedelta(days=1) for day in days]
    return max([last_event(history) + parts * pause + patience + MOMENT, *ends])


def last_event(history: History) -> datetime:
    """Return when the last thing happened."""
    return max((each.at for each in history.events), default=NO_DATE_AT_ALL)


def _acquired(instances: Sequence[InstanceFacts]) -> datetime | None:
    """Return when the last image of a study was acquired; where no time is known, the start of the day."""
    known = [
        datetime.combine(each.acquired_on, each.acquired_time or time(), tzinfo=UTC)
        for each in instances
        if each.acquired_on is not None
    ]
    return max(known, default=None)


def _series(instances: Iterable[InstanceFacts]) -> list[list[InstanceFacts]]:
    """Group instances by series, in order of UID."""
    found: dict[str, list[InstanceFacts]] = defaultdict(list)
    for each in instances:
        found[each.series_instance_uid].append(each)
    return [sorted(found[uid], key=lambda each: each.sop_instance_uid) for uid in sorted(found)]


def _pieces(events: Iterable[Event], rng: random.Random) -> list[Piece]:
    """Cut every series into two, at any place, in any order of its instances; every other event stands alone."""
    pieces: list[Piece] = []
    series: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=_stable):
        if isinstance(event, Arrived):
            series[event.facts.series_instance_uid].append(event)
        else:
            pieces.append([event])
    for uid in sorted(series):
        arrived = series[uid]
        rng.shuffle(arrived)
        cut = rng.randint(0, len(arrived))
        pieces += [part for part in (arrived[:cut], arrived[cut:]) if part]
    return pieces


def _stable(event: Event) -> tuple[datetime, str]:
    return event.at, event.facts.sop_instance_uid if isinstance(event, Arrived) else ""


def _put_cohort_in_order(pieces: list[Piece]) -> None:
    """Swap the changes of the cohort among their places, so that the earlier comes first."""
    places = [number for number, piece in enumerate(pieces) if isinstance(piece[0], CohortChanged)]
    in_order = sorted((pieces[number] for number in places), key=lambda piece: piece[0].at)
    for number, piece in zip(places, in_order, strict=True):
        pieces[number] = piece
