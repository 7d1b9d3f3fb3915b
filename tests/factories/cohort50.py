"""Fifty phantom patients with the histories that make a time line hard, as small real DICOM files and a cohort file.

Dates, demographics, surgeries, events, scanners and headers are those of `inference.phantom`; the pixels are small and
mean nothing. The first few patients are written slice by slice, the others as one enhanced object per series.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.phantom import StudyOptions, make_patient, write_volume

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom import PhantomPatient

COUNT = 50
CLASSIC = 2  # patients written slice by slice
SHAPE = (24, 12, 10)
NORMAL_MM, THICK_MM = 6.0, 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One study to write: its visit's number, its series, and how far apart the slices lie."""

    visit: int
    roles: tuple[str, ...] = ("FLAIR",)
    spacing_mm: float = NORMAL_MM


def write_cohort(folder: Path, count: int = COUNT) -> tuple[Path, Path]:
    """Write all patients' files and the cohort; return the folder of the files and the cohort file."""
    images, table = folder / "images", folder / "cohort.csv"
    rows = []
    for seed in range(count):
        patient, scans = _history(make_patient(seed, n_visits=1 + seed % 8))
        for number, scan in enumerate(scans):
            _write(patient, scan, images / patient.patient_id / f"{number:02d}", enhanced=seed >= CLASSIC)
        rows.append(_row(patient))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return images, table


def _history(patient: PhantomPatient) -> tuple[PhantomPatient, list[Scan]]:
    """Add what a hospital adds: scans around the surgery, a second study on a day, a missing FLAIR, thick slices."""
    seed, follow_ups = patient.seed, len(patient.visits)
    scans = [Scan(visit=number) for number in range(follow_ups)]
    extra = list(patient.visits)

    def also(day: date, **options: Any) -> None:
        extra.append(replace(patient.visits[0], acquired=day))
        scans.append(Scan(visit=len(extra) - 1, **options))

    if seed % 3 == 0:
        also(patient.surgery - timedelta(days=9), roles=("T1", "FLAIR"))
    if seed % 4 == 1:
        also(patient.surgery)
        also(patient.surgery + timedelta(days=1))
    if seed % 4 == 2:
        also(patient.visits[-1].acquired)  # a second study on the day of the last
    if seed % 7 == 2:
        scans[seed % follow_ups] = replace(scans[seed % follow_ups], roles=("T1", "T2"))
    if seed % 6 == 3:
        scans[seed % follow_ups] = replace(scans[seed % follow_ups], spacing_mm=THICK_MM)
    if seed % 5 == 1:
        also(patient.visits[0].acquired + timedelta(days=5))  # nearer than the smallest gap
    return replace(patient, visits=tuple(extra)), scans


def _row(patient: PhantomPatient) -> dict[str, str]:
    seed = patient.seed
    surgeries = [patient.surgery]
    if seed % 5 == 3:
        surgeries.append(patient.visits[0].acquired + timedelta(days=40))
    diagnosis = {4: "", 5: "meningioma"}.get(seed % 10, "low-grade glioma")
    return {
        "patient_id": patient.patient_id,
        "issuer": "PHANTOM",
        "diagnosis": diagnosis,
        "birth_date": patient.born.isoformat(),
        "surgeries": ";".join(day.isoformat() for day in surgeries) if seed % 11 else "",
        "events": f"{patient.event.isoformat()}:recurrence" if patient.event and seed % 2 else "",
    }


def _write(patient: PhantomPatient, scan: Scan, folder: Path, *, enhanced: bool) -> None:
    affine = np.diag([15.0, 18.0, scan.spacing_mm, 1.0])
    affine[:3, 3] = (-70.0, -90.0, -60.0)
    options = StudyOptions(enhanced=enhanced, truth=False)
    for number, role in enumerate(scan.roles):
        write_volume(
            _pixels(patient, scan.visit, number), affine, patient, scan.visit, folder / role, role=role, options=options
        )


def _pixels(patient: PhantomPatient, visit: int, number: int) -> NDArray[np.float32]:
    rng = np.random.default_rng([patient.seed, visit, number])
    return rng.integers(0, 900, SHAPE).astype(np.float32)
