"""Files that contradict an instance held: the case waits for a person, who keeps the old or takes the new."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread
from sqlalchemy import select

from dicom_node.cli_patient import patient
from dicom_node.ledger import arrivals, cases, conflicts, patients, runs
from dicom_node.ledger.conflicts import Choice, Settled
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.tables import ArrivalState, CaseState, arrival, audit, instance
from dicom_node.observe.logs import open_log
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.reader import Reader
from dicom_node.settings import Logging
from dicom_node.timeline.model import RunState
from sr_templates.read_report import read_report
from tests.factories.bench import NOW, Bench
from tests.factories.facts import PATIENT, a_series
from tests.factories.flair import ISSUER, SLICES
from tests.factories.ledger import arrive, arrive_all, owners, read_again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

BY = By(actor="admin", at=NOW + timedelta(hours=1))


@pytest.fixture
def bench(tmp_path: Path, reported: Path) -> Iterator[Bench]:
    """That node, in a folder of its own."""
    shutil.copytree(reported, tmp_path / "node")
    found = Bench(tmp_path / "node")
    found.now = NOW + timedelta(hours=1)
    yield found
    found.database.close()


def settle_down(bench: Bench) -> None:
    """Let the quiet period pass, and decide until a report that was just made is known too."""
    bench.now += timedelta(minutes=5)
    for _ in range(3):
        bench.tick()


def corrected(paths: list[Path], folder: Path, **attributes: str) -> list[Path]:
    """Write files again under the same SOP Instance UIDs: with other pixels, or with other attributes."""
    folder.mkdir()
    written = []
    for path in paths:
        ds = dcmread(path)
        if not attributes:
            ds.PixelData = bytes(ds.PixelData[::-1])
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        written.append(folder / path.name)
        ds.save_as(written[-1])
    return written


def read_waiting(bench: Bench) -> None:
    """Do what the indexer does at its tick."""
    log = open_log(Logging(level="error", format="json"), b"key")
    with Reader() as reader:
        Indexer(bench.database, bench.instances, reader, log).run_once()


def say(bench: Bench, *words: object) -> Any:
    """Run a verb of `patient` on the node's ledger."""
    config = bench.settings.node.data_dir.parent / "node.yaml"
    content = {
        "node": {"ae_title": "NODE", "data_dir": str(bench.settings.node.data_dir)},
        "receive": {"allow_unknown_peers": True},
        "tasks": ["glioma-recurrence"],
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return CliRunner().invoke(patient, [*map(str, words), "--config", str(config)], env={"COLUMNS": "200"})


def take_new(bench: Bench, patient_id: str) -> Settled:
    """Do what `patient accept --instances new` does, on the bench's clock."""
    with bench.database.write() as ledger:
        (found,) = patients.find(ledger, patient_id)
        return conflicts.settle(ledger, found.row_id, Choice.NEW, By(actor="admin", at=bench.now))


def case(bench: Bench, row: int = 1) -> cases.Case:
    """Return the only case of a patient."""
    with bench.database.read() as ledger:
        (found,) = cases.of_patient(ledger, row)
    return found


def reports(bench: Bench, row: int = 1) -> list[runs.Run]:
    """Return the issued runs, the oldest first."""
    with bench.database.read() as ledger:
        found = [each for each in runs.of_patient(ledger, row) if each.state is RunState.REPORTED]
    return sorted(found, key=lambda each: each.version or 0)


def files(bench: Bench) -> dict[str, int]:
    """Count the files by what became of them."""
    with bench.database.read() as ledger:
        return arrivals.counts_by_state(ledger)


def test_a_corrected_prior_that_is_accepted_leads_to_a_new_revision(
    bench: Bench, studies: list[Path], tmp_path: Path
) -> None:
    """The hold names the way out; after it, version 2 is made from the new pixels and names version 1 before it."""
    a_study = studies[:SLICES]
    bench.receive(*corrected(a_study, tmp_path / "again"))
    settle_down(bench)
    held = case(bench)
    assert (held.state, held.reasons[0].code) == (CaseState.HELD, "instance-conflict")
    assert "patient accept PATIENT --instances old" in held.reasons[0].text
    assert take_new(bench, "PHANTOM-1") == Settled(instances=SLICES, laid_aside=0, to_read=SLICES)
    settle_down(bench)
    assert case(bench).state is CaseState.HELD  # until they were read
    read_waiting(bench)
    assert files(bench) == {"indexed": len(studies), "set-aside": SLICES}
    settle_down(bench)
    first, second = reports(bench)
    assert (first.version, second.version, second.predecessor) == (1, 2, first.run_key)
    assert first.inputs != second.inputs
    assert case(bench).state is CaseState.REPORTED
    with bench.database.read() as ledger:
        old, new = (
            dcmread(bench.folders.outbox / each.path)
            for run in (first, second)
            for each in runs.objects_of(ledger, run.run_key)
            if each.kind == "report"
        )
    assert read_report(new).predecessor_sop_instance_uid == old.SOPInstanceUID


def test_what_is_held_can_be_kept(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """The contradicting files are laid aside with their reason, and the report stands as it was."""
    bench.receive(*corrected(studies[:SLICES], tmp_path / "again"))
    settle_down(bench)
    result = say(bench, "accept", f"PHANTOM-1^^^{ISSUER}", "--instances", "old")
    assert result.exit_code == 0, result.output
    settle_down(bench)
    assert case(bench).state is CaseState.REPORTED
    assert [each.version for each in reports(bench)] == [1]
    with bench.database.read() as ledger:
        (aside,) = arrivals.set_aside_reasons(ledger)
        (line,) = [each for each in ledger.execute(select(audit)) if each.action == "patient accept"]
    assert aside == {"state": "set-aside", "reason": conflicts.KEPT_OLD, "count": SLICES}
    assert line.subject == f"PHANTOM-1^^^{ISSUER}"
    assert '"instances": "old"' in line.details


def test_a_study_that_was_another_patients_goes_to_that_one(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """A PatientID corrected in the archive: both are held, then each has what is theirs."""
    moved = corrected(studies[-SLICES:], tmp_path / "again", PatientID="PHANTOM-2")
    bench.receive(*moved)
    settle_down(bench)
    assert case(bench).reasons[0].code == "instance-conflict"
    assert take_new(bench, "PHANTOM-2").to_read == SLICES
    read_waiting(bench)
    settle_down(bench)
    with bench.database.read() as ledger:
        (other,) = patients.find(ledger, "PHANTOM-2")
        assert {each.patient.patient_id for each in patients.facts_of(ledger, 1)} == {"PHANTOM-1"}
        assert len(patients.facts_of(ledger, other.row_id)) == SLICES
        assert len(patients.receptions(ledger, other.row_id)) == 1
        assert len(patients.receptions(ledger, 1)) == 3
    newest = reports(bench)[-1]
    assert len(newest.inputs.time_points) == 3


def test_the_verb_has_the_new_files_read_again(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """What was decided is told, and a second call while they are unread says that they are."""
    bench.receive(*corrected(studies[:2], tmp_path / "again"))
    assert "see `patient accept --instances`" in say(bench, "show", "PHANTOM-1").output
    result = say(bench, "accept", "PHANTOM-1", "--instances", "new")
    assert result.exit_code == 0, result.output
    assert "2 instances decided on: the new ones count" in result.output
    assert "0 files laid aside, 2 to be read again" in result.output
    result = say(bench, "accept", "PHANTOM-1", "--instances", "new")
    assert result.exit_code == 1
    assert "2 wait to be read again" in result.output
    read_waiting(bench)
    assert files(bench) == {"indexed": len(studies), "set-aside": 2}


def test_there_must_be_something_to_decide(bench: Bench) -> None:
    """Without a contradiction nothing happens, and files are not decided on together with names."""
    result = say(bench, "accept", "PHANTOM-1", "--instances", "new")
    assert result.exit_code == 1
    assert "no file contradicts an instance" in result.output
    assert say(bench, "accept", "PHANTOM-1", "--instances", "new", "--sex").exit_code == 2


@pytest.fixture
def ledger(bench: Bench) -> Iterator[Connection]:
    """One write transaction on a ledger, beside the reported patient one of facts alone."""
    with bench.database.write() as connection:
        yield connection


def test_the_newest_of_several_is_taken(ledger: Connection) -> None:
    """A file that came before it is laid aside, and one that is held already stays a duplicate."""
    (first,) = a_series(date(2025, 6, 2), slices=1)
    second, third = (replace(first, content_digest=f"sha256:{word}") for word in ("second", "third"))
    arrive_all(ledger, [first, second, third, first])
    row = owners(ledger)[first.sop_instance_uid]
    assert conflicts.settle(ledger, row, Choice.NEW, BY) == Settled(instances=1, laid_aside=1, to_read=1)
    assert arrivals.conflicts(ledger, row) == 1
    assert read_again(ledger, [third]) == [ArrivalState.INDEXED]
    digest = ledger.scalar(
        select(instance.c.content_digest).where(instance.c.sop_instance_uid == first.sop_instance_uid)
    )
    assert digest == third.content_digest
    assert arrivals.conflicts(ledger, row) == 0
    query = select(arrival.c.state).where(arrival.c.sop_instance_uid == first.sop_instance_uid).order_by(arrival.c.id)
    assert list(ledger.scalars(query)) == ["set-aside", "set-aside", "indexed", "duplicate"]
    assert conflicts.settle(ledger, row, Choice.NEW, BY) == Settled(instances=0, laid_aside=0, to_read=0)


def test_another_contradiction_asks_again(ledger: Connection) -> None:
    """What a person said of one file says nothing of a file that comes later."""
    (first,) = a_series(date(2025, 6, 2), slices=1)
    arrive_all(ledger, [first, replace(first, content_digest="sha256:second")])
    row = owners(ledger)[first.sop_instance_uid]
    conflicts.settle(ledger, row, Choice.OLD, BY)
    assert arrivals.conflicts(ledger, row) == 0
    assert arrive(ledger, replace(first, content_digest="sha256:third")) is ArrivalState.CONFLICT
    assert arrivals.conflicts(ledger, row) == 1


def test_both_patients_of_a_contradiction_are_decided_anew(ledger: Connection) -> None:
    """Whoever is named in `accept`: the one who holds the instance, and the one whom the other file names."""
    other = replace(PATIENT, patient_id="SENTINEL-OTHER")
    (first,) = a_series(date(2025, 6, 2), slices=1)
    arrive_all(ledger, [first, replace(first, patient=other)])
    rows = [patients.find(ledger, each.patient_id)[0] for each in (PATIENT, other)]
    conflicts.settle(ledger, rows[1].row_id, Choice.OLD, BY)
    after = [patients.get(ledger, each.row_id) for each in rows]
    assert all(new.revision > old.revision for old, new in zip(rows, after, strict=True))
