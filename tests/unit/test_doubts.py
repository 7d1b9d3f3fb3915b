"""What speaks against an answer: told beside it or instead of it, as the bundle says; stored results are read back."""

from __future__ import annotations

import json
from datetime import date
from itertools import product

import numpy as np
import pytest

from inference.answer import age_flags, output
from inference.bundle_files import OutputDefinition
from inference.bundle_parts import Conformal, ConformalGroup, Rule
from inference.doubts import abstain, conformal_doubts, novelty_doubts, remarks
from inference.results import Abstention, AbstentionKind, Output, Result
from tests.factories.results import answer, no_answer

NEWEST = date(2026, 2, 20)


def conformal(**rules: Rule) -> Conformal:
    """Return sets in which an event is possible from 1 on, and none up to -1: neither in between."""
    group = ConformalGroup(n_scans=(4, 6), event_from=1.0, no_event_up_to=-1.0, n_events=40, n_others=160)
    return Conformal(coverage=0.9, groups=(group,), **rules)


def said(logit: float, sets: Conformal, n_scans: int = 4) -> Output:
    """Return the output of a lone member."""
    definition = OutputDefinition(name="recurrence_365d", meaning="recurrence", conformal=sets)
    return output(definition, np.array([logit]), n_scans=n_scans)


def test_a_strange_scan_is_the_reason_for_no_answer() -> None:
    """Named by its number among all scans of the time line, those left out counted."""
    doubts = novelty_doubts([0.5, 1.25, 0.95, 3.62], Rule.ABSTAIN, skipped=2)
    found = abstain(doubts)
    assert found is not None
    assert (found.kind, found.code) == (AbstentionKind.INDETERMINATE, "out-of-distribution")
    assert found.reason == "scans 4, 6 of 6: unlike the scans of the model's calibration (up to 3.62 times the limit)"
    assert remarks(doubts) == []


def test_a_strange_scan_is_a_remark_where_the_bundle_wants_no_more() -> None:
    """At its time point, beside the answer."""
    doubts = novelty_doubts([1.25, 1.0], Rule.FLAG, skipped=0)
    assert abstain(doubts) is None
    assert [(each.code, each.time_point) for each in remarks(doubts)] == [("out-of-distribution", 0)]


def test_a_distance_that_is_no_number_is_strange() -> None:
    """Features that are no numbers are like nothing that was seen."""
    assert abstain(novelty_doubts([float("nan")], Rule.ABSTAIN, skipped=0)) is not None


@pytest.mark.parametrize(
    ("logit", "possible"), [(-1.0, (False,)), (1.0, (True,)), (0.0, ())], ids=["no event", "event", "neither"]
)
def test_the_conformal_set_stands_in_the_output(logit: float, possible: tuple[bool, ...]) -> None:
    """With the share that it covers."""
    found = said(logit, conformal())
    assert (found.possible, found.coverage) == (possible, 0.9)
    assert len(conformal_doubts(found, conformal())) == (not possible)


def test_a_number_of_scans_that_no_group_speaks_for_has_no_set() -> None:
    """Nothing is promised, nothing is doubted."""
    found = said(0.0, conformal(), n_scans=2)
    assert (found.possible, found.coverage) == (None, None)
    assert conformal_doubts(found, conformal()) == []


@pytest.mark.parametrize(("both", "neither"), list(product(Rule, Rule)))
def test_the_bundle_says_what_becomes_of_both_and_of_neither(both: Rule, neither: Rule) -> None:
    """Each as a remark, or as no answer at all."""
    sets = conformal(both=both, neither=neither)
    told = {}
    for name, possible in (("both", (False, True)), ("neither", ())):
        primary = Output(name="x", probability=0.5, raw_probability=0.5, possible=possible, coverage=0.9)
        doubts = conformal_doubts(primary, sets)
        abstention = abstain(doubts)
        told[name] = abstention.reason if abstention else remarks(doubts)[0].message
        assert (abstention is not None) == ((both if name == "both" else neither) is Rule.ABSTAIN)
    assert told == {
        "both": "both answers are possible at 90 % coverage",
        "neither": "neither answer is likely at 90 % coverage",
    }


def test_each_number_of_scans_is_calibrated_as_its_group_says() -> None:
    """The raw probability stays what it was."""
    group = {"n_scans": (1, 1), "slope": 0.0, "intercept": 0.0, "n_patients": 9, "n_events": 3}
    definition = OutputDefinition.model_validate({"name": "x", "meaning": "x", "calibration": {"groups": [group]}})
    single, many = (output(definition, np.array([2.0, 2.2]), n_scans=each) for each in (1, 4))
    assert (single.probability, single.lower, single.upper) == (0.5, 0.5, 0.5)
    assert single.raw_probability == many.raw_probability == many.probability > 0.85


@pytest.mark.parametrize(("asked_on", "flagged"), [(None, 0), (date(2026, 8, 20), 0), (date(2027, 8, 20), 1)])
def test_a_newest_scan_older_than_any_gap_the_model_saw_is_flagged(asked_on: date | None, flagged: int) -> None:
    """A visit is overdue, or is not here."""
    flags = age_flags(NEWEST, asked_on, (30, 400))
    assert [each.code for each in flags] == ["newest-scan-old"] * flagged
    assert all("546 days old" in each.message for each in flags)


def test_results_of_before_there_were_sets_and_codes_are_read() -> None:
    """A ledger keeps them for years."""
    for result in (answer(), no_answer()):
        content = json.loads(result.to_json())
        del content["novelty"]
        for each in content["outputs"]:
            del each["possible"], each["coverage"]
        if content["abstention"]:
            del content["abstention"]["code"]
        assert Result.from_json(json.dumps(content)) == result


def test_sets_novelty_and_codes_are_read_back() -> None:
    """As they were frozen, tuples and all."""
    told = Output(name="x", probability=0.5, raw_probability=0.5, possible=(False, True), coverage=0.9)
    card = answer().model
    result = Result(task="t", model=card, horizon_days=365, outputs=(told,), novelty=(0.5, 1.25))
    assert Result.from_json(result.to_json()) == result
    abstention = Abstention(kind=AbstentionKind.INDETERMINATE, reason="why", code="out-of-distribution")
    result = Result(task="t", model=card, horizon_days=365, outputs=(), abstention=abstention)
    assert Result.from_json(result.to_json()) == result
