"""A table's lines as text, from CSV or Parquet: what spreadsheets do to a file is read and remarked on, or told.

Nothing is understood here: `cohort_table` says what the columns mean. Lines are counted as an editor counts them; a
Parquet file has no header line and is counted in rows from 1.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong, and where: `line` 0 is the file as a whole, an empty `column` the line as a whole."""

    line: int
    column: str
    expected: str
    found: str
    unit: str = "line"  # "row" in a Parquet file

    def __str__(self) -> str:
        """Return "line 3: surgery: expected ..., found ..."."""
        where = (f"{self.unit} {self.line}" if self.line else "the table", *([self.column] if self.column else []))
        return f"{': '.join(where)}: expected {self.expected}, found {self.found}"


class TableError(ValueError):
    """A table cannot be used; `problems` holds all that is wrong with it, not only the first."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        """Keep the problems in the order of their lines."""
        self.path = path
        self.problems = tuple(sorted(problems, key=lambda each: each.line))
        super().__init__("\n".join(f"{path}: {each}" for each in self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLines:
    """The lines of a table that hold something, each by column, stripped; what was odd but readable is in `remarks`."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[tuple[int, Mapping[str, str]], ...]
    unit: str = "line"
    remarks: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = field(default=())


def read_lines(path: Path) -> TableLines:
    """Read a CSV file, or Parquet where the name ends in `.parquet`.

    Raises:
        TableError: if the file cannot be read at all; a line of the wrong length is kept as a problem.
    """
    return _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)


def _csv(path: Path) -> TableLines:
    """Read UTF-8 text separated by commas, semicolons or tabs, as the first line says."""
    text = _text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)  # the comma where the file has one column
    remarks = [f"separated by {_DELIMITERS[delimiter]}"] if delimiter != "," else []
    if text.startswith(_BYTE_ORDER_MARK):
        remarks.append("starts with a byte order mark")
    try:
        numbered = _numbered(text.removeprefix(_BYTE_ORDER_MARK), delimiter)
    except csv.Error as error:
        raise _unreadable(path, "CSV with closed quotes", str(error)) from error
    filled = [(line, fields) for line, fields in numbered if any(fields)]
    if empty := [line for line, fields in numbered if not any(fields)]:
        remarks.append(f"{len(empty)} empty lines skipped: {', '.join(map(str, empty[:5]))}")
    if not filled:
        raise _unreadable(path, "a first line that names the columns", "an empty file")
    (header_line, names), body = filled[0], filled[1:]
    columns = _columns(path, header_line, names)
    problems = [
        Problem(line=line, column="", expected=f"{len(columns)} fields as in the first line", found=f"{len(fields)}")
        for line, fields in body
        if len(fields) != len(columns)
    ]
    lines = [(line, dict(zip(columns, fields, strict=True))) for line, fields in body if len(fields) == len(columns)]
    return TableLines(path=path, columns=columns, lines=tuple(lines), remarks=tuple(remarks), problems=tuple(problems))


def _text(path: Path) -> str:
    """Return the file's text with its byte order mark."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise _unreadable(path, "a readable file", str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, "UTF-8 (in a spreadsheet: save as 'CSV UTF-8')", "another encoding") from error


def _numbered(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the fields of every record with the number of the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records, start = [], 1
    for fields in reader:
        records.append((start, [each.strip() for each in fields]))
        start = reader.line_num + 1
    return records


def _parquet(path: Path) -> TableLines:
    """Read a Parquet file; dates and numbers become the text that a CSV file would hold."""
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 - part of the [train] extra, not of a node
    except ImportError as error:
        raise _unreadable(path, "pyarrow to read Parquet (pip install temporal-dicom-node[train])", "none") from error
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise _unreadable(path, "a Parquet file", type(error).__name__) from error
    columns = _columns(path, 0, [str(name) for name in table.column_names])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    texts = [(number, [_as_text(value) for value in row]) for number, row in enumerate(rows, start=1)]
    return TableLines(
        path=path,
        columns=columns,
        lines=tuple((number, dict(zip(columns, row, strict=True))) for number, row in texts if any(row)),
        unit="row",
        remarks=tuple(f"row {number} is empty and skipped" for number, row in texts if not any(row)),
    )


def _as_text(value: object) -> str:
    """Return a cell as it would stand in a CSV file; a missing number is empty, a day at midnight is a date."""
    if value is None or value != value:  # noqa: PLR0124 - NaN, of whatever type, is what differs from itself
        return ""
    if isinstance(value, datetime) and value.time() == time.min:
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _columns(path: Path, line: int, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns, refusing a name that is empty or stands twice."""
    stripped = [name.strip() for name in names]
    wrong = [name for name, count in Counter(stripped).items() if count > 1 or not name]
    if wrong:
        raise TableError(
            path,
            [
                Problem(line=line, column=name, expected="every column named, and once", found=f"{name!r}")
                for name in wrong
            ],
        )
    return tuple(stripped)


def _unreadable(path: Path, expected: str, found: str) -> TableError:
    """Return the error for a file that gives no lines at all."""
    return TableError(path, [Problem(line=0, column="", expected=expected, found=found)])
