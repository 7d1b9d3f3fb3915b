"""The cohort as text: what people and spreadsheets write is taken, or refused with the line, the field and the rule."""

from __future__ import annotations

from datetime import date, time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.cohort_file import read_cohort
from dicom_node.cohort_values import read_facts, write_facts
from dicom_node.errors import ConfigError
from dicom_node.timeline.model import CohortFacts, Event, Surgery

TODAY = date(2026, 1, 20)
DAYS = st.dates(min_value=date(1950, 1, 1), max_value=TODAY)
WORDS = st.text(alphabet="abcXYZ -ü日", max_size=20).map(lambda text: " ".join(text.split()))


def _read(tmp_path: Path, content: str | bytes):
    file = tmp_path / "cohort.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_cohort(file, default_issuer="HOSPITAL", today=TODAY)


def _problems(tmp_path: Path, content: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as error:
        _read(tmp_path, content)
    assert "SECRET" not in str(error.value)
    return [problem.partition(": ")[2] for problem in error.value.problems]


FULL = CohortFacts(
    diagnosis="low-grade glioma",
    birth_date=date(2010, 2, 3),
    surgeries=(Surgery(on=date(2025, 1, 10), at=time(13, 40)), Surgery(on=date(2025, 9, 1))),
    radiotherapy=(date(2025, 2, 1),),
    events=(Event(on=date(2025, 12, 1)), Event(on=date(2026, 1, 2), kind="death")),
)
HEADER = "patient_id,issuer,diagnosis,birth_date,surgeries,radiotherapy,events\n"
LINE = "1,,low-grade glioma,2010-02-03,2025-09-01;2025-01-10T13:40,2025-02-01,2025-12-01;2026-01-02:death\n"


@pytest.mark.parametrize(
    "content",
    [
        HEADER + LINE,
        (HEADER + LINE).replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + (HEADER + LINE).encode(),
        (HEADER + LINE).replace(";", "|").replace(",", ";"),
        (HEADER + LINE).replace(",", "\t"),
        HEADER.title() + "\n" + LINE + ",,,,,,\n\n",
        (HEADER + LINE).replace("2025-01-10T13:40", " 2025-01-10 13:40:00 "),
        (HEADER + LINE).replace("2010-02-03", "20100203"),
    ],
    ids=["plain", "CRLF", "byte order mark", "semicolons", "tabs", "titles and empty lines", "spaces", "DICOM date"],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, content) -> None:
    """Every form gives the same facts, in order of their days."""
    (row,) = _read(tmp_path, content)
    assert (row.patient_id, row.issuer, row.facts) == ("1", "HOSPITAL", FULL)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("surgeries", "10.01.2025", "expected a date like 2025-03-14, found one with dots"),
        ("surgeries", "1/10/2025", "expected a date like 2025-03-14, found one with slashes"),
        ("surgeries", "45667", "expected a date like 2025-03-14, found a spreadsheet's day number; format the column"),
        ("surgeries", "2025-02-31", "expected a date like 2025-03-14, found a day that does not exist"),
        ("surgeries", "2025-1-10", "expected a date like 2025-03-14"),
        ("surgeries", "2025-01-10T25:00", "expected 2025-03-14 or 2025-03-14T13:40, found another form of time"),
        ("surgeries", "2025-01-10T13:40+01:00", "expected the hospital's local time"),
        ("surgeries", "2026-02-01", "a day in the future"),
        ("surgeries", "2025-01-10;2025-01-10", "the same stands twice"),
        ("surgeries", "1025-01-10", "a year before 1900"),
        ("radiotherapy", "soon", "expected a date like 2025-03-14"),
        ("events", "death:2025-01-01", "expected a date like 2025-03-14"),
        ("events", "2026-01-21:death", "a day in the future"),
        ("birth_date", "2010-02-03;2010-02-04", "expected one date"),
        ("birth_date", "2025-02-03", "later than a surgery, radiotherapy or event"),
        ("diagnosis", "x" * 129, "expected at most 128 characters, found 129"),
    ],
)
def test_a_wrong_value_is_told_with_line_field_and_rule(tmp_path: Path, field, value, problem) -> None:
    """And without the value, for it may be a birth date."""
    fields = {"patient_id": "SECRET-1", "surgeries": "2025-01-10"} | {field: value}
    content = f"patient_id,issuer\nX,\n{','.join(fields)}\n{','.join(fields.values())}\n"
    found = _problems(tmp_path, content.split("\n", 2)[2])
    assert len(found) == 1
    assert found[0].startswith(f"line 2: {field}: {problem}")
    assert value not in found[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("patient_id,surgery\nSECRET,\n", "line 1: unknown column 'surgery'; expected patient_id, issuer, diagnosis"),
        ("diagnosis\nglioma\n", "line 1: column patient_id is missing"),
        ("", "line 1: column patient_id is missing"),
        ("patient_id,events,events\n1,,\n", "line 1: column events stands twice"),
        ("patient_id\n1.23457E+11\n", "line 2: patient_id: a number that a spreadsheet shortened"),
        ("patient_id\n" + "9" * 65 + "\n", "line 2: patient_id: expected at most 64 characters, found 65"),
        ('patient_id,diagnosis\n1,"glioma\n', "not CSV"),
        ("patient_id,diagnosis\n1,gliöma\n".encode("latin-1"), "not UTF-8; in a spreadsheet, save as 'CSV UTF-8'"),
        (
            "patient_id;surgeries\nSECRET;2025-01-10;2025-02-10\n",
            "line 2: another number of fields than the first line: expected 2, found 3; several dates in one field",
        ),
        ("patient_id,diagnosis\nSECRET\n", "line 2: another number of fields than the first line: expected 2, found 1"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, content, problem) -> None:
    """The table itself: columns, encoding, IDs that a spreadsheet spoilt."""
    (found,) = _problems(tmp_path, content)
    assert found.startswith(problem)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Several in one line, several lines; a patient twice by (issuer, ID) only."""
    content = (
        "patient_id,issuer,birth_date,surgeries\n"
        "SECRET-1,A,2010-02-03,2025-01-10\n"
        "SECRET-1,B,,\n"
        "SECRET-1,A,2010-02-03,2025-01-10\n"
        "SECRET-2,,soon,never\n"
        ",,,2025-01-10\n"
    )
    assert _problems(tmp_path, content) == [
        "line 4: patient_id: stands in line 2 already; one line per patient",
        "line 5: birth_date: expected a date like 2025-03-14",
        "line 5: surgeries: expected a date like 2025-03-14",
        "line 6: patient_id: empty",
    ]


@settings(max_examples=100, deadline=None)
@given(
    diagnosis=WORDS,
    surgeries=st.lists(st.tuples(DAYS, st.none() | st.times().map(lambda at: at.replace(microsecond=0))), max_size=4),
    radiotherapy=st.sets(DAYS, max_size=4),
    events=st.sets(st.tuples(DAYS, WORDS), max_size=4),
)
def test_facts_survive_being_written_as_text(diagnosis, surgeries, radiotherapy, events) -> None:
    """The audit's text is what was meant."""
    facts = CohortFacts(
        diagnosis=diagnosis,
        surgeries=tuple(
            sorted(
                {Surgery(on=on, at=at) for on, at in surgeries},
                key=lambda each: f"{each.on.isoformat()} {each.at or ''}",
            )
        ),
        radiotherapy=tuple(sorted(radiotherapy)),
        events=tuple(
            sorted(
                {Event(on=on, kind=kind or "recurrence") for on, kind in events},
                key=lambda each: f"{each.on.isoformat()} {each.kind}",
            )
        ),
    )
    assert read_facts(write_facts(facts), today=TODAY) == facts
