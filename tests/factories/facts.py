"""Instance facts of invented patients: what a scanner would say, without pixels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.timeline.model import CohortFacts, InstanceFacts, PatientFacts, Surgery, Value
from dicom_node.timeline.selection import load_selection
from dicom_node.timeline.task import Task, load_task
from inference.geometry import Plane

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG = Path(__file__).resolve().parents[2] / "config"
SELECTION = load_selection(CONFIG / "selection.yaml")
GLIOMA = load_task(CONFIG / "tasks" / "glioma_recurrence.yaml")
BUNDLE_DIGEST = "sha256:" + "0" * 64

PATIENT = PatientFacts(
    issuer="HOSPITAL", patient_id="SENTINEL-4711", name="SENTINEL^PATIENT", birth_date="20100203", sex="F"
)
SURGERY = date(2025, 1, 10)

BRAIN: Mapping[str, Value] = {"Modality": "MR", "ImageType": ("ORIGINAL", "PRIMARY", "M"), "BodyPartExamined": "BRAIN"}
FLAIR: Mapping[str, Value] = {
    **BRAIN,
    "SeriesDescription": "t2_tse_dark-fluid_tra",
    "ScanningSequence": ("SE", "IR"),
    "EchoTime": 95.0,
    "RepetitionTime": 9000.0,
    "InversionTime": 2500.0,
}
T1: Mapping[str, Value] = {
    **BRAIN,
    "SeriesDescription": "t1_se_tra",
    "ScanningSequence": "SE",
    "EchoTime": 9.0,
    "RepetitionTime": 550.0,
}
T1C: Mapping[str, Value] = {**T1, "ContrastBolusAgent": "Gadovist"}
DWI: Mapping[str, Value] = {
    **BRAIN,
    "SeriesDescription": "ep2d_diff",
    "ScanningSequence": "EP",
    "DiffusionBValue": 1000.0,
}


def uid(*words: object) -> str:
    """Return a valid UID that says nothing, the same for the same words."""
    return "2.25." + str(int(hashlib.sha256(repr(words).encode()).hexdigest()[:30], 16))


def a_series(
    day: date,
    attributes: Mapping[str, Value] = FLAIR,
    *,
    study: str = "A",
    name: str = "1",
    slices: int = 24,
    spacing_mm: float = 6.0,
    at: time | None = time(9, 30),
    patient: PatientFacts = PATIENT,
    **changes: Any,
) -> list[InstanceFacts]:
    """Return an axial series, one instance per slice, from bottom to top."""
    return [
        replace(
            InstanceFacts(
                sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
                sop_instance_uid=uid(patient.key, day, study, name, number),
                series_instance_uid=uid(patient.key, day, study, name),
                study_instance_uid=uid(patient.key, day, study),
                content_digest="sha256:" + hashlib.sha256(repr((day, study, name, number)).encode()).hexdigest(),
                patient=patient,
                attributes=attributes,
                acquired_on=day,
                acquired_time=at,
                acquired_from="AcquisitionDate",
                frame_of_reference_uid=uid(patient.key, day, study, "frame"),
                instance_number=slices - number,
                planes=(
                    Plane(
                        position_mm=(-120.0, -120.0, number * spacing_mm),
                        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                        spacing_mm=(1.0, 1.0),
                        rows=240,
                        columns=240,
                        thickness_mm=spacing_mm,
                    ),
                ),
            ),
            **changes,
        )
        for number in range(slices)
    ]


def follow_ups(*days: date, **options: Any) -> list[InstanceFacts]:
    """Return one FLAIR series per day."""
    return [instance for day in days for instance in a_series(day, **options)]


def a_cohort(**changes: Any) -> CohortFacts:
    """Return a patient operated on once for a low-grade glioma."""
    return replace(CohortFacts(diagnosis="low-grade glioma", surgeries=(Surgery(on=SURGERY),)), **changes)


def a_task(**sections: Mapping[str, Any]) -> Task:
    """Return the shipped task with some keys of some sections changed: `a_task(gates={"min_gap_days": 0})`."""
    content = GLIOMA.model_dump(mode="json")
    for section, changes in sections.items():
        content[section] = {**content[section], **changes} if isinstance(content[section], dict) else changes
    return Task.model_validate(content)
