"""Whom a task is for: what is unknown does not make eligible."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from dicom_node.timeline.cohort_union import BIRTH_DATES_DIFFER, DIAGNOSES_DIFFER
from dicom_node.timeline.model import Reason

if TYPE_CHECKING:
    from dicom_node.timeline.model import CohortFacts, PatientFacts, TimeLine
    from dicom_node.timeline.task import Task

DAYS_PER_YEAR = 365.2425
_AGE_UNITS = {"D": 1.0, "W": 7.0, "M": DAYS_PER_YEAR / 12, "Y": DAYS_PER_YEAR}  # PS3.5 6.2, AS


def why_ineligible(
    time_line: TimeLine, task: Task, cohort: CohortFacts, patient: PatientFacts, today: date
) -> tuple[Reason, ...]:
    """Return every reason against the patient; empty: eligible."""
    reasons = (
        _diagnosis(task, cohort),
        _body_part(time_line),
        _birth_date_conflict(task, cohort)
        or _age(task, age_years(time_line, cohort, patient, today), known=bool(time_line.time_points)),
    )
    return tuple(reason for reason in reasons if reason is not None)


def age_years(time_line: TimeLine, cohort: CohortFacts, patient: PatientFacts, today: date) -> float | None:
    """Return the age at the newest scan (today where there is none), None if nothing tells it.

    The cohort's birth date counts before the images', and that before Patient's Age.
    """
    points = time_line.time_points
    on = points[-1].acquired_on if points else today
    born = cohort.birth_date or _birth_date(patient.birth_date)
    if born is not None:
        return (on - born).days / DAYS_PER_YEAR
    series = [each for study in points[-1].studies for each in study.series] if points else []
    ages = sorted(_patient_age(instance.text("PatientAge")) for each in series for instance in each.instances)
    known = [age for age in ages if age >= 0]
    return known[-1] if known else None


def _diagnosis(task: Task, cohort: CohortFacts) -> Reason | None:
    wanted = task.eligibility.diagnosis
    if not wanted:
        return None
    differing = next((each for each in cohort.conflicts if each.code == DIAGNOSES_DIFFER), None)
    if differing is not None:
        return differing
    if not cohort.diagnosis.strip():
        return Reason(code="diagnosis-unknown", text="diagnosis unknown: enter it in the cohort")
    if cohort.diagnosis.strip().casefold() not in {each.casefold() for each in wanted}:
        return Reason(code="diagnosis", text=f"diagnosis {cohort.diagnosis.strip()} (expected {', '.join(wanted)})")
    return None


def _body_part(time_line: TimeLine) -> Reason | None:
    """Refuse a patient of whom only other parts of the body were imaged, or nobody says which."""
    series = [each for study in time_line.studies for each in study.series]
    codes = {"body-part", "body-part-unknown"}
    wrong = [each.excluded for each in series if each.excluded is not None and each.excluded.code in codes]
    if series and len(wrong) == len(series):
        return Reason(code="body-part", text=f"no series of what is asked for: {min(reason.text for reason in wrong)}")
    return None


def _birth_date_conflict(task: Task, cohort: CohortFacts) -> Reason | None:
    """Refuse to choose between birth dates where the age decides."""
    if task.eligibility.age_years is None:
        return None
    return next((each for each in cohort.conflicts if each.code == BIRTH_DATES_DIFFER), None)


def _age(task: Task, age: float | None, *, known: bool) -> Reason | None:
    limits = task.eligibility.age_years
    if limits is None or (age is None and not known):
        return None
    if age is None:
        return Reason(code="age-unknown", text="age unknown: neither birth date nor age is told")
    if not limits[0] <= age < limits[1] + 1:
        return Reason(code="age", text=f"{int(age)} years at the newest scan (expected {limits[0]:g} to {limits[1]:g})")
    return None


def _birth_date(text: str) -> date | None:
    digits = text.replace(".", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def _patient_age(text: str) -> float:
    """Read an AS value such as 045Y in years; -1 if it is none."""
    if len(text) != 4 or not text[:3].isdigit() or text[3] not in _AGE_UNITS:
        return -1.0
    return int(text[:3]) * _AGE_UNITS[text[3]] / DAYS_PER_YEAR
