"""Which studies are one time point, of which kind, and which of their series fill its roles."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, time

import pytest

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.choose import choose_time_points
from dicom_node.timeline.model import Event, Role, Surgery
from tests.factories.facts import DWI, FLAIR, GLIOMA, SELECTION, SURGERY, T1, a_cohort, a_series, a_task, uid

DAY, NEXT = date(2025, 6, 1), date(2025, 6, 2)
BOTH = a_task(roles={"required": ["FLAIR", "T1"]})


def _line(instances, task=GLIOMA, cohort=None, **options):
    return build_time_line(instances, selection=SELECTION, task=task, cohort=cohort or a_cohort(), **options)


def _point(instances, task=GLIOMA, **options):
    (point,) = _line(instances, task, **options).time_points
    return point


def _studies_of(point):
    return {role: series.study_instance_uid for role, series in point.chosen.items()}


def _codes(point):
    return [flag.code for flag in point.flags]


def test_an_exam_across_midnight_is_one_time_point_on_its_first_day() -> None:
    """One study, its localiser and T1 before midnight, its FLAIR after."""
    before = a_series(DAY, T1, name="2", at=time(23, 50), study_instance_uid=uid("night"))
    after = a_series(NEXT, name="1", at=time(0, 10), study_instance_uid=uid("night"))
    point = _point([*after, *before], BOTH)
    assert (point.acquired_on, point.acquired_time) == (DAY, time(23, 50))
    assert set(point.chosen) == {Role.FLAIR, Role.T1}
    assert _codes(point) == []


def test_an_exam_across_midnight_into_the_day_of_surgery_is_pre_op() -> None:
    """It began on the eve."""
    eve, night = date(2025, 1, 9), uid("night")
    instances = [
        *a_series(eve, T1, name="2", at=time(23, 50), study_instance_uid=night),
        *a_series(SURGERY, at=time(0, 10), study_instance_uid=night),
    ]
    assert (_point(instances).acquired_on, _point(instances).kind) == (eve, "pre-op")


def test_a_copy_of_an_older_series_does_not_move_an_exam_into_the_past() -> None:
    """A derived series of last year's scan, filed with the new exam for comparison."""
    old = {**FLAIR, "ImageType": ("DERIVED", "SECONDARY", "MPR")}
    instances = [
        *a_series(date(2024, 6, 1), old, name="old", study_instance_uid=uid("S")),
        *a_series(DAY, study_instance_uid=uid("S")),
    ]
    point = _point(instances)
    assert point.acquired_on == DAY
    assert point.chosen[Role.FLAIR].acquired_on == DAY


def test_a_copy_of_an_older_scan_counts_on_its_own_day() -> None:
    """An archive imported last year's FLAIR into the new exam: two time points, and both say so."""
    old, new = date(2025, 2, 1), DAY
    instances = [
        *a_series(old, name="old", study_instance_uid=uid("S")),
        *a_series(new, name="new", study_instance_uid=uid("S")),
        *a_series(new, DWI, name="3", study_instance_uid=uid("S")),
        *a_series(new, T1, name="undated", study_instance_uid=uid("S"), acquired_on=None, acquired_time=None),
    ]
    points = _line(instances).time_points
    assert [point.acquired_on for point in points] == [old, new]
    assert [point.chosen[Role.FLAIR].acquired_on for point in points] == [old, new]
    assert [len(study.series) for point in points for study in point.studies] == [1, 3]
    assert [_codes(point) for point in points] == [["parted-study"]] * 2


def test_the_copy_merges_with_its_original_on_the_original_day() -> None:
    """No third time point, and nothing is counted twice."""
    original = a_series(date(2025, 2, 1), study="original")
    copy = a_series(date(2025, 2, 1), name="copy", study_instance_uid=uid("S"))
    new = a_series(DAY, name="new", study_instance_uid=uid("S"))
    points = _line([*original, *copy, *new]).time_points
    assert [point.acquired_on for point in points] == [date(2025, 2, 1), DAY]
    assert len(points[0].candidates) == 2


@pytest.mark.parametrize(
    ("evening", "morning", "days"),
    [
        (time(23, 50), time(0, 10), [DAY]),
        (time(14, 0), time(1, 0), [DAY]),
        (time(9, 0), time(15, 0), [DAY, NEXT]),
        (None, time(15, 0), [DAY]),
        (time(9, 0), None, [DAY]),
    ],
)
def test_tomorrows_scan_under_the_same_study_is_another_exam_unless_it_went_on(evening, morning, days) -> None:
    """A pause of more than twelve hours ends an exam; where a time is not told, one study is one exam."""
    instances = [
        *a_series(DAY, name="1", at=evening, study_instance_uid=uid("S")),
        *a_series(NEXT, name="2", at=morning, study_instance_uid=uid("S")),
    ]
    assert [point.acquired_on for point in _line(instances).time_points] == days


def test_three_days_under_one_study_are_never_one_exam() -> None:
    """A night may belong to the day before, a second night does not."""
    days = [DAY, NEXT, date(2025, 6, 3)]
    instances = [
        instance
        for number, day in enumerate(days)
        for instance in a_series(day, name=str(number), at=None, study_instance_uid=uid("S"))
    ]
    assert [point.acquired_on for point in _line(instances).time_points] == [DAY, days[2]]


@pytest.mark.parametrize(
    ("surgery_at", "first_at", "second_at", "kinds"),
    [
        (None, time(7), time(20), ["unknown", "unknown"]),
        (time(12), time(7), time(20), ["pre-op", "early-post-op"]),
        (time(12), time(7), time(8), ["pre-op", "pre-op"]),
        (time(12), None, time(20), ["unknown", "early-post-op"]),
        (time(12), None, None, ["unknown", "unknown"]),
        (time(12), time(12), time(11, 59), ["pre-op", "early-post-op"]),
    ],
)
def test_studies_on_a_day_of_surgery_never_merge(surgery_at, first_at, second_at, kinds) -> None:
    """Each has its own kind, told by its own time; without both times it is unknown."""
    cohort = a_cohort(surgeries=(Surgery(on=SURGERY, at=surgery_at),))
    instances = [*a_series(SURGERY, study="A", at=first_at), *a_series(SURGERY, study="B", at=second_at)]
    points = _line(instances, cohort=cohort).time_points
    assert [point.kind for point in points] == kinds
    assert all(len(point.studies) == 1 for point in points)


def test_a_split_exam_is_put_together_and_told() -> None:
    """FLAIR in one study, T1 in the other of the same day: one time point takes both, and says so."""
    point = _point([*a_series(DAY, study="A"), *a_series(DAY, T1, study="B", name="2")], BOTH)
    assert len(set(_studies_of(point).values())) == 2
    assert _codes(point) == ["merged-studies", "split-exam"]


def test_one_study_that_holds_every_required_role_is_preferred() -> None:
    """A thinner FLAIR of the other study does not tear the exam apart."""
    whole = [*a_series(DAY, study="A", spacing_mm=6.0), *a_series(DAY, T1, study="A", name="2")]
    thin = a_series(DAY, study="B", slices=140, spacing_mm=1.0)
    point = _point([*whole, *thin], BOTH)
    assert set(_studies_of(point).values()) == {whole[0].study_instance_uid}
    assert _codes(point) == ["merged-studies"]
    (other,) = (each for each in point.candidates if each.role is Role.FLAIR and each.rank == 1)
    assert other.because.endswith("; of another study of this day than the series chosen together")


def test_of_two_whole_studies_the_better_is_taken() -> None:
    """The repeated exam replaces the first, both roles together."""
    first = [*a_series(DAY, study="A", at=time(9)), *a_series(DAY, T1, study="A", name="2", at=time(9))]
    again = [*a_series(DAY, study="B", at=time(15)), *a_series(DAY, T1, study="B", name="2", at=time(15))]
    point = _point([*again, *first], BOTH)
    assert set(_studies_of(point).values()) == {again[0].study_instance_uid}


def test_an_optional_role_comes_from_the_other_study_only_where_its_own_has_none() -> None:
    """The required FLAIR decides the study; T1 follows it if it can."""
    task = a_task(roles={"required": ["FLAIR"], "optional": ["T1"]})
    flair, other_t1 = a_series(DAY, study="A"), a_series(DAY, T1, study="B", name="2", at=time(15))
    assert len(set(_studies_of(_point([*flair, *other_t1], task)).values())) == 2
    own_t1 = a_series(DAY, T1, study="A", name="2", at=time(9))
    assert len(set(_studies_of(_point([*flair, *other_t1, *own_t1], task)).values())) == 1


def test_series_of_one_frame_of_reference_are_preferred() -> None:
    """The patient left the table: FLAIR and T1 were both taken again, only the second T1 is in another frame."""
    flair = a_series(DAY)
    t1 = a_series(DAY, T1, name="2", at=time(9, 0))
    moved = a_series(DAY, T1, name="3", at=time(10, 0), frame_of_reference_uid=uid("moved"))
    point = _point([*flair, *t1, *moved], BOTH)
    assert point.chosen[Role.T1].series_instance_uid == t1[0].series_instance_uid
    because = next(each.because for each in point.candidates if each.role is Role.T1 and each.rank == 1)
    assert because.endswith("; of another frame of reference than the series chosen together")


def test_a_repetition_after_midnight_is_the_later() -> None:
    """A clock that starts anew does not make the repetition the first."""
    first = a_series(DAY, name="1", at=time(23, 50), study_instance_uid=uid("night"))
    again = a_series(NEXT, name="2", at=time(0, 20), study_instance_uid=uid("night"))
    assert _point([*first, *again]).chosen[Role.FLAIR].series_instance_uid == again[0].series_instance_uid


@pytest.mark.parametrize(
    ("loser", "because"),
    [
        ({"slices": 20, "spacing_mm": 5.0}, "covers 44 mm less than the chosen"),
        ({"slices": 22, "spacing_mm": 7.0}, "1.0 mm thicker slices than the chosen"),
        ({"attributes": {**FLAIR, "ImagesInAcquisition": 25.0}}, "incomplete: 24 "),
        ({"at": time(8, 0)}, "acquired before the chosen, which is taken as its repetition"),
    ],
)
def test_every_candidate_says_what_speaks_against_it(loser, because) -> None:
    """The first criterion that decided, relative to the winner."""
    winner, other = a_series(DAY, name="winner", at=time(9)), a_series(DAY, name="loser", **loser)
    first, second = _point([*other, *winner]).candidates
    assert first.series.series_instance_uid == winner[0].series_instance_uid
    assert (first.rank, second.rank) == (0, 1)
    assert f"; {because}" in second.because
    assert "chosen" not in first.because


def test_equal_candidates_are_told_apart_by_uid_and_coarser_ones_by_resolution() -> None:
    """Nothing is left to the order of arrival."""
    twins = [*a_series(DAY, name="1"), *a_series(DAY, name="2")]
    assert _point(twins).candidates[1].because.endswith("; equal to the chosen; the order of the UIDs decides")
    assert _point(twins[::-1]) == _point(twins)
    coarse = [
        replace(each, planes=(replace(each.planes[0], spacing_mm=(1.5, 1.5)),)) for each in a_series(DAY, name="2")
    ]
    assert _point([*a_series(DAY), *coarse]).candidates[1].because.endswith("; 0.5 mm coarser than the chosen")


def test_what_an_archive_counts_makes_a_series_incomplete_and_second() -> None:
    """`expected` comes by Series Instance UID; of otherwise equal series the whole one is taken."""
    short, whole = a_series(DAY, name="1", at=time(10)), a_series(DAY, name="2", at=time(9))
    expected = {short[0].series_instance_uid: 30, whole[0].series_instance_uid: 24}
    point = _point([*short, *whole], expected=expected)
    assert point.chosen[Role.FLAIR].series_instance_uid == whole[0].series_instance_uid
    assert point.candidates[1].series.incomplete is not None


TWICE = a_cohort(surgeries=(Surgery(on=SURGERY), Surgery(on=date(2025, 9, 1))))
SCANS = (date(2025, 1, 5), date(2025, 1, 12), date(2025, 4, 1), date(2025, 8, 30), date(2025, 9, 3), date(2025, 12, 1))


@pytest.mark.parametrize(
    ("anchor", "kinds"),
    [
        ("first", ["pre-op", "early-post-op", "follow-up", "follow-up", "early-post-op", "follow-up"]),
        ("last", ["pre-op", "pre-op", "pre-op", "pre-op", "early-post-op", "follow-up"]),
    ],
)
def test_a_patient_operated_on_twice_is_counted_from_the_tasks_anchor(anchor, kinds) -> None:
    """With `last`, everything before the second operation is pre-op of it."""
    instances = [instance for day in SCANS for instance in a_series(day)]
    points = _line(instances, a_task(anchor=anchor), TWICE).time_points
    assert [point.kind for point in points] == kinds


def _chosen(task, cohort, *days, today=date(2026, 1, 20)):
    instances = [instance for day in days for instance in a_series(day)]
    line = _line(instances, task, cohort)
    return [point.acquired_on for point in choose_time_points(line, task, cohort, today).points]


APRIL, JULY, OCTOBER = date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1)


@pytest.mark.parametrize(
    ("events", "used"),
    [
        ((), [APRIL, JULY, OCTOBER]),
        ((Event(on=OCTOBER),), [APRIL, JULY]),
        ((Event(on=date(2025, 9, 30)), Event(on=date(2025, 6, 30), kind="end of follow-up")), [APRIL]),
        ((Event(on=date(2026, 2, 1)),), [APRIL, JULY, OCTOBER]),
        ((Event(on=date(2024, 12, 1)),), [APRIL, JULY, OCTOBER]),
        ((Event(on=date(2024, 12, 1)), Event(on=JULY, kind="death")), [APRIL]),
    ],
)
def test_the_first_event_since_the_anchor_ends_surveillance(events, used) -> None:
    """Not one that is still to come, nor one before the operation."""
    assert _chosen(GLIOMA, a_cohort(events=events), APRIL, JULY, OCTOBER) == used


def test_a_recurrence_on_the_day_of_the_second_operation_is_what_was_operated_on() -> None:
    """It is often dated so; counted from the last operation, it is over. A death on that day is not."""
    task, second = a_task(anchor="last"), date(2025, 3, 1)
    cohort = a_cohort(surgeries=(Surgery(on=SURGERY), Surgery(on=second)), events=(Event(on=second),))
    assert _chosen(task, cohort, APRIL, JULY, OCTOBER) == [APRIL, JULY, OCTOBER]
    dead = replace(cohort, events=(Event(on=second, kind="death"),))
    assert _chosen(task, dead, APRIL, JULY, OCTOBER) == []
    only = replace(cohort, surgeries=(Surgery(on=second),))
    assert _chosen(task, only, APRIL, JULY, OCTOBER) == []
