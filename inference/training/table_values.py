"""One cell of a cohort table: a date, an age, a sex, a path; each refused with what was expected and what was found."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

_ISO = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ]00:00:00(?:\.0+)?)?")
_LONGEST_AGE_YEARS = 120
_EARLIEST_YEAR = 1900
# 1.23457E+11: a spreadsheet took an ID for a number, and its digits are lost.
_SHORTENED = re.compile(r"\d([.,]\d+)?E\+?\d+", re.IGNORECASE)
_NIFTI = (".nii", ".nii.gz")
SEXES = ("F", "M", "O")


class CellError(ValueError):
    """A cell cannot be read: what was expected, what was found."""

    def __init__(self, expected: str, found: str) -> None:
        """Keep both sides for the table's list of problems."""
        self.expected, self.found = expected, found
        super().__init__(f"expected {expected}, found {found}")


def read_patient(text: str) -> str:
    """Return a patient's name in the table.

    Raises:
        CellError: if there is none, or a spreadsheet shortened a number.
    """
    if not text:
        raise CellError("a patient", "nothing")
    if _SHORTENED.fullmatch(text):
        raise CellError("a patient", f"{text!r}, a number that a spreadsheet shortened; format the column as text")
    return text


def read_date(text: str, today: date) -> date:
    """Return an ISO date that has happened by `today`.

    Raises:
        CellError: if it is written otherwise, does not exist, or lies ahead.
    """
    matched = _ISO.fullmatch(text)
    if matched is None:
        raise CellError("a date like 2025-03-14", _odd_date(text))
    try:
        day = date.fromisoformat(matched[1])
    except ValueError as error:
        raise CellError("a date like 2025-03-14", f"{text!r}, a day that does not exist") from error
    if day.year < _EARLIEST_YEAR or day > today:
        raise CellError(f"a date from {_EARLIEST_YEAR} to {today.isoformat()}", f"{text!r}")
    return day


def _odd_date(text: str) -> str:
    """Say how a date is written wrongly."""
    if text.isdigit() and len(text) == 5:
        return f"{text!r}, a spreadsheet's day number; format the column as YYYY-MM-DD"
    if text.isdigit() and len(text) == 8:
        return f"{text!r}, a date without hyphens"
    if re.fullmatch(r"\d{1,4}([./])\d{1,2}\1\d{1,4}", text):
        return f"{text!r}, where day and month cannot be told apart"
    return repr(text) if text else "nothing"


def read_age(text: str) -> float:
    """Return an age in years.

    Raises:
        CellError: if it is no number, or no human's age.
    """
    try:
        years = float(text)
    except ValueError as error:
        raise CellError("an age in years, as 12 or 12.5", repr(text)) from error
    if not 0 <= years <= _LONGEST_AGE_YEARS:
        raise CellError(f"an age of 0 to {_LONGEST_AGE_YEARS} years", repr(text))
    return years


def read_sex(text: str) -> str:
    """Return F, M or O.

    Raises:
        CellError: if it is anything else.

    Source: PS3.3 C.7.1.1 (Patient's Sex).
    """
    if text.upper() not in SEXES:
        raise CellError(f"one of {', '.join(SEXES)}", repr(text))
    return text.upper()


def read_path(text: str, base: Path) -> Path:
    """Return the path of a folder of DICOM files, of one DICOM file or of a NIfTI file; `base` holds relative ones.

    Raises:
        CellError: if nothing lies there, or an empty folder.
    """
    path = (base / Path(text).expanduser()).resolve()
    if not path.exists():
        raise CellError("a DICOM folder, a DICOM file or a NIfTI file", f"{text!r}, where nothing lies")
    if path.is_dir() and not any(each.is_file() for each in path.rglob("*")):
        raise CellError("a DICOM folder", f"{text!r}, which holds no file")
    return path


def is_nifti(path: Path) -> bool:
    """Return whether a path names a NIfTI file."""
    return path.name.lower().endswith(_NIFTI)
