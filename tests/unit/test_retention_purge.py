"""`purge`: nothing of the patient is left but bare keys, and nobody else loses anything."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.cli_purge import purge
from dicom_node.ledger import arrivals, cohort, deliveries, identity_changes, patients, runs
from dicom_node.ledger import purge as forgetting
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.tables import ArrivalState, CaseState, arrival, audit, case, metadata
from dicom_node.ledger.tables import run as run_table
from dicom_node.timeline.model import CohortFacts, RunState
from tests.factories.bench import NOW, Bench
from tests.factories.flair import ISSUER
from tests.factories.notes import BOOKMARKS, note, write_note

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

SENTINEL = "PHANTOM-1"


@pytest.fixture
def bench(tmp_path: Path, reported: Path) -> Bench:
    """That node, in a folder of its own."""
    shutil.copytree(reported, tmp_path / "node")
    found = Bench(tmp_path / "node")
    found.now = NOW + timedelta(minutes=5)
    return found


def run_purge(bench: Bench, *options: str, answer: str | None = None, patient: str = SENTINEL) -> Result:
    """Run the verb on this node."""
    content = {
        "node": {"ae_title": "NODE", "port": 1, "data_dir": str(bench.settings.node.data_dir)},
        "receive": {"allow_unknown_peers": True},
        "tasks": ["glioma-recurrence"],
    }
    path = bench.settings.node.data_dir / "node.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return CliRunner().invoke(purge, [patient, "--config", str(path), *options], input=answer)


def written(bench: Bench, *but: str) -> str:
    """Return everything that the ledger says, in any table but these."""
    with bench.database.read() as ledger:
        return "\n".join(
            str(tuple(row))
            for table in metadata.sorted_tables
            if table.name not in but
            for row in ledger.execute(table.select())
        )


def other_patient(bench: Bench, folder: Path, paths: list[Path]) -> list[Path]:
    """Receive copies of files as another patient's, under UIDs of their own."""
    folder.mkdir()
    made = []
    for number, path in enumerate(paths):
        ds = dcmread(path)
        ds.PatientID = "PHANTOM-2"
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            setattr(ds, keyword, generate_uid(entropy_srcs=[ds[keyword].value, "other"]))
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        made.append(folder / f"{number}.dcm")
        ds.save_as(made[-1])
        bench.receive(made[-1])
    return made


def receive_unread(bench: Bench, path: Path) -> None:
    """Take a file in that is no input, as the indexer leaves it."""
    ds = dcmread(path)
    with bench.database.write() as ledger:
        new = arrivals.Arrival(
            sop_instance_uid=ds.SOPInstanceUID,
            sop_class_uid=ds.SOPClassUID,
            transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
            path=bench.instances.write((path.read_bytes(),)),
            size_bytes=path.stat().st_size,
            calling_ae_title="ARCHIVE",
            default_issuer=ISSUER,
            stat=False,
            received_at=bench.now,
        )
        arrivals.record(ledger, new)
        (pending,) = arrivals.pending(ledger, 2)
        arrivals.set_aside(ledger, pending.arrival_id, ArrivalState.NOT_AN_INPUT, "key-object-selection")


def test_nothing_of_the_patient_is_left_but_bare_keys(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """No file, and in no table a UID or a date of theirs; the ID, the run's key and the audit stay."""
    (bench.folders.cache / "volume.npz").write_bytes(b"a brain")
    receive_unread(bench, write_note(note(studies[:1], BOOKMARKS), tmp_path / "note"))
    assert list(bench.folders.outbox.iterdir())
    assert list(bench.folders.results.iterdir())
    result = run_purge(bench, "--yes")
    assert result.exit_code == 0, result.output
    folders = (bench.folders.outbox, bench.folders.results, bench.folders.cache)
    assert [path for folder in folders for path in folder.iterdir()] == []
    assert list(bench.instances.folder.glob("??/*.dcm")) == []
    left = written(bench, "audit")
    headers = [dcmread(path, stop_before_pixels=True) for path in studies]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "StudyDate", "PatientName"):
        assert not any(str(ds[keyword].value) in left for ds in headers), keyword
    assert "glioma" not in left.replace("glioma-recurrence", "")
    assert left.count(SENTINEL) == 1  # whose tombstone it is
    with bench.database.read() as ledger:
        (run,) = runs.of_patient(ledger, 1)
        (record,) = ledger.execute(audit.select().where(audit.c.action == "purge")).all()
    assert (run.state, run.version, run.result) == (RunState.WITHDRAWN, 1, None)
    assert record.subject == f"{SENTINEL}^^^{ISSUER}"
    details = json.loads(record.details)
    assert details["runs"] == [run.run_key]
    assert len(details["reports"]) == 1


def test_the_same_images_are_never_reported_on_again(bench: Bench, studies: list[Path]) -> None:
    """Sent again after the purge they meet the tombstone of their run."""
    with bench.database.read() as ledger:
        facts = cohort.read(ledger, ISSUER, SENTINEL)
    assert run_purge(bench, "--yes").exit_code == 0
    bench.tick()
    with bench.database.read() as ledger:
        assert ledger.execute(case.select()).all() == []
    for path in studies:
        bench.receive(path)
    with bench.database.write() as ledger:
        cohort.replace(ledger, ISSUER, SENTINEL, facts)
    bench.now += timedelta(minutes=5)
    bench.tick()
    bench.tick()
    with bench.database.read() as ledger:
        (found,) = ledger.execute(case.select()).all()
        (run,) = runs.of_patient(ledger, 1)
    assert found.state == CaseState.WITHDRAWN
    assert (run.state, run.result) == (RunState.WITHDRAWN, None)
    assert list(bench.folders.outbox.iterdir()) == []


def test_others_lose_nothing(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """What another patient has is as it was."""
    theirs = other_patient(bench, tmp_path / "other", studies[:3])
    with bench.database.write() as ledger:
        cohort.replace(ledger, ISSUER, "PHANTOM-2", CohortFacts(diagnosis="glioma"))
    assert run_purge(bench, "--yes").exit_code == 0
    with bench.database.read() as ledger:
        (other,) = patients.find(ledger, "PHANTOM-2")
        assert len(patients.facts_of(ledger, other.row_id)) == 3
        assert cohort.read(ledger, ISSUER, "PHANTOM-2").diagnosis == "glioma"
        assert len(patients.receptions(ledger, other.row_id)) == 1
        paths = arrivals.instance_paths(ledger, [Bench.uid(path) for path in theirs])
    assert all(bench.instances.path(path).is_file() for path in paths.values())
    assert len(paths) == 3


def test_a_patient_never_reported_on_leaves_no_row(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """There is no key to keep."""
    other_patient(bench, tmp_path / "other", studies[:3])
    assert run_purge(bench, "--yes", patient="PHANTOM-2").exit_code == 0
    assert "PHANTOM-2" not in written(bench, "audit")
    with bench.database.read() as ledger:
        (run,) = runs.of_patient(ledger, 1)
        assert run.state is RunState.REPORTED


def test_all_ids_of_a_merged_patient_go_together(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """What came under the retired ID is theirs as well."""
    other_patient(bench, tmp_path / "other", studies[:3])
    with bench.database.write() as ledger:
        identity_changes.merge(ledger, (ISSUER, "PHANTOM-2"), (ISSUER, SENTINEL), By(actor="admin", at=NOW))
    assert run_purge(bench, "--yes", patient="PHANTOM-2").exit_code == 0
    assert list(bench.instances.folder.glob("??/*.dcm")) == []
    with bench.database.read() as ledger:
        assert [each.patient_id for each in patients.find(ledger, "PHANTOM-2")] == [SENTINEL]  # still one human


def test_a_file_that_contradicted_them_is_compared_again(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """Nothing is left that it could contradict, so it must not hold another patient for ever."""
    ds = dcmread(studies[0])
    ds.PatientID = "PHANTOM-2"
    path = tmp_path / "contradiction.dcm"
    ds.save_as(path)
    bench.receive(path)
    with bench.database.read() as ledger:
        (other,) = patients.find(ledger, "PHANTOM-2")
        assert arrivals.conflicts(ledger, other.row_id) == 1
    assert run_purge(bench, "--yes").exit_code == 0
    with bench.database.read() as ledger:
        (waiting,) = ledger.execute(arrival.select()).all()
    assert waiting.state == ArrivalState.RECEIVED
    assert bench.instances.path(waiting.path).is_file()


def test_a_purge_that_breaks_off_leaves_no_file_that_a_start_would_enter_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes go before rows: what is left says that its bytes are lost, and the verb run again ends it."""
    monkeypatch.setattr(forgetting, "forget", lambda *_: 1 / 0)
    assert run_purge(bench, answer="y\n").exit_code != 0
    assert list(bench.instances.folder.glob("??/*.dcm")) == []
    monkeypatch.undo()
    assert run_purge(bench, answer="y\n").exit_code == 0
    with bench.database.read() as ledger:
        assert ledger.execute(arrival.select()).all() == []


def test_nothing_is_deleted_without_a_yes(bench: Bench, studies: list[Path]) -> None:
    """The verb says what would go and asks."""
    before = written(bench)
    result = run_purge(bench, answer="n\n")
    assert result.exit_code == 1
    assert f"{len(studies)} received files, 1 runs, 1 reports" in result.output
    assert written(bench) == before
    assert run_purge(bench, answer="y\n").exit_code == 0
    assert written(bench) != before


def test_work_under_way_is_ended_first(bench: Bench) -> None:
    """A run at work would go on without its images, a delivery without its report."""
    with bench.database.write() as ledger:
        (run,) = runs.of_patient(ledger, 1)
        runs.set_state(ledger, run.run_key, RunState.RUNNING)
    result = run_purge(bench, "--yes")
    assert result.exit_code == 1
    assert "is queued or running" in result.output
    with bench.database.write() as ledger:
        runs.set_state(ledger, run.run_key, RunState.REPORTED)
        deliveries.create(ledger, run.run_key, ("archive",), NOW)
    before = written(bench)
    result = run_purge(bench, "--yes")
    assert result.exit_code == 1
    assert "on its way to archive" in result.output
    assert written(bench) == before
    assert list(bench.folders.outbox.iterdir())


def test_a_failed_run_leaves_no_key(bench: Bench) -> None:
    """Nothing of it was issued, so the same images may be tried anew."""
    with bench.database.write() as ledger:
        ledger.execute(run_table.update().values(state=RunState.FAILED, encoded_at=None))
    assert run_purge(bench, "--yes").exit_code == 0
    assert written(bench, "audit", "executor") == ""


def test_an_unknown_patient_is_an_error(bench: Bench) -> None:
    """Nobody is purged by a typing error."""
    before = written(bench)
    result = run_purge(bench, "--yes", patient="PHANTOM-11")
    assert result.exit_code == 1
    assert written(bench) == before
