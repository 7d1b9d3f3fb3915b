"""The cohort as a table: one line per scan, read whole or not at all, with everything that is wrong told at once.

Columns: `patient`, `scan_date`, one column per role (`FLAIR`, `T1`, ...) with the path of a DICOM folder or file or of
a NIfTI file, and what is known of the patient: `surgery`, `event`, `last_follow_up`, `site`, `age` (years, at the
scan), `sex`. Relative paths start at the table's folder. What is known of a patient may stand in one of its lines or
in all of them, but never differently. The last follow-up is the last day on which the patient was known to be free of
an event; where an event is recorded it may be left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from inference.training.table_file import Problem, TableError, TableLines, read_lines
from inference.training.table_values import CellError, read_age, read_date, read_path, read_patient, read_sex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import date
    from pathlib import Path

ROLES = ("T1", "T1c", "T2", "FLAIR")
_REQUIRED = ("patient", "scan_date")
_DATES = ("scan_date", "surgery", "event", "last_follow_up")
_OF_PATIENT = ("surgery", "event", "last_follow_up", "site", "sex")
COLUMNS = (*_REQUIRED, *ROLES, *_OF_PATIENT, "age")
_YEAR_DAYS = 365.25
# Whole years are rounded down, so two right ages may put the birth almost a year apart.
_AGE_TOLERANCE_YEARS = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TableScan:
    """One line: when the scan was acquired and where its series lie, by role; `line` counts as the table does."""

    line: int
    acquired: date
    series: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePatient:
    """One patient of the table: scans oldest first, one per day, and what is known of what happened."""

    patient: str
    scans: tuple[TableScan, ...]
    surgery: date | None
    event: date | None  # the first one; None: none was observed
    last_follow_up: date  # last day known to be free of an event, or later than the event
    site: str = ""
    sex: str = ""
    born: date | None = None  # about, from the ages given

    def age_years(self, on: date) -> float:
        """Return the age on a day, NaN where none was given."""
        return float("nan") if self.born is None else (on - self.born).days / _YEAR_DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortTable:
    """A table that was read: patients in the order of their names, roles as columns, and what was odd but readable."""

    path: Path
    roles: tuple[str, ...]
    patients: tuple[TablePatient, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line whose cells could be read; a cell that is empty or wrong is not in `values`."""

    number: int
    values: Mapping[str, Any]
    series: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class _Told:
    """Where problems are collected, with the word that the table counts by."""

    unit: str
    problems: list[Problem] = field(default_factory=list)

    def tell(self, line: int, column: str, expected: str, found: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(line=line, column=column, expected=expected, found=found, unit=self.unit))


def read_table(path: Path, *, today: date) -> CohortTable:
    """Read and check a whole table.

    Args:
        path: CSV in UTF-8, or Parquet.
        today: later days have not happened and are refused.

    Raises:
        TableError: with every problem by line, column, what was expected and what was found.
    """
    raw = read_lines(path)
    told = _Told(raw.unit, [*raw.problems])
    _check_columns(raw, told)
    roles = tuple(role for role in ROLES if role in raw.columns)
    readers = _readers(raw, roles, today)
    lines = [_line(number, cells, readers, told) for number, cells in raw.lines]
    by_patient: dict[str, list[_Line]] = defaultdict(list)
    for each in lines:
        if "patient" in each.values:
            by_patient[each.values["patient"]].append(each)
    _check_paths_once(lines, told)
    for each_lines in by_patient.values():
        _check_patient(each_lines, told)
    if not raw.lines and not told.problems:
        told.tell(0, "", "at least one scan", "none")
    if told.problems:
        raise TableError(path, told.problems)
    patients = tuple(_patient(name, by_patient[name]) for name in sorted(by_patient))
    return CohortTable(path=path, roles=roles, patients=patients, remarks=(*raw.remarks, *_lookalikes(by_patient)))


def _check_columns(raw: TableLines, told: _Told) -> None:
    """Tell unknown and missing columns."""
    first = 0 if raw.unit == "row" else 1
    for name in raw.columns:
        if name not in COLUMNS:
            told.tell(first, name, f"one of {', '.join(COLUMNS)}", "an unknown column")
    for name in _REQUIRED:
        if name not in raw.columns:
            told.tell(first, name, "this column", "none")
    if not any(role in raw.columns for role in ROLES):
        told.tell(first, "", f"at least one role as a column ({', '.join(ROLES)})", "none")
    if not {"event", "last_follow_up"} & set(raw.columns):
        told.tell(first, "", "a column event or last_follow_up", "neither")


def _readers(raw: TableLines, roles: Sequence[str], today: date) -> dict[str, Callable[[str], Any]]:
    """Return what reads the cells of each column."""
    readers: dict[str, Callable[[str], Any]] = {"patient": read_patient, "site": str, "sex": read_sex, "age": read_age}
    readers |= {name: partial(read_date, today=today) for name in _DATES}
    readers |= {role: partial(read_path, base=raw.path.parent) for role in roles}
    return {name: reader for name, reader in readers.items() if name in raw.columns}


def _line(number: int, cells: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]], told: _Told) -> _Line:
    """Read the cells of a line, telling those that cannot be."""
    values: dict[str, Any] = {}
    for column, reader in readers.items():
        if not cells[column] and column not in _REQUIRED:
            continue
        try:
            values[column] = reader(cells[column])
        except CellError as error:
            told.tell(number, column, error.expected, error.found)
    roles = [role for role in ROLES if role in readers]
    if roles and not any(cells[role] for role in roles):
        told.tell(number, "/".join(roles), "a path in one of them", "none")
    return _Line(number=number, values=values, series={role: values.pop(role) for role in roles if role in values})


def _check_paths_once(lines: Sequence[_Line], told: _Told) -> None:
    """Tell a path that stands in two places: one image as two scans, or as two roles."""
    first: dict[Path, int] = {}
    for line in lines:
        for role, path in line.series.items():
            if path in first:
                told.tell(line.number, role, "every path once", f"one that stands in {told.unit} {first[path]} already")
            first.setdefault(path, line.number)


def _check_patient(lines: Sequence[_Line], told: _Told) -> None:
    """Tell what the lines of one patient contradict each other in."""
    days: dict[date, int] = {}
    for line in lines:
        day = line.values.get("scan_date")
        if day in days:
            told.tell(line.number, "scan_date", "one line per patient and day", f"{told.unit} {days[day]} already")
        elif day is not None:
            days[day] = line.number
    facts = {name: _agreed(name, lines, told) for name in _OF_PATIENT}
    _check_order(facts, lines, told)
    _check_ages(lines, told)


def _agreed(name: str, lines: Sequence[_Line], told: _Told) -> tuple[int, Any] | None:
    """Return (line, value) of the first line that says something, telling every line that says otherwise."""
    said = [(line.number, line.values[name]) for line in lines if name in line.values]
    for number, value in said[1:]:
        if value != said[0][1]:
            told.tell(number, name, f"{said[0][1]} as in {told.unit} {said[0][0]}, of the same patient", str(value))
    return said[0] if said else None


def _check_order(facts: Mapping[str, tuple[int, Any] | None], lines: Sequence[_Line], told: _Told) -> None:
    """Tell days of one patient that cannot follow each other as they do."""
    surgery, event, seen = facts["surgery"], facts["event"], facts["last_follow_up"]
    if event and surgery and event[1] < surgery[1]:
        told.tell(event[0], "event", f"a day not before the surgery ({surgery[1]})", str(event[1]))
    if event and seen and seen[1] < event[1]:
        told.tell(seen[0], "last_follow_up", f"a day not before the event ({event[1]})", str(seen[1]))
    if not event and not seen and not any({"event", "last_follow_up"} & _wrong(line, told) for line in lines):
        told.tell(lines[0].number, "event/last_follow_up", "one of them", "neither in any line of the patient")
    newest = max((line for line in lines if "scan_date" in line.values), key=_day, default=None)
    if seen and newest and seen[1] < _day(newest):
        told.tell(newest.number, "last_follow_up", f"a day not before the scan ({_day(newest)})", str(seen[1]))


def _wrong(line: _Line, told: _Told) -> set[str]:
    """Return the columns of a line that hold something unreadable, which is told already."""
    return {each.column for each in told.problems if each.line == line.number}


def _check_ages(lines: Sequence[_Line], told: _Told) -> None:
    """Tell ages that two scans of one person cannot have."""
    known = sorted((line for line in lines if {"age", "scan_date"} <= set(line.values)), key=_day)
    for older, newer in pairwise(known):
        passed = (_day(newer) - _day(older)).days / _YEAR_DAYS
        expected = older.values["age"] + passed
        if abs(newer.values["age"] - expected) > _AGE_TOLERANCE_YEARS:
            told.tell(
                newer.number,
                "age",
                f"about {expected:.0f}, from {older.values['age']:g} in {told.unit} {older.number}",
                f"{newer.values['age']:g}",
            )


def _day(line: _Line) -> date:
    """Return the day of a line's scan."""
    day: date = line.values["scan_date"]
    return day


def _patient(name: str, lines: Sequence[_Line]) -> TablePatient:
    """Put the lines of one patient together; they have been checked."""
    facts: dict[str, Any] = {
        column: next((line.values[column] for line in lines if column in line.values), None) for column in _OF_PATIENT
    }
    ordered = sorted(lines, key=_day)
    return TablePatient(
        patient=name,
        scans=tuple(TableScan(line=line.number, acquired=_day(line), series=line.series) for line in ordered),
        surgery=facts["surgery"],
        event=facts["event"],
        last_follow_up=next(facts[each] for each in ("last_follow_up", "event") if facts[each]),
        site=facts["site"] or "",
        sex=facts["sex"] or "",
        born=min(_births(ordered), default=None),
    )


def _births(lines: Sequence[_Line]) -> Iterator[date]:
    """Yield the day of birth that each age given means; an age in whole years means a day at most a year too late."""
    for line in lines:
        if "age" in line.values:
            day = _day(line)
            yield day.fromordinal(max(1, day.toordinal() - round(line.values["age"] * _YEAR_DAYS)))


def _lookalikes(names: Mapping[str, object]) -> list[str]:
    """Remark on patients whose names differ in case or leading zeros only: one person in two parts would leak."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.casefold().lstrip("0")].append(name)
    return [
        f"patients {one!r} and {other!r} differ in case or leading zeros only: one person, or two?"
        for group in alike.values()
        for one, other in combinations(sorted(group), 2)
    ]
