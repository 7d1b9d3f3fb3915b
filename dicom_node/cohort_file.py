"""The cohort as a CSV file: read whole or not at all, every wrong line told with its number.

Columns: `patient_id` (required), `issuer`, `diagnosis`, `birth_date`, `surgeries`, `radiotherapy`, `events`.
Dates are ISO 8601 (2025-03-14, a surgery also 2025-03-14T13:40); several are separated by `;`; an event may name its
kind after a colon (2025-09-01:recurrence).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Final

from dicom_node.errors import ConfigError
from dicom_node.timeline.model import CohortFacts, Event, Surgery

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLUMNS: Final = ("patient_id", "issuer", "diagnosis", "birth_date", "surgeries", "radiotherapy", "events")


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortRow:
    """One patient's line."""

    patient_id: str
    issuer: str
    facts: CohortFacts


def read_cohort(path: Path, *, default_issuer: str) -> list[CohortRow]:
    """Read a cohort file.

    Raises:
        ConfigError: with one line per problem: file, line, column, rule; never a value that could name a patient.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames)
            numbered = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError((f"{path}: cannot be read as UTF-8 CSV: {type(error).__name__}",)) from error
    rows: list[CohortRow] = []
    problems: list[str] = []
    first_line: dict[tuple[str, str], int] = {}
    for number, row in numbered:
        try:
            found = _row(row, default_issuer)
        except ValueError as error:
            problems.append(f"{path}: line {number}: {error}")
            continue
        before = first_line.setdefault((found.issuer, found.patient_id), number)
        if before != number:
            problems.append(f"{path}: line {number}: patient_id: stands in line {before} already; one line per patient")
        rows.append(found)
    if problems:
        raise ConfigError(tuple(problems))
    return rows


def _check_columns(path: Path, found: object) -> None:
    names = [str(name) for name in found] if isinstance(found, list | tuple) else []
    unknown = [name for name in names if name not in COLUMNS]
    problems = [f"{path}: line 1: unknown column {name!r}; expected {', '.join(COLUMNS)}" for name in unknown]
    if "patient_id" not in names:
        problems.append(f"{path}: line 1: column patient_id is missing")
    if problems:
        raise ConfigError(tuple(problems))


def _row(row: Mapping[str, str | None], default_issuer: str) -> CohortRow:
    if None in row or None in row.values():
        msg = "another number of fields than the header"
        raise ValueError(msg)
    text = {name: (value or "").strip() for name, value in row.items()}
    if not text["patient_id"]:
        msg = "patient_id: empty"
        raise ValueError(msg)
    birth = text.get("birth_date", "")
    return CohortRow(
        patient_id=text["patient_id"],
        issuer=text.get("issuer") or default_issuer,
        facts=CohortFacts(
            diagnosis=text.get("diagnosis", ""),
            birth_date=_date("birth_date", birth) if birth else None,
            surgeries=tuple(sorted((_surgery(each) for each in _several(text, "surgeries")), key=lambda each: each.on)),
            radiotherapy=tuple(sorted(_date("radiotherapy", each) for each in _several(text, "radiotherapy"))),
            events=tuple(sorted((_event(each) for each in _several(text, "events")), key=lambda each: each.on)),
        ),
    )


def _several(text: Mapping[str, str], column: str) -> list[str]:
    return [each.strip() for each in text.get(column, "").split(";") if each.strip()]


def _surgery(text: str) -> Surgery:
    if "T" not in text:
        return Surgery(on=_date("surgeries", text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        msg = "surgeries: expected 2025-03-14 or 2025-03-14T13:40"
        raise ValueError(msg) from error
    return Surgery(on=moment.date(), at=time(moment.hour, moment.minute, moment.second))


def _event(text: str) -> Event:
    day, _, kind = text.partition(":")
    return Event(on=_date("events", day.strip()), kind=kind.strip() or "recurrence")


def _date(column: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        msg = f"{column}: expected a date like 2025-03-14"
        raise ValueError(msg) from error
