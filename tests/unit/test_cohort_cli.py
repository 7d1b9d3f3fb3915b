"""`cohort set`, `confirm` and `history`: facts by hand, and a trace of every change."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner

from dicom_node.cli import main
from dicom_node.ledger import arrivals, identity, patients
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import patient_alias
from dicom_node.timeline.model import Surgery
from tests.factories.facts import FLAIR, PATIENT, a_series

if TYPE_CHECKING:
    from click.testing import Result

ROOT = Path(__file__).parents[2]
SAID = datetime(2026, 1, 20, tzinfo=UTC)
RULE = {"tag": "StudyDescription", "regex": r"OP (?P<date>\d{2}\.\d{2}\.\d{4})", "format": "%d.%m.%Y"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose selection file reads surgery dates from the Study Description."""
    selection = yaml.safe_load((ROOT / "config" / "selection.yaml").read_text(encoding="utf-8"))
    (tmp_path / "selection.yaml").write_text(yaml.safe_dump(selection | {"surgery_date": [RULE]}), encoding="utf-8")
    content = {
        "node": {"ae_title": "NODE", "port": 1, "data_dir": "data"},
        "receive": {"peers": [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]},
        "selection": "selection.yaml",
        "tasks": ["glioma-recurrence"],
    }
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def run(config: Path, *arguments: object) -> Result:
    """Run a cohort verb."""
    return CliRunner().invoke(main, ["cohort", *(str(each) for each in arguments), "--config", str(config)])


def listed(config: Path) -> dict[str, dict]:
    """Return the cohort by PatientID."""
    return {each["patient_id"]: each for each in json.loads(run(config, "list", "--json").output)}


@pytest.fixture
def database(config: Path):
    """The ledger that the first verb made."""
    run(config, "set", "1", "--diagnosis", "glioma")
    opened = Database(f"sqlite:///{config.parent / 'data' / 'ledger.sqlite'}")
    yield opened
    opened.close()


def test_every_field_is_set_and_cleared(config: Path) -> None:
    """What is not named stays."""
    everything = ("--diagnosis", "glioma", "--birth-date", "2010-02-03", "--surgery", "2025-01-10T13:40")
    more = (
        "--surgery",
        "2025-09-01",
        "--radiotherapy",
        "2025-02-01",
        "--event",
        "2025-12-01",
        "--event",
        "2026-01-02:death",
    )
    assert run(config, "set", "1", *everything, *more).output == "1 changed\n"
    told = (
        "1^^^HOSPITAL: glioma; born 2010-02-03; surgery 2025-01-10 13:40, 2025-09-01; radiotherapy 2025-02-01; "
        "recurrence 2025-12-01, death 2026-01-02\n"
    )
    assert run(config, "list").output == told
    assert run(config, "set", "1^^^HOSPITAL", "--clear", "events", "--clear", "birth_date").exit_code == 0
    found = listed(config)["1"]
    assert (found["events"], found["birth_date"], found["diagnosis"]) == ([], None, "glioma")
    assert [each["on"] for each in found["surgeries"]] == ["2025-01-10", "2025-09-01"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--surgery", "10.01.2025"), "surgeries: expected a date like 2025-03-14, found one with dots"),
        (("--surgery", "2999-01-01"), "surgeries: a day in the future"),
        (("--birth-date", "2025-02-03", "--surgery", "2025-01-10"), "birth_date: later than a surgery"),
        (("--event", "2025-01-01", "--clear", "events"), "events: both set and cleared"),
    ],
)
def test_a_wrong_fact_ends_with_2_and_changes_nothing(config: Path, arguments, message) -> None:
    """The same rules as in a file."""
    result = run(config, "set", "1", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    run(config, "set", "2", "--diagnosis", "glioma")
    assert set(listed(config)) == {"2"}


def test_the_history_shows_every_change_before_and_after(config: Path, tmp_path: Path) -> None:
    """Import and set, oldest first; what changed nothing leaves no line."""
    file = tmp_path / "cohort.csv"
    file.write_text("patient_id,diagnosis\n1,meningioma\n2,glioma\n")
    run(config, "import", file)
    run(config, "import", file)
    run(config, "set", "1", "--diagnosis", "glioma", "--surgery", "2025-01-10")
    changes = json.loads(run(config, "history", "1", "--json").output)
    assert [(each["action"], each["details"]["after"]["diagnosis"]) for each in changes] == [
        ("cohort import", "meningioma"),
        ("cohort set", "glioma"),
    ]
    assert changes[1]["details"]["before"]["surgeries"] == ""
    assert changes[1]["details"]["after"]["surgeries"] == "2025-01-10"
    text = run(config, "history", "1").output.splitlines()
    assert len(text) == 2
    assert text[1].endswith("1^^^HOSPITAL: diagnosis meningioma -> glioma; surgeries nothing -> 2025-01-10")
    assert run(config, "history", "nobody").exit_code == 1


def test_a_file_changes_only_what_it_has_columns_for(config: Path, tmp_path: Path) -> None:
    """A recurrence entered by hand survives a file of diagnoses; an empty field of a column forgets."""
    run(config, "set", "1", "--diagnosis", "meningioma", "--event", "2025-12-01", "--surgery", "2025-01-10")
    file = tmp_path / "cohort.csv"
    file.write_text("patient_id,diagnosis,surgeries\n1,glioma,\n")
    assert run(config, "import", file).output == "1 patients read, 1 changed\n"
    found = listed(config)["1"]
    assert (found["diagnosis"], found["surgeries"]) == ("glioma", [])
    assert [each["on"] for each in found["events"]] == ["2025-12-01"]


def test_a_retired_id_counts_for_the_patient_it_was_merged_into(config: Path, database: Database) -> None:
    """Facts entered under the old number, before or after the merge, decide for the surviving patient."""
    run(config, "set", "OLD", "--surgery", "2025-01-10")
    with database.write() as ledger:
        (surviving,) = patients.find(ledger, "1")
        ledger.execute(
            patient_alias.insert().values(
                issuer="HOSPITAL", patient_id="OLD", patient=surviving.row_id, since=SAID, source="test"
            )
        )
    run(config, "set", "OLD", "--event", "2025-12-01")
    with database.read() as ledger:
        facts = identity.cohort_of(ledger, surviving.row_id)
        (touched,) = patients.find(ledger, "1")
    assert (facts.diagnosis, facts.surgeries) == ("glioma", (Surgery(on=date(2025, 1, 10)),))
    assert [event.on for event in facts.events] == [date(2025, 12, 1)]
    assert touched.revision > surviving.revision
    subjects = [each["subject"] for each in json.loads(run(config, "history", "1", "--json").output)]
    assert subjects == ["1^^^HOSPITAL", "OLD^^^HOSPITAL", "OLD^^^HOSPITAL"]


def _receive(database: Database, description: str, day: date) -> None:
    """Put one instance of a study of this description into the ledger."""
    (facts,) = a_series(
        day, {**FLAIR, "StudyDescription": description}, slices=1, patient=replace(PATIENT, patient_id="1")
    )
    with database.write() as ledger:
        arrival = arrivals.Arrival(
            sop_instance_uid=facts.sop_instance_uid,
            sop_class_uid=facts.sop_class_uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=f"{facts.sop_instance_uid}.dcm",
            size_bytes=1,
            calling_ae_title="S",
            default_issuer="HOSPITAL",
            stat=False,
            received_at=SAID,
        )
        arrivals.record(ledger, arrival)
        (pending,) = arrivals.pending(ledger, 1)
        arrivals.index(ledger, pending.arrival_id, facts)


def test_confirm_takes_over_the_surgery_date_of_the_images(config: Path, database: Database) -> None:
    """With its source in the audit; a second time there is nothing to confirm."""
    _receive(database, "MR nach OP 10.01.2025", date(2025, 4, 1))
    result = run(config, "confirm", "1")
    source = "StudyDescription (rule 1 of surgery_date)"
    assert result.output == f"surgery on 2025-01-10, from {source}: confirmed\n"
    assert [each["on"] for each in listed(config)["1"]["surgeries"]] == ["2025-01-10"]
    assert listed(config)["1"]["diagnosis"] == "glioma"
    last = json.loads(run(config, "history", "1", "--json").output)[-1]
    assert (last["action"], last["details"]["source"]) == ("cohort confirm", source)
    assert f"found in {source}" in run(config, "history", "1").output
    again = run(config, "confirm", "1")
    assert again.exit_code == 1
    assert "holds a surgery date already" in again.output


def test_confirm_refuses_what_is_missing_or_contradictory(config: Path, database: Database) -> None:
    """A person enters the right one."""
    _receive(database, "MR Kopf", date(2025, 4, 1))
    assert "no surgery date in the images (1 rules of surgery_date" in run(config, "confirm", "1").output
    _receive(database, "OP 10.01.2025", date(2025, 7, 1))
    _receive(database, "OP 11.01.2025", date(2025, 10, 1))
    result = run(config, "confirm", "1")
    assert result.exit_code == 1
    assert "the images name several surgery dates: 2025-01-10" in result.output
    assert listed(config)["1"]["surgeries"] == []
