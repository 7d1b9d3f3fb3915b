"""Small FLAIR studies of one synthetic patient, a file per slice."""

from __future__ import annotations

import math
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from pathlib import Path

DAYS = (date(2025, 6, 2), date(2025, 9, 8), date(2025, 12, 1), date(2026, 2, 20))
ISSUER = "PHANTOM"
SLICES = 17  # of each of the four studies: as few as cover a brain


def flair_studies(folder: Path) -> list[Path]:
    """Write four small FLAIR studies of one synthetic patient, a file per slice."""
    rng = np.random.default_rng(5)
    affine = np.diag([4.0, 4.0, 6.0, 1.0])
    paths: list[Path] = []
    for number, day in enumerate(DAYS):
        pixels = rng.integers(0, 900, (SLICES, 16, 16), dtype=np.uint16)
        series = classic_series(pixels, affine, name=f"study {number}", **_flair(day))
        paths += write(series, folder / str(number))
    return paths


def flair_study(folder: Path, day: date, *, name: str, spacing_mm: float = 7.0, **attributes: Any) -> list[Path]:
    """Write one FLAIR study with as few slices as cover a brain; `name` makes its UIDs and its pixels."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    pixels = rng.integers(0, 900, (math.ceil(102 / spacing_mm), 12, 12), dtype=np.uint16)
    affine = np.diag([5.0, 5.0, spacing_mm, 1.0])
    return write(classic_series(pixels, affine, name=name, **{**_flair(day), **attributes}), folder / name)


def _flair(day: date) -> dict[str, Any]:
    return {
        "StudyDate": f"{day:%Y%m%d}",
        "SeriesDate": f"{day:%Y%m%d}",
        "AcquisitionDate": f"{day:%Y%m%d}",
        "AcquisitionTime": "101500",
        "SeriesDescription": "AX FLAIR",
        "ScanningSequence": ["SE", "IR"],
        "SequenceVariant": "SK",
        "MRAcquisitionType": "2D",
        "RepetitionTime": 9000,
        "EchoTime": 120,
        "InversionTime": 2500,
        "BodyPartExamined": "BRAIN",
        "QualityControlSubject": "YES",
        "IssuerOfPatientID": ISSUER,
        "PatientID": "PHANTOM-1",
        "PatientName": "PHANTOM^1",
        "PatientBirthDate": "20150101",
    }
