"""Name a run by what goes in, so that equal inputs are one run whoever sends them, in whatever order and encoding."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from dicom_node.timeline.kinds import anchor_of
from dicom_node.timeline.model import InputInstance, Inputs, InputSeries, InputTimePoint, canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.timeline.model import CohortFacts, Role, Series, TimePoint
    from dicom_node.timeline.task import Task


def freeze_inputs(points: Sequence[TimePoint], task: Task, cohort: CohortFacts) -> Inputs:
    """Reduce the chosen time points, oldest first, to what a run uses."""
    anchor = anchor_of(cohort.surgeries, task.anchor)
    frozen = []
    for point in points:
        series = tuple(_input_series(role, point.chosen[role]) for role in task.roles.wanted if role in point.chosen)
        frozen.append(
            InputTimePoint(
                acquired_on=point.acquired_on,
                acquired_time=point.acquired_time,
                kind=point.kind,
                studies=tuple(sorted({each.study_instance_uid for each in series})),
                series=series,
                days_since_surgery=(point.acquired_on - anchor.on).days if anchor else None,
            )
        )
    return Inputs(time_points=tuple(frozen))


def inputs_key(inputs: Inputs) -> str:
    """Return 64 hexadecimal digits naming the ordered input instances by UID and content."""
    return _sha256({"inputs": _named(inputs)})


def run_key(patient: tuple[str, str], task: str, inputs: Inputs, *, bundle_digest: str, task_digest: str) -> str:
    """Return 64 hexadecimal digits naming a run: patient (issuer, PatientID), task, inputs, model and task content."""
    return _sha256(
        {
            "patient": list(patient),
            "task": task,
            "inputs": _named(inputs),
            "bundle_digest": bundle_digest,
            "task_digest": task_digest,
        }
    )


def _named(inputs: Inputs) -> list[list[list[object]]]:
    return [
        [
            [str(series.role), [[each.sop_instance_uid, each.content_digest] for each in series.instances]]
            for series in point.series
        ]
        for point in inputs.time_points
    ]


def _input_series(role: Role, series: Series) -> InputSeries:
    return InputSeries(
        role=role,
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        frame_of_reference_uid=series.instances[0].frame_of_reference_uid,
        instances=tuple(
            InputInstance(
                sop_class_uid=each.sop_class_uid,
                sop_instance_uid=each.sop_instance_uid,
                content_digest=each.content_digest,
            )
            for each in series.instances
        ),
    )


def _sha256(fields: dict[str, object]) -> str:
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()
