"""From the instances of one series to what the time line says of it: role, day, geometry, and why it is left out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dicom_node.timeline.model import Reason, Series
from dicom_node.timeline.roles import classify_parts
from dicom_node.timeline.series_gaps import why_gappy, why_incomplete
from inference.geometry import GeometryError, Stack, stack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, time

    from dicom_node.timeline.model import InstanceFacts
    from dicom_node.timeline.roles import Part
    from dicom_node.timeline.selection import Selection
    from dicom_node.timeline.task import Task

DESCRIPTIONS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
# Which attribute a day comes from: an acquisition date beats a series date beats a study date.
_TRUST = {
    "AcquisitionDateTime": 0,
    "AcquisitionDate": 0,
    "FrameAcquisitionDateTime": 0,
    "SeriesDate": 1,
    "StudyDate": 2,
}


def describe_series(
    instances: Sequence[InstanceFacts], selection: Selection, task: Task, *, expected: int | None = None
) -> tuple[Series, ...]:
    """Say what a series is for a task: one description, or one per part where a rule splits it.

    Args:
        instances: of one series, in any order; their UIDs are distinct.
        selection: the rules.
        task: what is asked for.
        expected: how many instances an archive says the series has; None: nobody was asked, or it does not say.
    """
    by_uid = sorted(instances, key=lambda each: each.sop_instance_uid)
    parts = classify_parts(by_uid, selection)
    wanted = any(part.verdict.role in task.roles.wanted for part in parts)
    incomplete = why_incomplete(by_uid, expected) if wanted else None
    return tuple(_describe(part, task, incomplete) for part in parts)


def _describe(part: Part, task: Task, incomplete: Reason | None) -> Series:
    """Describe a part; `incomplete` says why more of the whole series may be on its way."""
    if part.verdict.role in task.roles.wanted:
        ordered, volume, defect = _geometry(part.instances)
        incomplete = incomplete or (why_gappy(part.instances) if part.name else None)
    else:  # nobody asks where its slices lie, and most series are of this sort
        ordered, volume, defect, incomplete = part.instances, None, None, None
    day, clock, source = acquired(part.instances)
    series = Series(
        series_instance_uid=part.instances[0].series_instance_uid,
        study_instance_uid=part.instances[0].study_instance_uid,
        instances=ordered,
        verdict=part.verdict,
        part=part.name,
        acquired_on=day,
        acquired_time=clock,
        acquired_from=source,
        slices=volume.shape[0] if volume else sum(len(each.planes) for each in part.instances),
        coverage_mm=round(volume.shape[0] * volume.spacing_mm[0], 3) if volume else 0.0,
        spacing_mm=round(volume.spacing_mm[0], 3) if volume else 0.0,
        in_plane_mm=round(max(volume.spacing_mm[1:]), 3) if volume else 0.0,
        plane=_plane_name(volume) if volume else "",
        incomplete=incomplete,
    )
    return series.leave_out(_why_left_out(series, task, defect))


def acquired(instances: Iterable[InstanceFacts]) -> tuple[date | None, time | None, str]:
    """Return the earliest acquisition among the most trusted dates, and the attribute it comes from."""
    dated = [each for each in instances if each.acquired_on is not None]
    if not dated:
        return None, None, ""
    first = min(dated, key=_when)
    return first.acquired_on, first.acquired_time, first.acquired_from


def _when(instance: InstanceFacts) -> tuple[int, str, str, str]:
    clock = instance.acquired_time.isoformat() if instance.acquired_time else ""
    source = instance.acquired_from
    return _TRUST.get(source, len(_TRUST)), str(instance.acquired_on), clock, source


def _geometry(
    instances: Sequence[InstanceFacts],
) -> tuple[tuple[InstanceFacts, ...], Stack | None, Reason | None]:
    """Order the instances along the normal, or say why that cannot be done."""
    without = sum(not each.planes for each in instances)
    if without:
        found = f"{without} of {len(instances)} instances have no usable position, orientation or spacing"
        return tuple(instances), None, Reason(code="missing-position", text=found)
    owners = [number for number, each in enumerate(instances) for _ in each.planes]
    try:
        volume = stack([plane for each in instances for plane in each.planes])
    except GeometryError as error:
        return tuple(instances), None, Reason(code=str(error.defect), text=str(error))
    order = dict.fromkeys(owners[index] for index in volume.order)
    return tuple(instances[number] for number in order), volume, None


def _plane_name(volume: Stack) -> str:
    normal = [abs(float(each)) for each in volume.affine[:3, 2]]
    return ("sagittal", "coronal", "axial")[normal.index(max(normal))]


def _why_left_out(series: Series, task: Task, defect: Reason | None) -> Reason | None:
    """Return the first reason against using the series, None if there is none."""
    return (
        _wrong_body_part(series, task.eligibility.body_part)
        or _not_asked_for(series, task)
        or (_undated(series) or defect or _outside_gates(series, task))
    )


def _not_asked_for(series: Series, task: Task) -> Reason | None:
    role = series.verdict.role
    if role is None:
        return Reason(code="not-used", text=f"{series.verdict.name} is not used")
    if role not in task.roles.wanted:
        return Reason(code="not-asked-for", text=f"{role} is not asked for by {task.name}")
    return None


def _undated(series: Series) -> Reason | None:
    if series.acquired_on is None:
        return Reason(code="no-date", text="no acquisition, series or study date")
    return None


def _outside_gates(series: Series, task: Task) -> Reason | None:
    if len({each.frame_of_reference_uid for each in series.instances} | {""}) != 2:
        return Reason(code="frame-of-reference", text="expected one Frame of Reference UID")
    widest, narrowest = task.gates.max_slice_spacing_mm, task.gates.min_coverage_mm
    if widest is not None and series.spacing_mm > widest:
        text = f"slices {series.spacing_mm:.1f} mm apart (at most {widest:g} mm)"
        return Reason(code="thick-slices", text=text)
    if series.coverage_mm < narrowest:
        text = f"covers {series.coverage_mm:.0f} mm (at least {narrowest:g} mm)"
        return Reason(code="slab", text=text)
    return None


def _wrong_body_part(series: Series, wanted: tuple[str, ...] | None) -> Reason | None:
    """Look for a wanted word in Body Part Examined or, where that is absent, in the descriptions."""
    if wanted is None:
        return None
    first = min(series.instances, key=lambda each: each.sop_instance_uid)
    told = first.text("BodyPartExamined")
    texts = [told] if told else [first.text(keyword) for keyword in DESCRIPTIONS]
    words = {word.casefold() for text in texts for word in re.split(r"[\W_]+", text)}
    if words & {each.casefold() for each in wanted}:
        return None
    if told:
        return Reason(code="body-part", text=f"body part {told} (expected {', '.join(wanted)})")
    return Reason(code="body-part-unknown", text=f"body part not told (expected {', '.join(wanted)})")
