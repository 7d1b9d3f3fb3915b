"""Who is trained on and who is locked away: whatever patients there are, nobody is on both sides."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inference.training.splits import (
    Member,
    SplitError,
    SplitPlan,
    one_sided,
    part_names,
    read_split,
    split,
    write_split,
)

MEMBERS = st.lists(
    st.builds(
        Member,
        patient=st.text(min_size=1, max_size=4),
        label=st.sampled_from([1, 0, -1]),
        site=st.sampled_from(["north", "south", "east"]),
        newest=st.integers(0, 40).map(lambda days: date(2020, 1, 1) + timedelta(days=days)),
    ),
    min_size=12,
    max_size=60,
    unique_by=lambda each: each.patient,
)
PLANS = st.builds(
    SplitPlan,
    seed=st.integers(0, 5),
    test_by=st.sampled_from(["patient", "site", "date"]),
    test=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    calibration=st.sampled_from([0.0, 0.1, 0.25]),
    folds=st.integers(2, 4),
)


def some(count: int, events: int) -> list[Member]:
    """Return patients of three sites, one a day, the first of them with the event."""
    return [
        Member(
            patient=f"p{number:03d}",
            label=int(number < events),
            site=("north", "south", "east")[number % 3],
            newest=date(2020, 1, 1) + timedelta(days=number),
        )
        for number in range(count)
    ]


@settings(deadline=None)
@given(MEMBERS, PLANS)
def test_nobody_is_in_two_parts_and_everybody_is_in_one(members: list[Member], plan: SplitPlan) -> None:
    """Whole sites are locked away, or the latest patients; the order in which patients come changes nothing."""
    try:
        drawn = split(members, plan)
    except SplitError:
        assume(False)  # too few sites, days or patients for this plan: refused, not bent
        return
    places = drawn.places([each.patient for each in members])
    assert sorted(np.concatenate(list(places.values())).tolist()) == list(range(len(members)))
    assert tuple(places) == part_names(plan)
    test = {members[place].patient for place in places["test"]}
    inside = [each for each in members if each.patient in test]
    outside = [each for each in members if each.patient not in test]
    if plan.test_by == "site":
        assert not {each.site for each in inside} & {each.site for each in outside}
    if plan.test_by == "date" and inside:
        assert max(each.newest for each in outside) < min(each.newest for each in inside)
    folds = [len(places[name]) for name in part_names(plan)[2:]]
    assert max(folds) - min(folds) <= 1
    assert split(members[::-1], plan) == drawn


def test_parts_have_the_size_and_the_share_of_events_asked_for() -> None:
    """200 patients, a fifth with the event: every part has its fifth."""
    members = some(200, 40)
    drawn = split(members, SplitPlan(test=0.2, calibration=0.1, folds=5))
    assert Counter(drawn.parts.values()) == {"test": 40, "calibration": 20} | {f"fold-{fold}": 28 for fold in range(5)}
    events = Counter(drawn.parts[each.patient] for each in members if each.label)
    assert (events["test"], events["calibration"]) == (8, 4)
    assert {events[f"fold-{fold}"] for fold in range(5)} <= {5, 6}


def test_calibration_keeps_its_share_of_all_where_whole_sites_take_more_than_planned() -> None:
    """Two sites of a hundred each: the test takes one of them, calibration a tenth of all two hundred."""
    members = [replace(each, site=("north", "south")[number % 2]) for number, each in enumerate(some(200, 60))]
    drawn = split(members, SplitPlan(test_by="site", test=0.2, calibration=0.1))
    parts = Counter(drawn.parts.values())
    assert (parts["test"], parts["calibration"]) == (100, 20)


def test_parts_without_an_event_are_named_with_what_they_break() -> None:
    """Three events cannot serve seven parts; sixty can, and where no outcome is known there is nothing to say."""
    few, many = some(30, 3), some(200, 60)
    told = one_sided(few, split(few, SplitPlan()))
    assert len(told) >= 4
    assert any("found 0 with" in each and "no score to choose by" in each for each in told)
    assert one_sided(many, split(many, SplitPlan())) == ()
    unknown = [replace(each, label=-1) for each in few]
    assert one_sided(unknown, split(unknown, SplitPlan())) == ()


def test_another_seed_draws_other_parts() -> None:
    """And the same seed the same."""
    members = some(60, 20)
    assert split(members, SplitPlan(seed=1)) == split(members, SplitPlan(seed=1))
    assert split(members, SplitPlan(seed=1)).parts != split(members, SplitPlan(seed=2)).parts


def test_the_test_s_sites_may_be_named() -> None:
    """An external test is chosen by people, not drawn."""
    drawn = split(some(60, 20), SplitPlan(test_by="site", test_sites=("east",)))
    assert Counter(drawn.parts.values())["test"] == 20
    with pytest.raises(SplitError, match="expected some of east, north, south, found west"):
        split(some(60, 20), SplitPlan(test_by="site", test_sites=("west",)))


@pytest.mark.parametrize(
    ("members", "plan", "reason"),
    [
        (some(10, 2) + some(1, 0), SplitPlan(), "every patient once, found 1 more often"),
        (some(5, 2), SplitPlan(folds=5), "at least a patient for each of 5 folds"),
        ([replace(some(1, 0)[0], site="")], SplitPlan(test_by="site"), "found none for 1"),
        (some(30, 3)[::3], SplitPlan(test_by="site"), "at least two sites, found 1"),
        (
            [replace(each, newest=date(2020, 1, 1)) for each in some(20, 4)],
            SplitPlan(test_by="date"),
            "one day for all",
        ),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(members: list[Member], plan: SplitPlan, reason: str) -> None:
    """Never bent silently."""
    with pytest.raises(SplitError, match=reason):
        split(members, plan)


@pytest.mark.parametrize("wrong", [{"test": 0.6, "calibration": 0.4}, {"test_sites": ["east"]}, {"folds": 1}])
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    """Nobody left to train on, sites under another rule, one fold."""
    with pytest.raises(ValidationError):
        SplitPlan.model_validate(wrong)


def test_a_split_comes_back_from_its_file_and_an_edited_one_does_not(tmp_path: Path) -> None:
    """Whoever moves a patient out of the locked test by hand is told."""
    drawn = split(some(60, 20), SplitPlan())
    path = tmp_path / "split.json"
    write_split(path, drawn)
    assert read_split(path) == drawn
    content = json.loads(path.read_text())
    moved = next(patient for patient, part in content["parts"].items() if part == "test")
    content["parts"][moved] = "fold-0"
    path.write_text(json.dumps(content))
    with pytest.raises(SplitError, match="the file was edited after it was drawn"):
        read_split(path)
    content["parts"][moved] = "training"
    path.write_text(json.dumps(content))
    with pytest.raises(SplitError, match="found training"):
        read_split(path)
    with pytest.raises(SplitError, match="expected a split"):
        read_split(tmp_path / "gone.json")


def test_a_patient_without_a_part_is_noticed() -> None:
    """A cohort that grew after the split was drawn is not trained on by accident."""
    with pytest.raises(SplitError, match="found none for 1"):
        split(some(60, 20), SplitPlan()).places(["p000", "stranger"])
