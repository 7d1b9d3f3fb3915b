"""Mixed techniques over the chosen scans are told, each with its days."""

from __future__ import annotations

from datetime import date

import pytest

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.consistency import consistency_flags, radiotherapy_flags
from tests.factories.facts import FLAIR, GLIOMA, SELECTION, T1, T1C, a_cohort, a_series, a_task

APRIL, JULY, OCTOBER = date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1)


def _points(instances, task=GLIOMA):
    return build_time_line(instances, selection=SELECTION, task=task, cohort=a_cohort()).time_points


def _flags(first, second, task=GLIOMA):
    instances = [*a_series(APRIL, {**FLAIR, **first}), *a_series(JULY, {**FLAIR, **second})]
    return [(flag.code, flag.text) for flag in consistency_flags(_points(instances, task), task)]


@pytest.mark.parametrize(
    ("first", "second", "code", "text"),
    [
        ({"MRAcquisitionType": "2D"}, {"MRAcquisitionType": "3D"}, "mixed-2d-3d", "FLAIR: 2D on D1; 3D on D2"),
        (
            {"ManufacturerModelName": "Aera"},
            {"ManufacturerModelName": "Ingenia"},
            "mixed-scanner",
            "FLAIR: Aera on D1; Ingenia on D2",
        ),
        ({"Manufacturer": "SIEMENS"}, {"Manufacturer": "GE"}, "mixed-scanner", "FLAIR: SIEMENS on D1; GE on D2"),
        (
            {"MagneticFieldStrength": 1.494},
            {"MagneticFieldStrength": 2.8936},
            "mixed-field-strength",
            "FLAIR: 1.5 T on D1; 3 T on D2",
        ),
        (
            {},
            {"ContrastBolusAgent": "Gadovist"},
            "mixed-contrast",
            "FLAIR: no contrast agent told on D1; after contrast agent on D2",
        ),
    ],
)
def test_a_difference_between_two_scans_is_told_with_its_days(first, second, code, text) -> None:
    """Which value stands on which day, in order of the days."""
    expected = text.replace("D1", APRIL.isoformat()).replace("D2", JULY.isoformat())
    assert _flags(first, second) == [(code, expected)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"MRAcquisitionType": "3D"}, {}),
        ({"MagneticFieldStrength": 1.5}, {"MagneticFieldStrength": 1.494}),
        ({"MagneticFieldStrength": 15000.0}, {"MagneticFieldStrength": 1.5}),
        ({"ContrastBolusAgent": "None"}, {}),
        ({"ManufacturerModelName": "Aera", "Manufacturer": "SIEMENS"}, {"ManufacturerModelName": "Aera"}),
    ],
)
def test_what_is_not_told_or_only_written_otherwise_is_no_difference(first, second) -> None:
    """Gauss and tesla, nominal and exact field, a missing tag."""
    assert _flags(first, second) == []


def test_slices_half_again_as_thick_are_told() -> None:
    """5.0 and 5.5 mm are one protocol; 1 and 5 mm are not."""
    thin, thick = a_series(APRIL, slices=140, spacing_mm=1.0), a_series(JULY, slices=30, spacing_mm=5.0)
    near = a_series(OCTOBER, slices=28, spacing_mm=5.5)
    (flag,) = consistency_flags(_points([*thin, *thick, *near]), GLIOMA)
    assert flag.code == "mixed-slice-spacing"
    assert flag.text == "FLAIR: 1.0 mm on 2025-04-01; 5.0 mm on 2025-07-01; 5.5 mm on 2025-10-01"
    assert consistency_flags(_points([*thick, *near]), GLIOMA) == ()


def test_what_holds_for_several_roles_is_told_once() -> None:
    """Another scanner is another scanner for every role."""
    task = a_task(roles={"required": ["FLAIR", "T1"]})
    instances = [
        instance
        for day, model in ((APRIL, "Aera"), (JULY, "Ingenia"))
        for number, kind in enumerate((FLAIR, T1))
        for instance in a_series(day, {**kind, "ManufacturerModelName": model}, name=str(number))
    ]
    texts = [flag.text for flag in consistency_flags(_points(instances, task), task)]
    assert texts == ["FLAIR, T1: Aera on 2025-04-01; Ingenia on 2025-07-01"]


def test_an_optional_role_that_some_scans_lack_is_told() -> None:
    """Contrast missing at one visit must not read as enhancement gone."""
    task = a_task(roles={"optional": ["T1c"]})
    instances = [*a_series(APRIL), *a_series(APRIL, T1C, name="2"), *a_series(JULY)]
    assert [(flag.code, flag.text) for flag in consistency_flags(_points(instances, task), task)] == [
        ("mixed-roles", "T1c: none on 2025-07-01")
    ]
    assert consistency_flags(_points(a_series(JULY), task), task) == ()


def test_a_scan_within_twelve_weeks_of_radiotherapy_is_named() -> None:
    """Pseudoprogression is told, and only where it can be."""
    cohort = a_cohort(radiotherapy=(date(2025, 3, 1), date(2025, 8, 1)))
    flags = radiotherapy_flags(_points([*a_series(APRIL), *a_series(JULY), *a_series(OCTOBER)]), cohort)
    assert [flag.text for flag in flags] == [
        "2025-04-01 lies 31 days after radiotherapy",
        "2025-10-01 lies 61 days after radiotherapy",
    ]
