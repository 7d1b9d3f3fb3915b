"""A list of merges as a CSV file: read whole or not at all, every wrong line told with its number.

Columns: `retired_id` and `surviving_id` (required), `retired_issuer` and `surviving_issuer` (the default issuer where
empty). Every line says that its two IDs are one patient, known from now on by the surviving one.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REQUIRED: Final = ("retired_id", "surviving_id")
COLUMNS: Final = ("retired_id", "retired_issuer", "surviving_id", "surviving_issuer")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRow:
    """One line: two IDs as (issuer, PatientID)."""

    line: int
    retired: tuple[str, str]
    surviving: tuple[str, str]


def read_merges(
    path: Path, *, default_issuer: str, issuer_aliases: Mapping[str, str] = MappingProxyType({})
) -> list[MergeRow]:
    """Read a merge file; an issuer may be named by an alias.

    Raises:
        ConfigError: with one line per problem: file, line, column, rule; never a value that could name a patient.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or ())
            numbered = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError((f"{path}: cannot be read as UTF-8 CSV: {type(error).__name__}",)) from error
    rows: list[MergeRow] = []
    problems: list[str] = []
    into: dict[tuple[str, str], MergeRow] = {}
    for number, row in numbered:
        try:
            found = _row(number, row, default_issuer, issuer_aliases)
            before = into.setdefault(found.retired, found)
            if before.surviving != found.surviving:
                msg = f"retired_id: line {before.line} merges it into another one"
                raise ValueError(msg)  # noqa: TRY301 - told together with the others
        except ValueError as error:
            problems.append(f"{path}: line {number}: {error}")
            continue
        rows.append(found)
    if problems:
        raise ConfigError(tuple(problems))
    return rows


def _check_columns(path: Path, names: object) -> None:
    found = [str(name) for name in names] if isinstance(names, list | tuple) else []
    problems = [
        f"{path}: line 1: unknown column {name!r}; expected {', '.join(COLUMNS)}"
        for name in found
        if name not in COLUMNS
    ]
    problems += [f"{path}: line 1: column {name} is missing" for name in REQUIRED if name not in found]
    if problems:
        raise ConfigError(tuple(problems))


def _row(
    number: int, row: Mapping[str, str | None], default_issuer: str, issuer_aliases: Mapping[str, str]
) -> MergeRow:
    if None in row or None in row.values():
        msg = "another number of fields than the header"
        raise ValueError(msg)
    text = {name: (value or "").strip() for name, value in row.items()}
    for column in REQUIRED:
        if not text[column]:
            msg = f"{column}: empty"
            raise ValueError(msg)
    issuers = [text.get(column) or default_issuer for column in ("retired_issuer", "surviving_issuer")]
    retired, surviving = (
        (issuer_aliases.get(issuer, issuer), text[column]) for issuer, column in zip(issuers, REQUIRED, strict=True)
    )
    if retired == surviving:
        msg = "an ID cannot be merged into itself"
        raise ValueError(msg)
    return MergeRow(line=number, retired=retired, surviving=surviving)
