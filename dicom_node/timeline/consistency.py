"""What a reader of a trend must know of its scans: mixed techniques, and radiotherapy shortly before.

A model that compares scans may answer to a change of technique as if it were a change of the patient. Nothing is
refused here: what differs between the chosen time points is told, never mixed in silence.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.model import Reason, Role
from dicom_node.timeline.roles import series_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from dicom_node.timeline.model import CohortFacts, Series, TimePoint, Value
    from dicom_node.timeline.task import Task

TECHNIQUE: Final = ("mixed-2d-3d", "mixed-scanner", "mixed-field-strength", "mixed-plane", "mixed-contrast")
NO_AGENT: Final = frozenset({"", "0", "no", "none", "n/a", "without", "unknown"})
# Slices are told as mixed from half again as thick on, and from 1 mm more: 5.0 and 5.5 mm are one protocol.
SPACING_RATIO: Final = 1.5
SPACING_STEP_MM: Final = 1.0
GAUSS_PER_TESLA: Final = 10_000.0
STRONGEST_TESLA: Final = 100.0  # no scanner comes near; a larger figure is in gauss
# New enhancement within 12 weeks of radiotherapy is often pseudoprogression.
# Source: RANO criteria, Wen et al., J Clin Oncol 2010; 28:1963.
AFTER_RADIOTHERAPY_DAYS: Final = 84


def consistency_flags(points: Sequence[TimePoint], task: Task) -> tuple[Reason, ...]:
    """Tell what differs between the chosen time points, for each role that the task asks for.

    A value that is not told conflicts with nothing. What is the same for several roles is told once.
    """
    roles_of: dict[tuple[str, str], list[Role]] = defaultdict(list)
    for role in task.roles.wanted:
        series = {point.acquired_on: point.chosen[role] for point in points if role in point.chosen}
        for code, text in _differences(role, series):
            roles_of[code, text].append(role)
    mixed = [Reason(code=code, text=f"{', '.join(roles)}: {text}") for (code, text), roles in roles_of.items()]
    return (*mixed, *_lacking_roles(points, task))


def radiotherapy_flags(points: Sequence[TimePoint], cohort: CohortFacts) -> tuple[Reason, ...]:
    """Name the chosen scans that lie within twelve weeks after radiotherapy."""
    flags = []
    for point in points:
        since = [(point.acquired_on - day).days for day in cohort.radiotherapy if day <= point.acquired_on]
        if since and min(since) <= AFTER_RADIOTHERAPY_DAYS:
            text = f"{point.acquired_on.isoformat()} lies {min(since)} days after radiotherapy"
            flags.append(Reason(code="after-radiotherapy", text=text))
    return tuple(flags)


def _differences(role: Role, series: dict[date, Series]) -> list[tuple[str, str]]:
    """Compare the series of one role over the days: the code of a flag, and which days have which value."""
    found = []
    techniques = {day: _technique(each) for day, each in series.items()}
    for code in TECHNIQUE:
        if code == "mixed-contrast" and role in {Role.T1, Role.T1C}:
            continue  # the role itself says whether contrast agent was given
        told = {day: technique[code] for day, technique in techniques.items()}
        if len(set(told.values()) - {""}) > 1:
            found.append((code, _by_value(told)))
    spacings = {day: each.spacing_mm for day, each in series.items() if each.spacing_mm > 0}
    if spacings and _differ(min(spacings.values()), max(spacings.values())):
        found.append(("mixed-slice-spacing", _by_value({day: f"{mm:.1f} mm" for day, mm in spacings.items()})))
    return found


def _differ(thin_mm: float, thick_mm: float) -> bool:
    return thick_mm >= SPACING_RATIO * thin_mm and thick_mm - thin_mm >= SPACING_STEP_MM


def _by_value(told: dict[date, str]) -> str:
    """Say which days have which value, in order of the day that has it first."""
    days: dict[str, list[str]] = defaultdict(list)
    for day in sorted(told):
        days[told[day] or "not told"].append(day.isoformat())
    return "; ".join(f"{value} on {', '.join(on)}" for value, on in days.items())


def _lacking_roles(points: Sequence[TimePoint], task: Task) -> list[Reason]:
    """Name an optional role that some time points have and others lack."""
    flags = []
    for role in task.roles.optional:
        without = [point.acquired_on.isoformat() for point in points if role not in point.chosen]
        if without and len(without) < len(points):
            flags.append(Reason(code="mixed-roles", text=f"{role}: none on {', '.join(without)}"))
    return flags


def _technique(series: Series) -> dict[str, str]:
    """Say how a series was made: one value per code of a flag, empty where it is not told."""
    attributes = series_attributes(series.instances)
    texts = {key: value for key, value in attributes.items() if isinstance(value, str)}
    agent = texts.get("ContrastBolusAgent", "").casefold() not in NO_AGENT
    return {
        "mixed-2d-3d": texts.get("MRAcquisitionType", ""),
        "mixed-scanner": texts.get("ManufacturerModelName") or texts.get("Manufacturer", ""),
        "mixed-field-strength": _tesla(attributes.get("MagneticFieldStrength")),
        "mixed-plane": series.plane,
        "mixed-contrast": "after contrast agent" if agent else "no contrast agent told",
    }


def _tesla(told: Value | None) -> str:
    """Return the nominal field strength; some scanners write gauss, and some the exact field (2.89 T for 3 T)."""
    if not isinstance(told, float | int) or told <= 0:
        return ""
    tesla = told / GAUSS_PER_TESLA if told > STRONGEST_TESLA else told
    return f"{round(tesla * 2) / 2 if tesla >= 1 else round(tesla, 2):g} T"
