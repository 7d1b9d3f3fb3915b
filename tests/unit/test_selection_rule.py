"""The rule by which scans are chosen, in hand-made histories and in any; the node and training go by this one."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inference.selection import Candidate, Code, SelectionRule, Verdict, select

START = date(2025, 1, 1)
RULE = SelectionRule(roles=("FLAIR",), kinds=("follow-up",), maximum=6)


def scan(day: int, kind: str = "follow-up", *roles: str) -> Candidate:
    """Return a scan on a day counted from the start, with a FLAIR unless roles are named."""
    return Candidate(day=START + timedelta(days=day), kind=kind, roles=frozenset(roles or ("FLAIR",)))


def codes(days: list[int], event: int | None = None, **changes: object) -> list[str]:
    """Return what becomes of follow-ups on these days."""
    rule = SelectionRule.model_validate({**RULE.model_dump(), **changes})
    ends = None if event is None else START + timedelta(days=event)
    return [verdict.code.value for verdict in select([scan(day) for day in days], rule, event=ends)]


def test_the_newest_are_kept_and_the_others_are_older() -> None:
    """Hand-countable: of four, the last two."""
    assert codes([0, 100, 200, 300], maximum=2) == ["older", "older", "kept", "kept"]
    assert codes([0, 100, 200, 300], maximum=None) == ["kept"] * 4
    assert codes([]) == []


def test_scans_on_the_day_of_the_event_or_later_are_never_kept() -> None:
    """They show it already; the newest are counted from before it."""
    assert codes([0, 100, 200, 201], event=200, maximum=1) == ["older", "kept", "after-event", "after-event"]


def test_a_scan_of_another_kind_or_without_a_role_does_not_count() -> None:
    """The first ground that holds is told: the event before the kind, the kind before the role."""
    rule = SelectionRule(roles=("FLAIR", "T1"), kinds=("follow-up",), maximum=6)
    scans = [
        scan(0, "pre-op"),
        scan(50, "follow-up", "T1c"),
        scan(100, "follow-up", "T1", "FLAIR"),
        scan(200, "pre-op"),
    ]
    found = select(scans, rule, event=START + timedelta(days=150))
    assert [verdict.code for verdict in found] == [Code.KIND, Code.MISSING_ROLE, Code.KEPT, Code.AFTER_EVENT]
    assert found[1].missing == ("FLAIR", "T1")


def test_no_kinds_and_no_roles_let_every_scan_count() -> None:
    """As where scans were chosen before."""
    assert [each.kept for each in select([scan(0, "pre-op"), scan(1, "")], SelectionRule(), event=None)] == [True] * 2


def test_of_two_scans_too_near_the_newer_is_kept_and_the_gap_is_told() -> None:
    """The gap is counted to the scan that is kept, not to the one left out."""
    rule = SelectionRule(maximum=6, min_gap_days=30)
    found = select([scan(0), scan(75), scan(90), scan(100)], rule, event=None)
    assert [(each.code.value, each.gap_days) for each in found] == [
        ("kept", None),
        ("too-near", 25),
        ("too-near", 10),
        ("kept", None),
    ]


def test_nothing_before_a_gap_that_is_too_long_is_kept() -> None:
    """Every scan before it is told the same gap."""
    found = select([scan(0), scan(10), scan(400), scan(500)], SelectionRule(max_gap_days=365), event=None)
    assert found[:2] == (Verdict(code=Code.BEFORE_GAP, gap_days=390),) * 2
    assert [each.kept for each in found[2:]] == [True, True]


def test_a_spread_keeps_the_ends_and_tells_why_each_other_falls_out() -> None:
    """Eleven equal steps, six kept two apart; near ones are near, and what no chain reaches lies before a gap."""
    assert codes([100 * number for number in range(11)], choose="spread") == [
        "thinned" if number % 2 else "kept" for number in range(11)
    ]
    assert codes([0, 190, 200], choose="spread", min_gap_days=30, maximum=3) == ["kept", "too-near", "kept"]
    assert codes([0, 500, 600], choose="spread", max_gap_days=200) == ["before-gap", "kept", "kept"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"maximum": 0}, "maximum"),
        ({"choose": "spread", "maximum": 1}, "expected a maximum of 2 or more, found 1"),
        ({"min_gap_days": 30, "max_gap_days": 20}, r"expected at least min_gap_days \(30\), found 20"),
        ({"newest": 6}, "newest"),
        ({"choose": "first"}, "choose"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(changes: dict[str, object], complaint: str) -> None:
    """It enters from a bundle's JSON."""
    with pytest.raises(ValidationError, match=complaint):
        SelectionRule.model_validate({**RULE.model_dump(), **changes})


def test_a_rule_survives_json() -> None:
    """As a bundle keeps it."""
    rule = SelectionRule(roles=("FLAIR",), kinds=("follow-up", "unknown"), maximum=4, choose="spread", max_gap_days=548)
    assert SelectionRule.model_validate_json(rule.model_dump_json()) == rule


SCANS = st.lists(
    st.builds(scan, st.integers(0, 900), st.sampled_from(["follow-up", "pre-op"]), st.sampled_from(["FLAIR", "T1"])),
    max_size=14,
).map(lambda scans: sorted(scans, key=lambda each: each.day))
RULES = st.builds(
    lambda longer, **changes: SelectionRule(
        roles=("FLAIR",),
        kinds=("follow-up",),
        max_gap_days=None if longer is None else changes["min_gap_days"] + longer,
        **changes,
    ),
    longer=st.none() | st.integers(0, 400),
    maximum=st.none() | st.integers(2, 6),
    choose=st.sampled_from(["last", "spread"]),
    min_gap_days=st.integers(0, 60),
)
EVENTS = st.none() | st.integers(0, 900).map(lambda day: START + timedelta(days=day))


@settings(deadline=None)
@given(SCANS, RULES, EVENTS)
def test_whatever_the_history_what_is_kept_keeps_the_rule(
    scans: list[Candidate], rule: SelectionRule, event: date | None
) -> None:
    """Kind, role, event, number and gaps hold; the newest scan that counts is always kept."""
    found = select(scans, rule, event=event)
    assert len(found) == len(scans)
    kept = [each for each, verdict in zip(scans, found, strict=True) if verdict.kept]
    counting = [
        each
        for each in scans
        if each.kind == "follow-up" and "FLAIR" in each.roles and (event is None or each.day < event)
    ]
    assert all(each in counting for each in kept)
    assert len(kept) <= (rule.maximum or len(scans))
    assert bool(kept) == bool(counting)
    assert not kept or kept[-1].day == counting[-1].day
    for older, newer in pairwise(kept):
        gap_days = (newer.day - older.day).days
        assert rule.min_gap_days <= gap_days <= (gap_days if rule.max_gap_days is None else rule.max_gap_days)


@settings(deadline=None)
@given(SCANS, RULES, EVENTS)
def test_choosing_among_what_was_chosen_changes_nothing(
    scans: list[Candidate], rule: SelectionRule, event: date | None
) -> None:
    """So a cohort that was chosen once may go through the rule again."""
    kept = [each for each, verdict in zip(scans, select(scans, rule, event=event), strict=True) if verdict.kept]
    assert all(verdict.kept for verdict in select(kept, rule, event=event))


def test_the_rule_needs_neither_torch_nor_numpy() -> None:
    """A listener that loads it stays small."""
    code = "import sys, inference.selection; sys.exit(bool({'torch', 'numpy', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
