"""The cohort as a CSV file: read whole or not at all, every wrong line told with its number.

Columns: `patient_id` (required), `issuer`, and the fields of `cohort_values`. Comma, semicolon or tab separates them,
as the first line does: spreadsheets of many countries write semicolons. Where it is the semicolon, several dates in
one field are separated by `|`, or stand in quotes. An empty field forgets what was recorded; a column that the file
does not have leaves it.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dicom_node.cohort_values import FIELDS, read_facts
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from pathlib import Path

    from dicom_node.timeline.model import CohortFacts

COLUMNS: Final = ("patient_id", "issuer", *FIELDS)
DELIMITERS: Final = (",", ";", "\t")
LONGEST_ID: Final = 64  # characters, PS3.5 6.2 (LO)
# 1.23457E+11: a spreadsheet took an ID for a number, and its digits are lost
_SHORTENED: Final = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortRow:
    """One patient's line; `facts` holds what stands in the file, `fields` names those of its columns."""

    patient_id: str
    issuer: str
    facts: CohortFacts
    fields: tuple[str, ...] = FIELDS

    def applied_to(self, recorded: CohortFacts) -> CohortFacts:
        """Return what is recorded with this line's fields; what the file has no column for stays as it is."""
        return replace(recorded, **{field: getattr(self.facts, field) for field in self.fields})


def read_cohort(
    path: Path,
    *,
    default_issuer: str,
    today: date | None = None,
    issuer_aliases: Mapping[str, str] = MappingProxyType({}),
) -> list[CohortRow]:
    """Read a cohort file.

    Args:
        path: the file, in UTF-8, with or without a byte order mark.
        default_issuer: of the patients whose line names none.
        issuer_aliases: other words for an issuer.
        today: what is later has not happened, and is refused; None: any day is taken.

    Raises:
        ConfigError: with one line per problem: file, line, column, rule; never a value that could name a patient.
    """
    columns, lines = _table(path)
    rows: list[CohortRow] = []
    problems: list[str] = []
    first_line: dict[tuple[str, str], int] = {}
    for number, fields in lines:
        try:
            found = _row(_named(columns, fields), default_issuer, today, issuer_aliases)
        except ValueError as error:
            problems.extend(f"{path}: line {number}: {problem}" for problem in error.args)
            continue
        before = first_line.setdefault((found.issuer, found.patient_id), number)
        if before != number:
            problems.append(f"{path}: line {number}: patient_id: stands in line {before} already; one line per patient")
        rows.append(found)
    if problems:
        raise ConfigError(tuple(problems))
    return rows


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the columns, and (line number, fields) of every further line that is not empty.

    Raises:
        ConfigError: if the file cannot be read as CSV, or its first line does not name the columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        delimiter = max(DELIMITERS, key=header.count)  # the comma where there is none, as in a file of IDs only
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        numbered = [(reader.line_num, fields) for fields in reader if any(field.strip() for field in fields)]
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{path}: not UTF-8; in a spreadsheet, save as 'CSV UTF-8'",)) from error
    except csv.Error as error:
        raise ConfigError((f"{path}: not CSV: {error}",)) from error
    columns = [name.strip().lower() for name in numbered[0][1]] if numbered else []
    _check_columns(path, columns)
    return columns, numbered[1:]


def _check_columns(path: Path, names: Sequence[str]) -> None:
    problems = [
        f"{path}: line 1: unknown column {name!r}; expected {', '.join(COLUMNS)}"
        for name in names
        if name not in COLUMNS
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"{path}: line 1: column {name} stands twice" for name in twice if name in COLUMNS]
    if "patient_id" not in names:
        problems.append(f"{path}: line 1: column patient_id is missing; expected {', '.join(COLUMNS)}")
    if problems:
        raise ConfigError(tuple(problems))


def _named(columns: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """Return the fields of a line by column.

    Raises:
        ValueError: if there are more or fewer fields than columns.
    """
    if len(fields) != len(columns):
        hint = "; several dates in one field: separate them by |" if len(fields) > len(columns) else ""
        msg = f"another number of fields than the first line: expected {len(columns)}, found {len(fields)}{hint}"
        raise ValueError(msg)
    return dict(zip(columns, (field.strip() for field in fields), strict=True))


def _row(
    fields: Mapping[str, str], default_issuer: str, today: date | None, issuer_aliases: Mapping[str, str]
) -> CohortRow:
    """Read one line.

    Raises:
        ValueError: with one argument per problem.
    """
    patient_id, said = fields["patient_id"], fields.get("issuer") or default_issuer
    issuer = issuer_aliases.get(said, said)
    problems = [
        f"{column}: expected at most {LONGEST_ID} characters, found {len(value)}"
        for column, value in (("patient_id", patient_id), ("issuer", issuer))
        if len(value) > LONGEST_ID
    ]
    if not patient_id:
        problems.append("patient_id: empty")
    elif _SHORTENED.fullmatch(patient_id):
        problems.append("patient_id: a number that a spreadsheet shortened; format the column as text")
    try:
        facts = read_facts(fields, today=today)
    except ValueError as error:
        raise ValueError(*problems, *error.args) from error
    if problems:
        raise ValueError(*problems)
    named = tuple(field for field in FIELDS if field in fields)
    return CohortRow(patient_id=patient_id, issuer=issuer, facts=facts, fields=named)
