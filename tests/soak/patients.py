"""Phantom patients for long runs: three or four studies each, the same for the same seed.

A study is a few small slices of noise; where the shipped model is to read it, a FLAIR series of a synthetic head.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread

from inference.phantom import make_patient
from inference.phantom.study import StudyOptions, write_study
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


def write_patients(folder: Path, count: int, *, seed: int, today: date, heads: bool = False) -> list[Patient]:
    """Write patients, or find them where they were written before."""
    make = _patient_with_a_head if heads else _patient
    return [make(folder, number, seed, today) for number in range(count)]


def sending_order(patients: list[Patient], *, seed: int) -> list[Study]:
    """Return all studies as a hospital sends them: mixed, and not always the oldest of a patient first."""
    rng = np.random.default_rng([seed, 1])
    first = [study for each in patients for study in each.studies[:FEWEST_STUDIES]]
    later = [study for each in patients for study in each.studies[FEWEST_STUDIES:]]
    place = {id(study): number // (6 * FEWEST_STUDIES) + rng.random() for number, study in enumerate(first)}
    place |= {id(study): rng.uniform(0.3, 1.1) * len(first) / (6 * FEWEST_STUDIES) for study in later}
    return sorted([*first, *later], key=lambda study: place[id(study)])


def _patient_with_a_head(folder: Path, number: int, seed: int, today: date) -> Patient:
    visits = FEWEST_STUDIES + number % 2
    made = make_patient(1000 * seed + number, n_visits=visits, last_visit=today - timedelta(days=1))
    studies = []
    for index in range(visits):
        where = folder / f"HEAD-{seed}-{number}-{index}"
        if not (where / "written").exists():
            write_study(made, index, where, StudyOptions(roles=("FLAIR",), truth=False))
            (where / "written").touch()
        paths = tuple(sorted(where.rglob("*.dcm")))
        studies.append(Study(patient_id=made.patient_id, number=index, paths=paths))
    return Patient(patient_id=made.patient_id, surgery=made.surgery, studies=tuple(studies))


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
