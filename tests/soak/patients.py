"""Phantom patients for long runs: few small slices a study, three or four studies each, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread

from tests.factories.flair import ISSUER, flair_study

if TYPE_CHECKING:
    from pathlib import Path

SURGERY_DAYS_AGO, FIRST_DAYS_AGO, APART_DAYS = 500, 360, 100
FEWEST_STUDIES = 3  # that the task answers on


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study as files, in the order of sending."""

    patient_id: str
    number: int
    paths: tuple[Path, ...]
    again: bool = False  # sent although it was acknowledged


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A phantom patient; the day is the newest study's latest, so that a run may go on another day."""

    patient_id: str
    surgery: date
    studies: tuple[Study, ...]

    @property
    def cohort_row(self) -> str:
        """The patient's line of a cohort file."""
        return f"{self.patient_id},{ISSUER},glioma,{self.surgery.isoformat()}"

    def sop_instance_uids(self) -> set[str]:
        """Return every instance of every study."""
        return {sop_instance_uid(path) for study in self.studies for path in study.paths}


def sop_instance_uid(path: Path) -> str:
    """Return the SOP Instance UID of a file."""
    return str(dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)


def write_patients(folder: Path, count: int, *, seed: int, today: date) -> list[Patient]:
    """Write patients, or find them where they were written before."""
    return [_patient(folder, number, seed, today) for number in range(count)]


def sending_order(patients: list[Patient], *, seed: int) -> list[Study]:
    """Return all studies as a hospital sends them: mixed, and not always the oldest of a patient first."""
    rng = np.random.default_rng([seed, 1])
    first = [study for each in patients for study in each.studies[:FEWEST_STUDIES]]
    later = [study for each in patients for study in each.studies[FEWEST_STUDIES:]]
    place = {id(study): number // (6 * FEWEST_STUDIES) + rng.random() for number, study in enumerate(first)}
    place |= {id(study): rng.uniform(0.3, 1.1) * len(first) / (6 * FEWEST_STUDIES) for study in later}
    return sorted([*first, *later], key=lambda study: place[id(study)])


def _patient(folder: Path, number: int, seed: int, today: date) -> Patient:
    patient_id = f"SOAK-{seed}-{number}"
    studies = []
    for index in range(FEWEST_STUDIES + number % 2):
        name = f"{patient_id}-{index}"
        day = today - timedelta(days=FIRST_DAYS_AGO - APART_DAYS * index)
        paths = sorted((folder / name).glob("*.dcm"))
        if not (folder / name / "written").exists():
            paths = flair_study(folder, day, name=name, PatientID=patient_id, PatientName=f"PHANTOM^{number}")
            (folder / name / "written").touch()
        studies.append(Study(patient_id=patient_id, number=index, paths=tuple(paths)))
    return Patient(patient_id=patient_id, surgery=today - timedelta(days=SURGERY_DAYS_AGO), studies=tuple(studies))
