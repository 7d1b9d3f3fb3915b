"""The cohort as a table: what people and spreadsheets write is read, or refused with all that is wrong."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from inference.training.cohort_table import CohortTable, read_table
from inference.training.table_file import TableError

TODAY = date(2026, 1, 20)
HEADER = "patient,scan_date,FLAIR,T1,surgery,event,last_follow_up,site,age,sex\n"
GOOD = (
    HEADER
    + "B,2024-06-01,b2.nii.gz,,2024-01-10,2025-02-01,,north,12.4,F\n"
    + "B,2024-03-01,b1.nii.gz,b1-T1,,,,,12,f\n"
    + "A,2024-03-01,a1.nii,,2024-01-15,,2025-12-01,,,\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with scans that tables may name."""
    for name in ("a1.nii", "a2.nii", "b1.nii.gz", "b2.nii.gz", "b1-T1/1.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    (tmp_path / "empty").mkdir()
    return tmp_path


def read(folder: Path, content: str | bytes) -> CohortTable:
    """Read a table of this content."""
    file = folder / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(file, today=TODAY)


def problems(folder: Path, content: str | bytes) -> list[str]:
    """Return what is told of a table that cannot be used."""
    with pytest.raises(TableError) as caught:
        read(folder, content)
    return [str(each) for each in caught.value.problems]


def test_a_table_gives_patients_with_scans_oldest_first(folder: Path) -> None:
    """What is known of a patient may stand in one line only; the age counts from the birth that it means."""
    table = read(folder, GOOD)
    one, other = table.patients
    assert (table.roles, one.patient, other.patient) == (("T1", "FLAIR"), "A", "B")
    assert [scan.acquired for scan in other.scans] == [date(2024, 3, 1), date(2024, 6, 1)]
    assert [scan.line for scan in other.scans] == [3, 2]
    assert other.scans[0].series == {"FLAIR": folder / "b1.nii.gz", "T1": folder / "b1-T1"}
    assert (other.surgery, other.event, other.last_follow_up) == (date(2024, 1, 10), date(2025, 2, 1), date(2025, 2, 1))
    assert (other.site, other.sex) == ("north", "F")
    assert other.age_years(date(2024, 6, 1)) == pytest.approx(12.4, abs=0.2)
    assert (one.event, one.last_follow_up, one.born) == (None, date(2025, 12, 1), None)
    assert table.remarks == ()


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (b"\xef\xbb\xbf" + GOOD.encode(), "starts with a byte order mark"),
        (GOOD.replace(",", ";"), "separated by semicolons"),
        (GOOD.replace(",", "\t"), "separated by tabs"),
        (GOOD.replace("\nA,", "\n\n,,,,,,,,,\nA,"), "2 empty lines skipped: 4, 5"),
        (GOOD.replace("\n", "\r\n"), None),
        (GOOD.replace("2024-06-01", "2024-06-01 00:00:00"), None),
    ],
    ids=["byte order mark", "semicolons", "tabs", "empty lines", "CRLF", "midnight"],
)
def test_what_spreadsheets_write_is_read_and_remarked_on(
    folder: Path, content: str | bytes, remark: str | None
) -> None:
    """Every form gives the same patients, and is remarked on where it is odd."""
    plain, found = read(folder, GOOD), read(folder, content)
    assert found.remarks == ((remark,) if remark else ())
    assert [each.patient for each in found.patients] == [each.patient for each in plain.patients]
    assert [each.last_follow_up for each in found.patients] == [each.last_follow_up for each in plain.patients]


def test_parquet_gives_what_csv_gives(folder: Path) -> None:
    """Dates of any kind, missing numbers and NaN mean the same; rows are counted from 1."""
    rows = {
        "patient": ["A", "A"],
        "scan_date": [datetime(2024, 3, 1), datetime(2024, 6, 1)],  # noqa: DTZ001 - Parquet's naive days
        "FLAIR": ["a1.nii", "a2.nii"],
        "surgery": [date(2024, 1, 15), None],
        "last_follow_up": ["2025-12-01", None],
        "age": [40.0, float("nan")],
    }
    parquet.write_table(pa.table(rows), folder / "table.parquet")
    (patient,) = read_table(folder / "table.parquet", today=TODAY).patients
    assert (patient.surgery, patient.last_follow_up) == (date(2024, 1, 15), date(2025, 12, 1))
    assert [scan.line for scan in patient.scans] == [1, 2]
    parquet.write_table(pa.table(rows | {"surgery": [date(2024, 1, 15), date(2024, 1, 16)]}), folder / "bad.parquet")
    with pytest.raises(TableError, match="row 2: surgery: expected 2024-01-15 as in row 1, of the same patient"):
        read_table(folder / "bad.parquet", today=TODAY)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "2024-06-01",
            "01.06.2024",
            "scan_date: expected a date like 2025-03-14, found '01.06.2024', where",
        ),
        ("2024-06-01", "6/1/2024", "line 2: scan_date: expected a date like 2025-03-14, found '6/1/2024', where day"),
        (
            "2024-06-01",
            "45444",
            "scan_date: expected a date like 2025-03-14, found '45444', a spreadsheet's",
        ),
        ("2024-06-01", "20240601", "found '20240601', a date without hyphens"),
        ("2024-06-01", "2024-02-30", "found '2024-02-30', a day that does not exist"),
        ("2024-06-01", "2026-02-01", "expected a date from 1900 to 2026-01-20, found '2026-02-01'"),
        ("2024-06-01", "", "line 2: scan_date: expected a date like 2025-03-14, found nothing"),
        ("2024-06-01", "2024-03-01", "line 3: scan_date: expected one line per patient and day, found line 2 already"),
        ("b2.nii.gz", "gone", "line 2: FLAIR: expected a DICOM folder, a DICOM file or a NIfTI file, found 'gone'"),
        ("b2.nii.gz", "empty", "line 2: FLAIR: expected a DICOM folder, found 'empty', which holds no file"),
        ("b2.nii.gz", "b1.nii.gz", "line 3: FLAIR: expected every path once, found one that stands in line 2 already"),
        ("b2.nii.gz", "", "line 2: T1/FLAIR: expected a path in one of them, found none"),
        ("12.4", "4", "line 2: age: expected about 12, from 12 in line 3, found 4"),
        ("12.4", "042Y", "line 2: age: expected an age in years, as 12 or 12.5, found '042Y'"),
        ("12.4", "1984", "line 2: age: expected an age of 0 to 120 years, found '1984'"),
        (",12,f", ",12,M", "line 3: sex: expected F as in line 2, of the same patient, found M"),
        (",12,f", ",12,female", "line 3: sex: expected one of F, M, O, found 'female'"),
        (",,,,12", ",,,south,12", "line 3: site: expected north as in line 2, of the same patient, found south"),
        (",,,,12", ",2025-03-01,,,12", "line 3: event: expected 2025-02-01 as in line 2, of the same patient"),
        ("2025-02-01", "2024-01-09", "line 2: event: expected a day not before the surgery (2024-01-10)"),
        ("2025-02-01,", "2025-02-01,2025-01-01", "line 2: last_follow_up: expected a day not before the event"),
        ("2025-12-01", "2024-02-01", "line 4: last_follow_up: expected a day not before the scan (2024-03-01)"),
        ("2025-12-01", "", "line 4: event/last_follow_up: expected one of them, found neither in any line of the"),
        ("A,", "1.2E+11,", "line 4: patient: expected a patient, found '1.2E+11', a number that a spreadsheet"),
        ("A,2024", ",2024", "line 4: patient: expected a patient, found nothing"),
        (",site,", ",hospital,", "line 1: hospital: expected one of patient, scan_date, T1, T1c, T2, FLAIR, surgery"),
        (",site,", ",sex,", "line 1: sex: expected every column named, and once"),
        ("12,f", "12,f,", "line 3: expected 10 fields as in the first line, found 11"),
    ],
)
def test_a_wrong_line_is_told_with_column_expected_and_found(folder: Path, old: str, new: str, problem: str) -> None:
    """One change, one problem."""
    (found,) = problems(folder, GOOD.replace(old, new, 1))
    assert problem in found


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "the table: expected a first line that names the columns, found an empty file"),
        (HEADER, "the table: expected at least one scan, found none"),
        (GOOD.replace("a1.nii", '"a1.nii'), "the table: expected CSV with closed quotes"),
        (GOOD.replace("north", "nörth").encode("latin-1"), "the table: expected UTF-8 (in a spreadsheet: save as"),
        ("patient,scan_date,last_follow_up\n", "line 1: expected at least one role as a column"),
        ("patient,FLAIR,event\n", "line 1: scan_date: expected this column, found none"),
        ("patient,scan_date,FLAIR\n", "line 1: expected a column event or last_follow_up, found neither"),
    ],
)
def test_a_wrong_file_is_told(folder: Path, content: str | bytes, problem: str) -> None:
    """The table itself: encoding, quotes, columns."""
    (found,) = problems(folder, content)
    assert found.startswith(problem)


def test_every_problem_is_told_at_once_in_the_order_of_lines(folder: Path) -> None:
    """Columns, cells, contradictions between lines."""
    content = GOOD.replace("site", "place").replace("b2.nii.gz", "gone").replace(",,,,12", ",2025-03-01,,,12")
    found = problems(folder, content.replace("2025-12-01", "1.12.2025"))
    assert [each.partition(": expected")[0] for each in found] == [
        "line 1: place",
        "line 2: FLAIR",
        "line 3: event",
        "line 4: last_follow_up",
    ]


def test_names_that_differ_in_zeros_or_case_only_are_remarked_on(folder: Path) -> None:
    """One person under two names would be trained on and tested."""
    content = GOOD.replace("A,", "007,") + "7,2024-06-01,a2.nii,,2024-01-15,,2025-12-01,,,\n"
    (remark,) = read(folder, content).remarks
    assert remark.startswith("patients '007' and '7' differ in case or leading zeros only")


def test_a_file_that_is_no_parquet_is_told(folder: Path) -> None:
    """Whatever its name says."""
    (folder / "table.parquet").write_text(GOOD)
    with pytest.raises(TableError, match="expected a Parquet file"):
        read_table(folder / "table.parquet", today=TODAY)
