"""Thinning a history keeps its ends, its order and the gaps, whatever the days are."""

from __future__ import annotations

import random
from datetime import date, timedelta
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.choose import choose_time_points
from inference.thin import thin_evenly
from tests.factories.facts import SELECTION, a_cohort, a_task, follow_ups

START = date(2025, 2, 1)
DAYS = st.lists(st.integers(0, 2000), min_size=1, max_size=30).map(
    lambda offsets: [START + timedelta(days=offset) for offset in sorted(offsets)]
)
FEW_DAYS = st.lists(st.integers(0, 300), min_size=1, max_size=9).map(
    lambda offsets: [START + timedelta(days=offset) for offset in sorted(offsets)]
)


def _gaps(days):
    return [(after - before).days for before, after in pairwise(days)]


@settings(max_examples=150, deadline=None)
@given(days=DAYS, maximum=st.integers(1, 8))
def test_without_gap_limits_the_ends_stay_and_the_count_is_full(days, maximum) -> None:
    """A subset in order, as many as allowed, with the oldest and the newest."""
    kept = thin_evenly(days, maximum=maximum)
    assert list(kept) == sorted(set(kept))
    assert len(kept) == min(maximum, len(days))
    assert kept[-1] == len(days) - 1
    if maximum > 1:
        assert kept[0] == 0


@settings(max_examples=150, deadline=None)
@given(
    days=DAYS,
    maximum=st.integers(1, 6),
    min_gap_days=st.integers(0, 120),
    longer_days=st.none() | st.integers(0, 700),
)
def test_every_gap_of_the_days_kept_is_within_the_limits(days, maximum, min_gap_days, longer_days) -> None:
    """The newest stays whatever the limits are."""
    limit = None if longer_days is None else min_gap_days + longer_days
    kept = thin_evenly(days, maximum=maximum, min_gap_days=min_gap_days, max_gap_days=limit)
    assert kept[-1] == len(days) - 1
    assert len(kept) <= maximum
    for gap in _gaps([days[position] for position in kept]):
        assert min_gap_days <= gap <= (limit if limit is not None else gap)


@settings(max_examples=100, deadline=None)
@given(days=FEW_DAYS, maximum=st.integers(1, 5), min_gap_days=st.integers(0, 60))
def test_no_other_choice_is_better(days, maximum, min_gap_days) -> None:
    """Against every subset: the oldest first, then the most, then the most even."""

    def rank(kept):
        squares = sum(gap**2 for gap in _gaps([days[position] for position in kept]))
        return kept[0], -len(kept), squares

    allowed = [
        (*older, len(days) - 1)
        for count in range(maximum)
        for older in combinations(range(len(days) - 1), count)
        if all(gap >= min_gap_days for gap in _gaps([days[position] for position in (*older, len(days) - 1)]))
    ]
    kept = thin_evenly(days, maximum=maximum, min_gap_days=min_gap_days)
    assert rank(kept) == min(rank(each) for each in allowed)


def test_yearly_scans_are_thinned_to_every_second() -> None:
    """Hand-computable: of eleven equal steps, six stay two steps apart."""
    days = [START + timedelta(days=100 * number) for number in range(11)]
    assert thin_evenly(days, maximum=6) == (0, 2, 4, 6, 8, 10)
    assert thin_evenly([], maximum=6) == ()


@settings(max_examples=100, deadline=None)
@given(days=FEW_DAYS, maximum=st.integers(1, 5), min_gap_days=st.integers(0, 60), longer_days=st.integers(0, 100))
def test_reaching_back_never_costs_scans(days, maximum, min_gap_days, longer_days) -> None:
    """No allowed choice, however recent, has more days than the one kept."""
    limit = min_gap_days + longer_days
    most = max(
        count + 1
        for count in range(maximum)
        for older in combinations(range(len(days) - 1), count)
        if all(min_gap_days <= gap <= limit for gap in _gaps([days[each] for each in (*older, len(days) - 1)]))
    )
    assert len(thin_evenly(days, maximum=maximum, min_gap_days=min_gap_days, max_gap_days=limit)) == most


@settings(max_examples=15, deadline=None)
@given(seed=st.integers())
def test_the_choice_does_not_depend_on_the_order_of_arrival(seed) -> None:
    """Through the time line: nine follow-ups shuffled, the same five, and a reason for each of the others."""
    days = [START + timedelta(days=60 + offset) for offset in (0, 5, 40, 80, 200, 230, 300, 370, 400)]
    task = a_task(time_points={"choose": "spread", "maximum": 5}, gates={"max_gap_days": None})
    instances = follow_ups(*days, slices=18)
    random.Random(seed).shuffle(instances)
    line = build_time_line(instances, selection=SELECTION, task=task, cohort=a_cohort())
    choice = choose_time_points(line, task, a_cohort(), date(2026, 6, 1))
    assert [point.acquired_on for point in choice.points] == [days[each] for each in (0, 3, 4, 6, 8)]
    assert [each.reason.code for each in choice.left_out] == ["too-near", "thinned", "thinned", "thinned"]
