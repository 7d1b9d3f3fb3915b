"""Why more of a series may be on its way: an archive, positions, numbers and the scanner tell, each with care."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.model import Role
from dicom_node.timeline.series import describe_series
from dicom_node.timeline.series_gaps import missing_slices, why_incomplete
from tests.factories.facts import DWI, FLAIR, GLIOMA, SELECTION, a_cohort, a_series, a_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dicom_node.timeline.model import InstanceFacts, Series

DAY = date(2025, 6, 1)
DUAL = {"Modality": "MR", "BodyPartExamined": "BRAIN", "ScanningSequence": "SE", "RepetitionTime": 4000.0}


def _numbered(instances: Sequence[InstanceFacts], numbers: Iterable[int | None]) -> list[InstanceFacts]:
    return [replace(each, instance_number=number) for each, number in zip(instances, numbers, strict=True)]


def _code(instances: Sequence[InstanceFacts], expected: int | None = None) -> str:
    reason = why_incomplete(instances, expected)
    return reason.code if reason else ""


def _flair(instances: Sequence[InstanceFacts], expected: int | None = None) -> Series:
    (series,) = describe_series(instances, SELECTION, GLIOMA, expected=expected)
    return series


def test_a_whole_series_is_complete() -> None:
    """Even positions, numbers from 1 to n, no more told anywhere."""
    assert _flair(a_series(DAY)).incomplete is None
    assert _flair(a_series(DAY), expected=24).incomplete is None


def test_an_archive_that_holds_more_is_told_first() -> None:
    """Both counts stand in the text; the series stays usable, as its slices are even."""
    series = _flair(a_series(DAY), expected=26)
    assert series.incomplete is not None
    assert (series.incomplete.code, series.incomplete.text) == (
        "archive-holds-more",
        "24 instances (an archive holds 26)",
    )
    assert series.excluded is None


def test_what_an_archive_says_reaches_the_time_line() -> None:
    """By Series Instance UID."""
    instances = a_series(DAY)
    line = build_time_line(
        instances,
        selection=SELECTION,
        task=GLIOMA,
        cohort=a_cohort(),
        expected={instances[0].series_instance_uid: 25},
    )
    incomplete = line.time_points[0].chosen[Role.FLAIR].incomplete
    assert incomplete is not None
    assert incomplete.code == "archive-holds-more"


def test_a_slice_missing_between_others_is_told_and_still_excludes() -> None:
    """Two in a row and a single one: three slices."""
    instances = a_series(DAY)
    series = _flair(instances[:5] + instances[6:10] + instances[12:])
    assert series.incomplete is not None
    assert series.incomplete.text == "3 slices are missing between others by the positions"
    assert series.excluded is not None
    assert series.excluded.code == "slice-gap"


def test_uneven_slices_are_no_missing_slices() -> None:
    """A stack whose spacing was changed on the way is refused, but nothing more will come."""
    instances = a_series(DAY)
    lower = instances[3].planes[0]
    moved = replace(lower, position_mm=(*lower.position_mm[:2], lower.position_mm[2] + 2.5))
    instances[3] = replace(instances[3], planes=(moved,))
    series = _flair(instances)
    assert series.incomplete is None
    assert series.excluded is not None


def test_two_stacks_far_apart_are_no_gap() -> None:
    """Hundreds of slices between two stacks were never acquired."""
    near, far = a_series(DAY, slices=12), a_series(DAY, slices=1000)[900:912]
    assert missing_slices([plane for each in (*near, *far) for plane in each.planes]) == 0


def test_a_position_that_is_no_number_says_nothing() -> None:
    """A poison instance is the geometry's to refuse; nothing may fall over it here."""
    instances = a_series(DAY)
    for poison in (float("nan"), float("inf")):
        plane = replace(instances[3].planes[0], position_mm=(0.0, 0.0, poison))
        series = _flair([*instances[:3], replace(instances[3], planes=(plane,)), *instances[4:]])
        assert series.incomplete is None
        assert series.excluded is not None


def test_a_hole_in_the_numbers_is_told_where_they_count() -> None:
    """From 1, or from 0 as some write; a first slice that was lost is told by nothing else."""
    instances = a_series(DAY, slices=20)
    lost = why_incomplete(_numbered(instances, range(3, 23)), None)
    assert lost is not None
    assert lost.text == "20 instances numbered 3 to 22: 2 numbers are missing"
    assert _code(_numbered(instances, [*range(1, 20), 21])) == "missing-numbers"
    assert _code(_numbered(instances, [*range(10), *range(11, 21)])) == "missing-numbers"
    assert _code(_numbered(instances, range(20))) == ""


@pytest.mark.parametrize(
    ("habit", "numbers"),
    [
        ("numbers go on from the series before", range(201, 221)),
        ("every image type has its own, and this is every second", range(1, 41, 2)),
        ("slice and echo share a number", [*range(1, 11)] * 2),
        ("blocks of a hundred", [*range(1, 11), *range(101, 111)]),
        ("no numbers", [None] * 20),
        ("one without a number", [*range(1, 20), None]),
    ],
)
def test_numbers_that_do_not_count_say_nothing(habit: str, numbers: Sequence[int | None]) -> None:
    """Makers number across echoes, image types and series."""
    assert _code(_numbered(a_series(DAY, slices=20), numbers)) == ""


def test_half_of_an_interleaved_stack_is_told_by_numbers_and_spacing() -> None:
    """Even strides mean something where the slices lie twice as far apart as they are thick."""
    instances = _numbered(a_series(DAY, slices=40, spacing_mm=5.0), range(1, 41))
    assert _code(instances[::2]) == "missing-numbers"
    assert _code(instances) == ""


def test_images_in_acquisition_count_every_image_of_the_series() -> None:
    """Fewer held than the scanner says; it counts echoes and repetitions too, so these are counted as well."""
    told = {**FLAIR, "ImagesInAcquisition": 24.0}
    assert _code(a_series(DAY, told, slices=23)) == "fewer-than-acquired"
    assert _code(a_series(DAY, told, slices=24)) == ""
    assert _code(a_series(DAY, {**FLAIR, "ImagesInAcquisition": 15.0}, slices=30)) == ""


def test_an_archive_that_holds_no_more_overrules_the_scanners_numbers() -> None:
    """What was never archived will not come; a gap between slices stays one."""
    instances = a_series(DAY, {**FLAIR, "ImagesInAcquisition": 99.0})
    assert _code(instances, expected=24) == ""
    assert _code(instances[:9] + instances[10:], expected=23) == "missing-slices"


def test_a_series_that_nobody_asks_for_is_not_waited_for() -> None:
    """A DWI may stay half for ever."""
    (series,) = describe_series(a_series(DAY, DWI)[::3], SELECTION, GLIOMA, expected=1000)
    assert series.incomplete is None


def _dual_echo(slices: int = 24) -> list[InstanceFacts]:
    first = a_series(DAY, {**DUAL, "EchoTime": 20.0, "EchoNumbers": 1.0}, slices=slices)
    second = [
        replace(each, sop_instance_uid=f"{each.sop_instance_uid}9", attributes={**DUAL, "EchoTime": 90.0})
        for each in first
    ]
    return _numbered([*first, *second], range(1, 2 * slices + 1))


def test_the_t2_echo_of_a_dual_echo_series_becomes_usable() -> None:
    """Both parts are shown under one Series Instance UID; the task gets the instances of the second only."""
    task = a_task(roles={"required": ["T2"]})
    first, second = describe_series(_dual_echo(), SELECTION, task)
    assert (first.part, first.verdict.name) == ("EchoTime 20", "PD")
    assert (second.part, second.verdict.role, second.excluded) == ("EchoTime 90", Role.T2, None)
    assert first.series_instance_uid == second.series_instance_uid
    assert (second.slices, second.spacing_mm, second.incomplete) == (24, 6.0, None)
    line = build_time_line(_dual_echo(), selection=SELECTION, task=task, cohort=a_cohort())
    assert line.time_points[0].chosen[Role.T2].instances == second.instances


def test_an_echo_that_lacks_a_slice_is_incomplete_though_the_other_has_it() -> None:
    """Each part has its own geometry; what an archive says is said of the whole."""
    task = a_task(roles={"required": ["T2"]})
    instances = _dual_echo()
    without = [*instances[:30], *instances[31:]]
    _, second = describe_series([replace(each, instance_number=None) for each in without], SELECTION, task)
    assert second.incomplete is not None
    assert (second.incomplete.code, second.excluded is None) == ("missing-slices", False)
    _, second = describe_series(without, SELECTION, task, expected=48)
    assert second.incomplete is not None
    assert second.incomplete.code == "archive-holds-more"


@given(held=st.sets(st.integers(0, 23), min_size=3), order=st.permutations(range(24)))
def test_what_is_missing_does_not_depend_on_the_order_of_arrival(held: set[int], order: list[int]) -> None:
    """Of any part of a stack that holds two neighbours, every slice missing between others is counted."""
    whole = a_series(DAY)
    in_order = [whole[number] for number in sorted(held)]
    arrived = [whole[number] for number in order if number in held]
    assert why_incomplete(in_order, None) == why_incomplete(arrived, None)
    if any(number + 1 in held for number in held):
        planes = [plane for each in arrived for plane in each.planes]
        assert missing_slices(planes) == max(held) - min(held) + 1 - len(held)
