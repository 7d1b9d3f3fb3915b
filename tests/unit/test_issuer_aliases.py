"""One issuer under several names: whatever comes from outside is filed under the name that the configuration gives."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from dicom_node.cli import main
from dicom_node.cohort_file import read_cohort
from dicom_node.errors import ConfigError
from dicom_node.ledger import cohort
from dicom_node.ledger.database import Database
from dicom_node.merge_file import MergeRow, read_merges
from dicom_node.priors.archive import FoundStudy
from dicom_node.receive.hl7_messages import Issuers, Merge, read_header, read_message
from dicom_node.receive.reader import Reader
from dicom_node.receive.whose import patient_named_in
from dicom_node.settings import Settings, load
from dicom_node.timeline.model import InstanceFacts, PatientFacts
from dicom_node.timeline.rejection import RejectionNote
from dicom_node.work.demographics import AnotherPatientError, Demographics, as_told
from tests.factories.library import PATIENT_ID, a_study
from tests.factories.mr import classic_series, write
from tests.factories.notes import note, write_note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ALIASES = {"HOSP&1.2.3": "HOSPITAL", "1.2.4": "HOSPITAL", "OLD-HOSPITAL": "HOSPITAL"}


def settings(**receive: Any) -> Settings:
    """Return the configuration of a node with these aliases."""
    peers = [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]
    return Settings.model_validate(
        {
            "node": {"ae_title": "NODE", "data_dir": "data"},
            "receive": {"peers": peers, "issuer_aliases": ALIASES, **receive},
            "tasks": ["glioma-recurrence"],
        }
    )


@pytest.mark.parametrize(
    ("receive", "told"),
    [
        ({"issuer_aliases": {"A": "B", "B": "C"}}, "an alias must stand for an issuer, not for another alias: B"),
        ({"issuer_aliases": {"A": "A"}}, "not for another alias: A"),
        ({"issuer_aliases": {"": "A"}}, "expected pairs ALIAS: ISSUER"),
        ({"issuer_aliases": {"A": " "}}, "expected pairs ALIAS: ISSUER"),
        ({"issuer_aliases": {"A": "B", " A": "C"}}, "each alias once"),
        ({"issuer_aliases": {"A" * 65: "B"}}, "of 1 to 64 characters"),
        ({"issuer_aliases": {"HOSPITAL": "H"}}, "receive.peers S: default_issuer 'HOSPITAL' is an alias; write 'H'"),
        ({"hl7": {"default_issuer": "1.2.4"}}, "receive.hl7: default_issuer '1.2.4' is an alias; write 'HOSPITAL'"),
    ],
)
def test_a_table_that_says_nothing_clear_is_refused(receive: dict[str, Any], told: str) -> None:
    """An alias of an alias, an alias of itself, and a default that is one."""
    with pytest.raises(ValueError, match=r"issuer") as caught:
        settings(**receive)
    assert told in str(caught.value)


def test_the_table_is_read_from_the_file(tmp_path: Path) -> None:
    """A wrong one is told as every other mistake is; without one, nothing stands for anything else."""
    path = tmp_path / "node.yaml"
    text = (
        "node: {ae_title: N, data_dir: d}\ntasks: [x]\nreceive: {allow_unknown_peers: true, issuer_aliases: {A: %s}}\n"
    )
    path.write_text(text % "B", encoding="utf-8")
    assert load(path).receive.issuer("A") == "B"
    path.write_text(text % "A", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"receive\.issuer_aliases: .*another alias"):
        load(path)
    path.write_text(text.partition("receive")[0] + "receive: {allow_unknown_peers: true}\n", encoding="utf-8")
    assert load(path).receive.issuer("A") == "A"


def test_ids_are_known_under_every_alias() -> None:
    """For comparing with what others say: our own names first, each once."""
    receive = settings().receive
    assert receive.known_as([("HOSPITAL", "1"), ("ELSEWHERE", "2")]) == [
        ("HOSPITAL", "1"),
        ("ELSEWHERE", "2"),
        *((alias, "1") for alias in ALIASES),
    ]


@pytest.mark.parametrize("said", ["HOSPITAL", "HOSP&1.2.3", "1.2.4 ", "ELSEWHERE", ""])
@pytest.mark.parametrize("default", ["HOSPITAL", "OLD-HOSPITAL"])
def test_images_are_filed_under_the_issuer_itself(tmp_path: Path, said: str, default: str) -> None:
    """Whatever the header names; also where it names none and the file was received before the table was there."""
    pixels = np.zeros((1, 8, 8), dtype=np.uint16)
    (path,) = write(classic_series(pixels, np.eye(4), PatientID="7", IssuerOfPatientID=said), tmp_path)
    expected = ("ELSEWHERE" if said == "ELSEWHERE" else "HOSPITAL", "7")
    with Reader(issuer_aliases=ALIASES) as reader:
        answer = reader.read(path, default)
    assert isinstance(answer, InstanceFacts)
    assert answer.patient.key == expected
    assert patient_named_in(path, default_issuer=default, issuer_aliases=ALIASES) == expected


def test_rejection_notes_name_the_issuer_itself(tmp_path: Path) -> None:
    """Else they would take nothing out of use."""
    path = write_note(note(a_study(tmp_path / "study", date(2025, 6, 1), IssuerOfPatientID="1.2.4")), tmp_path)
    with Reader(issuer_aliases=ALIASES) as reader:
        answer = reader.read(path, "ELSEWHERE")
    assert isinstance(answer, RejectionNote)
    assert answer.patient.key == ("HOSPITAL", PATIENT_ID)


def hear(*segments: str) -> Sequence[Merge | PatientFacts]:
    """Read a message."""
    event = "A40" if any(each.startswith("MRG") for each in segments) else "A08"
    content = "\r".join((f"MSH|^~\\&|ADT|H|N|R|20260301||ADT^{event}|MSG-1|P|2.5", *segments, "")).encode()
    return read_message(content, read_header(content), Issuers(default="HOSPITAL", aliases=ALIASES))


@pytest.mark.parametrize(
    ("authority", "issuer"),
    [
        ("HOSP&1.2.3&ISO", "HOSPITAL"),  # the table names both parts
        ("HOSP&1.2.9&ISO", "HOSP"),  # another universal ID is another authority
        ("OLD-HOSPITAL&1.2.9&ISO", "HOSPITAL"),
        ("&1.2.4&ISO", "HOSPITAL"),
        ("HOSPITAL", "HOSPITAL"),
        ("", "HOSPITAL"),
    ],
)
def test_an_assigning_authority_is_named_by_its_issuer(authority: str, issuer: str) -> None:
    """By an alias of all of CX.4, else of its namespace ID, else of its universal ID."""
    (said,) = hear(f"PID|1||7^^^{authority}||DOE^JANE||19600102|F")
    assert isinstance(said, PatientFacts)
    assert said.key == (issuer, "7")


def test_a_merge_across_two_names_of_one_issuer() -> None:
    """The retired and the surviving ID are paired by issuer, whatever each is called."""
    merges = hear("PID|1||1^^^ELSEWHERE~7^^^HOSP&1.2.3&ISO", "MRG|8^^^OLD-HOSPITAL")
    assert merges == [Merge(retired=("HOSPITAL", "8"), surviving=("HOSPITAL", "7"))]


def test_a_cohort_file_may_name_an_alias(tmp_path: Path) -> None:
    """Two lines of one patient under two names are two lines of one patient."""
    path = tmp_path / "cohort.csv"
    path.write_text("patient_id,issuer,diagnosis\n7,1.2.4,glioma\n8,ELSEWHERE,glioma\n", encoding="utf-8")
    rows = read_cohort(path, default_issuer="HOSPITAL", issuer_aliases=ALIASES)
    assert [row.issuer for row in rows] == ["HOSPITAL", "ELSEWHERE"]
    path.write_text("patient_id,issuer,diagnosis\n7,1.2.4,glioma\n7,HOSPITAL,glioma\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="stands in line 2 already"):
        read_cohort(path, default_issuer="HOSPITAL", issuer_aliases=ALIASES)


def test_a_merge_file_may_name_an_alias(tmp_path: Path) -> None:
    """An ID is not merged into itself under another name."""
    path = tmp_path / "merges.csv"
    path.write_text("retired_id,retired_issuer,surviving_id\n8,1.2.4,7\n", encoding="utf-8")
    (row,) = read_merges(path, default_issuer="HOSPITAL", issuer_aliases=ALIASES)
    assert row == MergeRow(line=2, retired=("HOSPITAL", "8"), surviving=("HOSPITAL", "7"))
    path.write_text("retired_id,retired_issuer,surviving_id\n7,1.2.4,7\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be merged into itself"):
        read_merges(path, default_issuer="HOSPITAL", issuer_aliases=ALIASES)


def test_the_cohort_verbs_know_the_table(tmp_path: Path) -> None:
    """`cohort import` and `cohort set` write under the issuer itself."""
    config, file = tmp_path / "node.yaml", tmp_path / "cohort.csv"
    peers = [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]
    content = {
        "node": {"ae_title": "NODE", "port": 1, "data_dir": "data"},
        "receive": {"peers": peers, "issuer_aliases": ALIASES},
        "tasks": ["glioma-recurrence"],
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    file.write_text("patient_id,issuer,diagnosis\n7,HOSP&1.2.3,glioma\n", encoding="utf-8")
    for words in (["import", str(file)], ["set", "8^^^1.2.4", "--diagnosis", "glioma"]):
        result = CliRunner().invoke(main, ["cohort", *words, "--config", str(config)])
        assert result.exit_code == 0, result.output
    database = Database(f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite'}")
    with database.read() as ledger:
        assert cohort.patients(ledger) == [("HOSPITAL", "7"), ("HOSPITAL", "8")]
    database.close()


def test_an_archive_that_is_asked_before_delivery_may_name_an_alias() -> None:
    """The study is the patient's; the report joins it under the archive's own word. Another issuer stays another."""
    ours = Demographics(issuer="HOSPITAL", patient_id="7")
    ids = settings().receive.known_as([("HOSPITAL", "7")])
    found = FoundStudy(study_instance_uid="1.2", patient=PatientFacts(issuer="1.2.4", patient_id="7"))
    assert as_told(ours, found, "main", ids).issuer == "1.2.4"
    stranger = FoundStudy(study_instance_uid="1.2", patient=PatientFacts(issuer="ELSEWHERE", patient_id="7"))
    with pytest.raises(AnotherPatientError):
        as_told(ours, stranger, "main", ids)
