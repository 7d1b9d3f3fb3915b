"""`dicom-node patient`: what an admin sees, says and takes back, and the merge file told line by line."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import select

from dicom_node.cli_patient import patient
from dicom_node.errors import ConfigError
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import audit, patient_alias
from dicom_node.merge_file import MergeRow, read_merges
from tests.factories.facts import PATIENT, a_series
from tests.factories.ledger import arrive_all, owners

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

JUNE, JULY = date(2025, 6, 2), date(2025, 7, 2)
OLD = replace(PATIENT, patient_id="OLD-1", name="SENTINEL-MARRIED^PATIENT")


class Admin:
    """Somebody at the terminal of a node that has received two studies under two IDs."""

    def __init__(self, folder: Path) -> None:
        content = {
            "node": {"ae_title": "NODE", "data_dir": str(folder / "data")},
            "receive": {"peers": [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]},
            "tasks": ["glioma-recurrence"],
        }
        self.config = folder / "node.yaml"
        self.config.write_text(yaml.safe_dump(content), encoding="utf-8")
        (folder / "data").mkdir()
        self.database = Database(f"sqlite:///{folder / 'data' / 'ledger.sqlite'}")
        self.database.migrate()
        with self.database.write() as ledger:
            arrive_all(ledger, [*a_series(JUNE, patient=OLD, slices=2), *a_series(JULY, slices=2)])

    def says(self, *words: object) -> Result:
        """Run one verb."""
        return CliRunner().invoke(patient, [*map(str, words), "--config", str(self.config)], env={"COLUMNS": "200"})

    def patients(self) -> int:
        """Count whose the instances are."""
        with self.database.read() as ledger:
            return len(set(owners(ledger).values()))


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    """An admin of a node."""
    found = Admin(tmp_path)
    yield found
    found.database.close()


def test_a_merge_by_hand_and_back(admin: Admin) -> None:
    """What changed hands is told; the audit says who did it."""
    result = admin.says("merge", "OLD-1", "SENTINEL-4711^^^HOSPITAL")
    assert result.exit_code == 0
    assert "OLD-1^^^HOSPITAL is SENTINEL-4711^^^HOSPITAL: 2 instances and 1 studies changed hands" in result.output
    assert admin.patients() == 1
    assert admin.says("split", "OLD-1").exit_code == 0
    assert admin.patients() == 2
    with admin.database.read() as ledger:
        assert [row.action for row in ledger.execute(select(audit))] == ["patient merge", "patient split"]
        assert all(row.actor for row in ledger.execute(select(audit)))


def test_an_id_of_two_issuers_has_to_be_named_in_full(admin: Admin) -> None:
    """A bare ID is guessed only where there is nothing to guess."""
    with admin.database.write() as ledger:
        arrive_all(ledger, a_series(JUNE, patient=replace(OLD, issuer="ELSEWHERE"), slices=1))
    result = admin.says("merge", "OLD-1", "SENTINEL-4711")
    assert result.exit_code == 1
    assert "name one as ID^^^ISSUER: ELSEWHERE, HOSPITAL" in result.output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("merge", "OLD-1"), 2, "give RETIRED and SURVIVING, or --file"),
        (("merge", "OLD-1", "OLD-1"), 1, "found the same one twice"),
        (("split",), 2, "give RETIRED, or --study"),
        (("split", "OLD-1", "--study", "1.2"), 2, "give RETIRED, or --study"),
        (("split", "OLD-1", "--to", "X"), 2, "give RETIRED, or --study"),
        (("split", "OLD-1"), 1, "stands for itself"),
        (("split", "--study", "1.2"), 1, "no such study"),
        (("accept", "NOBODY"), 1, "no such patient"),
        (("accept", "OLD-1"), 1, "nothing was accepted"),
        (("show", "NOBODY"), 1, "no such patient"),
    ],
)
def test_a_wrong_word_is_told_and_changes_nothing(admin: Admin, words, code, message) -> None:
    """Exit code 2 for wrong usage, 1 for what cannot be done."""
    result = admin.says(*words)
    assert result.exit_code == code
    assert message in result.output
    with admin.database.read() as ledger:
        assert ledger.execute(select(audit)).all() == []


def test_what_differs_is_shown_with_its_values_and_studies_then_accepted(admin: Admin) -> None:
    """The admin sees both names and which study says which, accepts, and sees nobody in the list of conflicts."""
    admin.says("merge", "OLD-1", "SENTINEL-4711")
    shown = json.loads(admin.says("show", "OLD-1", "--json").output)
    assert (shown["patient_id"], shown["also"]) == (
        "SENTINEL-4711",
        [{"issuer": "HOSPITAL", "patient_id": "OLD-1"}],
    )
    assert (shown["state"], shown["differs_in"]) == ("ask", ["PatientName"])
    names = {each["value"]: each for each in shown["fields"]["PatientName"]}
    assert set(names) == {"SENTINEL^PATIENT", "SENTINEL-MARRIED^PATIENT"}
    assert [each["acquired_on"] for each in names["SENTINEL-MARRIED^PATIENT"]["studies"]] == ["2025-06-02"]
    text = admin.says("show", "SENTINEL-4711").output
    assert all(word in text for word in ("SENTINEL^PATIENT", "SENTINEL-MARRIED^PATIENT", "2025-07-02", "yes"))
    assert "SENTINEL-4711" in admin.says("list", "--conflicts").output
    result = admin.says("accept", "SENTINEL-4711")
    assert "accepted PatientName: SENTINEL-MARRIED^PATIENT | SENTINEL^PATIENT" in result.output
    assert json.loads(admin.says("list", "--conflicts", "--json").output) == []
    (listed,) = json.loads(admin.says("list", "--json").output)
    assert {each["accepted"] for each in listed["fields"]["PatientName"]} == {True}


def test_accepting_a_name_leaves_a_birth_date_that_differs(admin: Admin) -> None:
    """It has to be named, and the admin is told so."""
    with admin.database.write() as ledger:
        arrive_all(ledger, a_series(JULY, patient=replace(OLD, birth_date="20100302", name="X^Y"), slices=1))
    result = admin.says("accept", "OLD-1")
    assert result.exit_code == 0
    assert "still differs: PatientBirthDate" in result.output
    assert "accepted PatientBirthDate: 20100203 | 20100302" in admin.says("accept", "OLD-1", "--birth-date").output


def test_a_study_of_another_human_is_given_away(admin: Admin) -> None:
    """Two humans under one ID end as two patients."""
    with admin.database.write() as ledger:
        arrive_all(ledger, a_series(JULY, patient=replace(OLD, birth_date="19440505"), slices=2))
    (held,) = json.loads(admin.says("list", "--conflicts", "--json").output)
    (study,) = [each for each in held["fields"]["PatientBirthDate"] if each["value"] == "19440505"]
    uid = study["studies"][0]["study_instance_uid"]
    result = admin.says("split", "--study", uid, "--to", "OTHER-9")
    assert "is OTHER-9^^^HOSPITAL's: 2 instances and 1 studies changed hands" in result.output
    assert json.loads(admin.says("list", "--conflicts", "--json").output) == []
    assert json.loads(admin.says("show", "OTHER-9", "--json").output)["studies_given_by_hand"] == [uid]


# the merge file -------------------------------------------------------------------------------------------------------


def a_file(folder: Path, *lines: str) -> Path:
    """Write a CSV file."""
    path = folder / "merges.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file_of_merges(tmp_path: Path) -> None:
    """The default issuer serves where a line names none."""
    path = a_file(
        tmp_path,
        "retired_id,retired_issuer,surviving_id,surviving_issuer",
        " OLD-1 ,,4711,",
        "7,ELSEWHERE,4711,HOSPITAL",
    )
    assert read_merges(path, default_issuer="HOSPITAL") == [
        MergeRow(line=2, retired=("HOSPITAL", "OLD-1"), surviving=("HOSPITAL", "4711")),
        MergeRow(line=3, retired=("ELSEWHERE", "7"), surviving=("HOSPITAL", "4711")),
    ]


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        (("retired_id",), ["line 1: column surviving_id is missing"]),
        (
            ("retired_id,surviving_id,name", "1,2,DOE"),
            ["line 1: unknown column 'name'; expected retired_id, retired_issuer, surviving_id, surviving_issuer"],
        ),
        (
            ("retired_id,surviving_id", ",2", "1,", "1", "3,3", "5,6", "5,7", "1,2,3"),
            [
                "line 2: retired_id: empty",
                "line 3: surviving_id: empty",
                "line 4: another number of fields than the header",
                "line 5: an ID cannot be merged into itself",
                "line 7: retired_id: line 6 merges it into another one",
                "line 8: another number of fields than the header",
            ],
        ),
    ],
)
def test_every_wrong_line_is_told_with_its_number(tmp_path: Path, lines, problems) -> None:
    """All at once, and without the values."""
    path = a_file(tmp_path, *lines)
    with pytest.raises(ConfigError) as caught:
        read_merges(path, default_issuer="HOSPITAL")
    assert list(caught.value.problems) == [f"{path}: {problem}" for problem in problems]


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """A spreadsheet saved as it is."""
    path = tmp_path / "merges.csv"
    path.write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 CSV"):
        read_merges(path, default_issuer="HOSPITAL")


def test_a_file_is_entered_whole_or_not_at_all(admin: Admin, tmp_path: Path) -> None:
    """The second line contradicts the first: nothing is merged, and the line is named."""
    path = a_file(tmp_path, "retired_id,surviving_id", "OLD-1,SENTINEL-4711", "SENTINEL-4711,OLD-1")
    result = admin.says("merge", "--file", path)
    assert result.exit_code == 1
    assert "line 3: merge: the surviving ID was merged into the retired one before" in result.output
    with admin.database.read() as ledger:
        assert ledger.execute(select(patient_alias)).all() == []
    good = a_file(tmp_path, "retired_id,surviving_id", "OLD-1,SENTINEL-4711", "X,OLD-1")
    assert admin.says("merge", "--file", good).exit_code == 0
    assert admin.patients() == 1
