"""Which scans a model is shown and which label they get, by examples that can be counted on fingers, and by any."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.training.cohort_table import TablePatient, TableScan
from inference.training.eligibility import Ground, Rule, choose, choose_all
from inference.training.exclusions import account, write_exclusions
from inference.training.landmarks import cohort_landmarks, landmark_rows
from tests.factories.cohorts import cohort_of

SURGERY = date(2020, 1, 1)
RULE = Rule(role="FLAIR")


def day(number: int) -> date:
    """Return a day counted from surgery."""
    return SURGERY + timedelta(days=number)


def patient(days: list[int], *, event: int | None = None, until: int, surgery: bool = True, role: str = "FLAIR"):
    """Return a patient with scans on days after surgery, an event, and the end of follow-up."""
    scans = [
        TableScan(line=line, acquired=day(each), series={role: Path(str(each))}) for line, each in enumerate(days, 2)
    ]
    return TablePatient(
        patient="P",
        scans=tuple(scans),
        surgery=SURGERY if surgery else None,
        event=None if event is None else day(event),
        last_follow_up=day(until),
    )


def shown(each: TablePatient, rule: Rule = RULE) -> list[int]:
    """Return the days of the scans shown."""
    return [(each.scans[place].acquired - SURGERY).days for place in choose(each, rule).shown]


def test_scans_before_and_soon_after_surgery_are_not_shown() -> None:
    """Day 4 is the first follow-up, as the node counts where it knows no time; `post-op` begins on day 2."""
    each = patient([-30, 0, 1, 2, 3, 4, 90], until=900)
    assert choose(each, RULE).grounds == (Ground.BEFORE_SURGERY, *[Ground.EARLY_POST_OP] * 4, None, None)
    grounds = choose(each, Rule(role="FLAIR", kind="post-op")).grounds
    assert grounds == (Ground.BEFORE_SURGERY, Ground.EARLY_POST_OP, Ground.EARLY_POST_OP, *[None] * 4)


def test_scans_on_or_after_the_event_are_never_shown() -> None:
    """The day of the event shows it already."""
    each = patient([90, 180, 270, 271, 400], event=271, until=900)
    assert shown(each) == [90, 180, 270]
    assert choose(each, RULE).label is True
    assert choose(each, RULE).grounds[3:] == (Ground.ON_OR_AFTER_EVENT,) * 2


@pytest.mark.parametrize(("event", "label"), [(180 + 365, True), (180 + 366, False)])
def test_an_event_counts_within_365_days_of_the_newest_scan(event: int, label: bool) -> None:
    """The last day counts."""
    assert choose(patient([90, 180], event=event, until=event), RULE).label is label


def test_a_censored_patient_is_looked_at_from_the_newest_scan_with_a_year_behind_it() -> None:
    """365 days of follow-up are enough, 364 are not."""
    each = patient([90, 180, 270, 360], until=270 + 365)
    assert (shown(each), choose(each, RULE).label) == ([90, 180, 270], False)
    assert choose(each, RULE).grounds[-1] is Ground.LABEL_UNKNOWN
    assert shown(patient([90, 180, 270, 360], until=270 + 364)) == [90, 180]


@pytest.mark.parametrize(
    ("each", "reason"),
    [
        (patient([90, 180], until=100 + 365), "censored: fewer than 2 scans with 365 days of follow-up"),
        (patient([90, 180], until=200), "censored: no scan with 365 days of follow-up"),
        (patient([-10, 2, 90], until=900), "fewer than 2 usable scans"),
        (patient([90, 180], until=900, surgery=False), "no surgery date"),
        (patient([90, 180], until=900, role="T1"), "no FLAIR"),
    ],
)
def test_whoever_is_excluded_has_a_reason(each: TablePatient, reason: str) -> None:
    """And none of the scans is shown."""
    chosen = choose(each, RULE)
    assert (chosen.excluded, chosen.shown, chosen.label) == (reason, (), None)


def test_the_newest_six_are_shown_counted_back_from_the_anchor() -> None:
    """Older ones are left out, not the other way round; all of them stay where landmark rows are wanted."""
    each = patient([30 * number for number in range(1, 10)], until=240 + 365)
    assert shown(each) == [90, 120, 150, 180, 210, 240]
    assert shown(each, Rule(role="FLAIR", max_scans=None)) == [30, 60, 90, 120, 150, 180, 210, 240]


def test_gaps_are_kept_as_the_node_keeps_them() -> None:
    """Of two near scans the newer, nothing before a long gap, and a patient without enough scans left is out."""
    rule = Rule(role="FLAIR", min_gap_days=14, max_gap_days=365)
    each = patient([90, 600, 700, 710], until=2000)
    assert choose(each, rule).grounds == (Ground.BEFORE_GAP, None, Ground.TOO_NEAR, None)
    chosen = choose(patient([700, 710], until=2000), rule)
    assert (chosen.excluded, chosen.shown) == ("fewer than 2 scans within the gaps", ())


def test_scans_may_be_spread_over_the_history() -> None:
    """As a task with `choose: spread` asks; the others are thinned out."""
    each = patient([100, 200, 300, 400], until=2000)
    assert choose(each, Rule(role="FLAIR", max_scans=2, choose="spread")).grounds == (None, *[Ground.THINNED] * 2, None)


def test_without_a_surgery_date_all_scans_count_if_asked() -> None:
    """The operator says so; the table cannot."""
    each = patient([-30, 0, 90], until=900, surgery=False)
    assert shown(each, Rule(role="FLAIR", surgery_needed=False)) == [-30, 0, 90]


def test_the_pretext_keeps_whose_label_nobody_knows() -> None:
    """All scans up to the newest, the label unknown."""
    chosen = choose(patient([90, 180], until=200), Rule(role="FLAIR", unlabelled=True))
    assert (chosen.shown, chosen.label, chosen.excluded) == ((0, 1), None, "")


def test_a_scan_that_could_not_be_prepared_makes_room_for_an_older_one() -> None:
    """The choice is made anew without it."""
    each = patient([30 * number for number in range(1, 9)], until=900)
    chosen = choose(each, RULE, failed={each.scans[-1].line})
    assert chosen.shown == (1, 2, 3, 4, 5, 6)
    assert chosen.grounds[-1] is Ground.NOT_PREPARED


HISTORIES = st.builds(
    lambda days, event, more, surgery: patient(
        sorted(days), event=event, until=max(*days, event or 0) + more, surgery=surgery
    ),
    st.sets(st.integers(-100, 3000), min_size=2, max_size=12),
    st.none() | st.integers(1, 3000),
    st.integers(0, 800),
    st.booleans(),
)
RULES = st.builds(
    Rule,
    role=st.sampled_from(["FLAIR", "T1"]),
    kind=st.sampled_from(["follow-up", "post-op"]),
    min_scans=st.integers(1, 4),
    max_scans=st.none() | st.integers(4, 6),
    surgery_needed=st.booleans(),
    unlabelled=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(HISTORIES, max_size=5), RULES)
def test_nothing_leaks_and_everything_is_accounted_for(patients: list[TablePatient], rule: Rule) -> None:
    """Shown scans lie after surgery and before the event; included and excluded make all, of patients and scans."""
    chosen = choose_all(patients, rule)
    for each in chosen:
        days = [each.patient.scans[place].acquired for place in each.shown]
        assert bool(each.excluded) == (not each.shown)
        if each.excluded:
            continue
        assert rule.min_scans <= len(days) <= (rule.max_scans or 99)
        assert each.patient.event is None or days[-1] < each.patient.event
        assert each.patient.surgery is None or (days[0] - each.patient.surgery).days >= 2
        assert (each.label is not None) or rule.unlabelled
        if each.label is False:
            ends = each.patient.event or each.patient.last_follow_up
            assert (ends - days[-1]).days >= rule.horizon_days
    total = account(chosen)
    assert total.included + sum(total.excluded.values()) == total.patients == len(patients)
    assert total.shown + sum(total.left_out.values()) == total.scans == sum(len(each.scans) for each in patients)


def test_the_report_names_every_patient_and_every_scan(tmp_path: Path) -> None:
    """In words that a spreadsheet can count."""
    chosen = choose_all([patient([2, 90, 180], until=900), patient([90], until=900)], RULE)
    write_exclusions(tmp_path, chosen)
    with (tmp_path / "patients.csv").open(encoding="utf-8") as file:
        assert [(row["status"], row["shown"], row["label"]) for row in csv.DictReader(file)] == [
            ("included", "2", "0"),
            ("fewer than 2 usable scans", "0", ""),
        ]
    with (tmp_path / "exclusions.csv").open(encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == [
            "early-post-op",
            "included",
            "included",
            "patient-excluded",
        ]
    assert account(chosen).lines()[0] == "2 patients: 1 included, 1 excluded"


def test_landmark_rows_show_what_was_there_each_year_with_the_label_of_that_time() -> None:
    """The event of day 1000 is no event within a year of day 300, one of day 700; later scans are never shown."""
    rows = landmark_rows([0, 100, 300, 500, 700, 1000, 1100], event_day=1000, follow_up_day=1000)
    assert [(row.year, row.places, row.label) for row in rows] == [
        (1, (0, 1, 2), False),
        (2, (0, 1, 2, 3, 4), True),
    ]


def test_a_landmark_whose_label_nobody_knows_makes_no_row() -> None:
    """Censored 100 days after the last scan: the first year is known, the third is not; the second saw no new scan."""
    rows = landmark_rows([0, 200, 1000], event_day=None, follow_up_day=1100)
    assert [(row.year, row.places, row.label) for row in rows] == [(1, (0, 1), False)]
    assert landmark_rows([0], event_day=None, follow_up_day=900) == []
    assert landmark_rows([5], event_day=5, follow_up_day=5) == []


def test_a_cohort_gives_the_rows_of_its_patients() -> None:
    """Days count from the newest scan there; no event is NaN."""
    volumes = np.zeros((5, 1, 1, 1), dtype=np.uint8)
    cohort = cohort_of(volumes, [[-600, -300, 0], [-100, 0]], [1, -1])
    assert [(row.year, row.places, row.label) for row in cohort_landmarks(cohort, 0)] == [
        (1, (0, 1), False),
        (2, (0, 1, 2), True),
    ]
    assert cohort_landmarks(cohort, 1) == []


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 8))
def test_a_landmark_keeps_the_first_and_the_last_and_spreads_the_rest(count: int, most: int) -> None:
    """Of equal steps, those kept differ by one at most."""
    days = list(range(count))
    (row,) = landmark_rows(days, event_day=None, follow_up_day=900, max_scans=most)
    assert len(row.places) == min(count, most)
    assert (row.places[0], row.places[-1]) == (0, count - 1)
    steps = {newer - older for older, newer in pairwise(row.places)}
    assert min(steps) >= 1
    assert max(steps) - min(steps) <= 1


def test_a_landmark_spreads_over_time_and_not_over_places() -> None:
    """Four scans of one month do not push the lone one of the autumn out."""
    days = [0, 10, 20, 30, 200, 360]
    (row,) = landmark_rows(days, event_day=None, follow_up_day=900, max_scans=3)
    assert [days[place] for place in row.places] == [0, 200, 360]


def test_a_landmark_of_one_scan_is_refused() -> None:
    """The first and the last cannot both stay."""
    with pytest.raises(ValueError, match="expected a maximum of 2 or more"):
        landmark_rows([0, 100], event_day=None, follow_up_day=900, max_scans=1)
