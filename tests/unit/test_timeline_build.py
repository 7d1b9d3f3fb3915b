"""From instances to time points, with one series per role."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, time

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.model import Role, Surgery, TimePointKind
from tests.factories.facts import BRAIN, DWI, FLAIR, GLIOMA, SELECTION, SURGERY, T1, a_cohort, a_series, a_task, uid

DAY = date(2025, 6, 1)


def _line(instances, task=GLIOMA, cohort=None):
    return build_time_line(instances, selection=SELECTION, task=task, cohort=cohort or a_cohort())


def _excluded(instances, task=GLIOMA):
    (point,) = _line(instances, task).time_points
    return [reason for _, reason in point.excluded]


def test_a_study_becomes_a_time_point_with_its_flair() -> None:
    """Day, kind and chosen series."""
    (point,) = _line([*a_series(DAY), *a_series(DAY, T1, name="2"), *a_series(DAY, DWI, name="3")]).time_points
    assert (point.acquired_on, point.kind) == (DAY, TimePointKind.FOLLOW_UP)
    assert set(point.chosen) == {Role.FLAIR}
    assert {reason.code for _, reason in point.excluded} == {"not-asked-for", "not-used"}


def test_instances_lie_in_order_along_the_normal() -> None:
    """Instance Number counts down in the factory; position decides."""
    (point,) = _line(a_series(DAY)[::-1]).time_points
    heights = [each.planes[0].position_mm[2] for each in point.chosen[Role.FLAIR].instances]
    assert heights == sorted(heights)


def test_two_studies_of_one_day_are_one_time_point() -> None:
    """A console restart makes two Study UIDs of one exam."""
    task = a_task(roles={"optional": ["T1"]})
    (point,) = _line([*a_series(DAY, study="A"), *a_series(DAY, T1, study="B")], task).time_points
    assert len(point.studies) == 2
    assert set(point.chosen) == {Role.FLAIR, Role.T1}
    assert [flag.code for flag in point.flags] == ["merged-studies", "split-exam"]


def test_two_studies_on_a_day_of_surgery_stay_apart() -> None:
    """Before and after the operation are not one exam; with times their kinds are told."""
    instances = [
        *a_series(SURGERY, study="A", at=time(7, 0)),
        *a_series(SURGERY, study="B", at=time(20, 0)),
    ]
    assert [point.kind for point in _line(instances).time_points] == [TimePointKind.UNKNOWN] * 2
    timed = a_cohort(surgeries=(Surgery(on=SURGERY, at=time(12, 0)),))
    kinds = [point.kind for point in _line(instances, cohort=timed).time_points]
    assert kinds == [TimePointKind.PRE_OP, TimePointKind.EARLY_POST_OP]


def test_a_series_with_a_gap_is_left_out_with_the_place() -> None:
    """Half a series is never an input."""
    instances = a_series(DAY)
    (reason,) = _excluded(instances[:10] + instances[11:])
    assert reason.code == "slice-gap"
    assert "expected steps of 6.000 mm" in reason.text


def test_a_series_of_two_orientations_is_left_out() -> None:
    """Mixed orientation is the geometry's to say."""
    instances = a_series(DAY)
    tilted = replace(instances[3].planes[0], orientation=(0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    instances[3] = replace(instances[3], planes=(tilted,))
    assert [each.code for each in _excluded(instances)] == ["mixed-orientation"]


def test_instances_without_position_are_left_out() -> None:
    """A mosaic or a scanned film says not where it lies."""
    instances = a_series(DAY)
    instances[0] = replace(instances[0], planes=())
    assert [each.code for each in _excluded(instances)] == ["missing-position"]


def test_thick_slices_and_slabs_fail_their_gates() -> None:
    """Both gates say what was found and what is asked."""
    thick = _excluded(a_series(DAY, spacing_mm=9.0))
    assert [each.text for each in thick] == ["slices 9.0 mm apart (at most 7 mm)"]
    slab = _excluded(a_series(DAY, slices=10))
    assert [each.text for each in slab] == ["covers 60 mm (at least 100 mm)"]


def test_another_body_part_is_left_out_and_unknown_is_another() -> None:
    """Body Part Examined decides; where it is absent, a word of a description must name the part."""
    knee = {**FLAIR, "BodyPartExamined": "KNEE"}
    untold = {key: value for key, value in FLAIR.items() if key != "BodyPartExamined"}
    assert [each.code for each in _excluded(a_series(DAY, knee))] == ["body-part"]
    assert [each.code for each in _excluded(a_series(DAY, untold))] == ["body-part-unknown"]
    assert _excluded(a_series(DAY, {**untold, "StudyDescription": "MR Brain w/o"})) == []


def test_the_thinner_of_two_whole_series_is_chosen() -> None:
    """Coverage first, then thickness."""
    whole_thick = a_series(DAY, name="thick", slices=28, spacing_mm=5.0)
    whole_thin = a_series(DAY, name="thin", slices=140, spacing_mm=1.0)
    part_thin = a_series(DAY, name="part", slices=110, spacing_mm=1.0)
    (point,) = _line([*whole_thick, *part_thin, *whole_thin]).time_points
    ranked = [each.series.series_instance_uid for each in point.candidates]
    assert ranked == [each[0].series_instance_uid for each in (whole_thin, whole_thick, part_thin)]


def test_the_repeated_acquisition_replaces_the_first() -> None:
    """Technologists repeat what failed, so of equals the later is chosen."""
    first, second = a_series(DAY, name="1", at=time(9, 0)), a_series(DAY, name="2", at=time(9, 20))
    (point,) = _line([*second, *first]).time_points
    assert point.chosen[Role.FLAIR].series_instance_uid == second[0].series_instance_uid


def test_the_preferred_plane_decides_between_equals() -> None:
    """A task may prefer a plane; it does not outweigh thickness."""
    axial = a_series(DAY, name="axial", at=time(9, 0))
    coronal = [
        replace(
            each,
            planes=(
                replace(
                    each.planes[0],
                    orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
                    position_mm=(0.0, each.planes[0].position_mm[2], 0.0),
                ),
            ),
        )
        for each in a_series(DAY, name="coronal", at=time(10, 0))
    ]
    for plane in ("axial", "coronal"):
        (point,) = _line([*axial, *coronal], a_task(gates={"preferred_plane": plane})).time_points
        assert point.chosen[Role.FLAIR].plane == plane


def test_a_study_without_any_date_stands_apart() -> None:
    """It can be no time point, and is not forgotten."""
    line = _line(a_series(DAY, acquired_on=None, acquired_time=None, acquired_from=""))
    assert line.time_points == ()
    assert [each.excluded.code for study in line.undated for each in study.series] == ["no-date"]


def test_an_acquisition_date_beats_a_study_date() -> None:
    """Study dates are typed or defaulted; one true acquisition date gives the study its day."""
    typed = a_series(date(2025, 5, 1), name="1", acquired_from="StudyDate", study_instance_uid=uid("S"))
    true = a_series(DAY, name="2", study_instance_uid=uid("S"))
    (point,) = _line([*typed, *true]).time_points
    assert point.acquired_on == DAY
    assert [flag.code for flag in point.flags] == ["weak-date"]


def test_a_series_that_arrived_twice_counts_once() -> None:
    """Duplicates by SOP Instance UID are one instance."""
    once, twice = _line(a_series(DAY)), _line(a_series(DAY) * 2)
    assert once == twice


def test_several_frames_of_reference_in_one_series_are_refused() -> None:
    """Positions in different frames of reference cannot be one volume."""
    instances = a_series(DAY)
    instances[0] = replace(instances[0], frame_of_reference_uid=uid("other"))
    assert [each.code for each in _excluded(instances)] == ["frame-of-reference"]


def test_an_enhanced_object_is_one_instance_with_many_planes() -> None:
    """Frames count as slices."""
    classic = a_series(DAY)
    planes = tuple(each.planes[0] for each in classic[::-1])
    enhanced = [replace(classic[0], sop_class_uid="1.2.840.10008.5.1.4.1.1.4.1", planes=planes)]
    (point,) = _line(enhanced).time_points
    assert point.chosen[Role.FLAIR].slices == 24


def test_plain_brain_attributes_alone_have_no_role() -> None:
    """What no rule knows is left out by name."""
    assert [each.text for each in _excluded(a_series(DAY, BRAIN))] == ["unrecognised is not used"]
