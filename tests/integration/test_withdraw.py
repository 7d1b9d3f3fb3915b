"""Withdrawal: every archive is told to reject exactly what it got, and nothing builds on the report any more."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import (
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
)
from sqlalchemy import select

from dicom_node.cli import main as program
from dicom_node.demo_pacs import free_port
from dicom_node.ledger import deliveries, runs, tables, withdrawals
from dicom_node.ledger.tables import CaseState, DeliveryState
from dicom_node.receive.notes import read_note
from dicom_node.timeline.model import RunState
from dicom_node.timeline.rejection import RejectionTitle
from tests.factories.archives import IMAGES, ScriptedArchive
from tests.factories.flair import ISSUER
from tests.factories.outgoing import Outgoing
from tests.factories.peers import NODE_AE

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result
    from pydicom import Dataset

    from tests.factories.peers import Orthanc

SENT, VOID, DEAD = DeliveryState.SENT, DeliveryState.VOID, DeliveryState.DEAD


def verb(node: Outgoing, *arguments: str) -> Result:
    """Run a verb of the command line on the node's ledger."""
    config = {
        "node": {"ae_title": "NODE", "data_dir": str(node.folder)},
        "receive": {"allow_unknown_peers": True},
        "tasks": ["glioma-recurrence"],
    }
    path = node.folder / "node.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return CliRunner().invoke(program, [*arguments, "--config", str(path)])


def withdraw(node: Outgoing, *options: str) -> str:
    """Withdraw the only run, as an admin does, and let the notes go out; return what is printed."""
    done = verb(node, "withdraw", node.run.run_key[:12], *options)
    assert done.exit_code == 0, done.output
    node.bench.now += timedelta(days=400)  # the verb looks at the wall's clock
    node.later()
    return done.output


def notes(found: ScriptedArchive) -> list[Dataset]:
    """Return the rejection notes that an archive took."""
    return [ds for ds in found.received if ds.SOPClassUID == KeyObjectSelectionDocumentStorage]


def named(note: Dataset) -> list[tuple[str, str]]:
    """Return (SOP class, SOP instance) of the evidence of a note, in order."""
    return [
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def test_every_archive_is_told_to_reject_exactly_what_it_got(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Images, and the report in the class that this archive took; in content and evidence alike."""
    main = archive(classes=(*IMAGES, ComprehensiveSRStorage, KeyObjectSelectionDocumentStorage))
    second = archive(name="second")
    node = outgoing(main.configuration, second.configuration)
    node.later()
    printed = withdraw(node)
    for each in (main, second):
        (note,) = notes(each)
        got = [(str(ds.SOPClassUID), str(ds.SOPInstanceUID)) for ds in each.received if ds is not note]
        assert sorted(named(note)) == sorted(got)
        content = [item.ReferencedSOPSequence[0] for item in note.ContentSequence if item.ValueType != "TEXT"]
        assert [str(item.ReferencedSOPInstanceUID) for item in content] == [uid for _, uid in got]
        assert [item.ValueType for item in note.ContentSequence[1:]] == ["IMAGE"] * (len(got) - 1) + ["COMPOSITE"]
        report = each.received[len(got) - 1]
        assert note.StudyInstanceUID == report.StudyInstanceUID
        assert (note.PatientID, str(note.PatientName)) == (report.PatientID, str(report.PatientName))
        assert note.SeriesInstanceUID not in {ds.SeriesInstanceUID for ds in each.received if ds is not note}
    assert notes(main)[0].SOPInstanceUID != notes(second)[0].SOPInstanceUID
    assert [node.delivery(name).state for name in ("main", "second")] == [SENT, SENT]
    assert f"main: rejection note for {len(main.received) - 1} objects" in printed


@pytest.mark.parametrize(
    ("options", "title", "code", "meaning"),
    [
        ((), RejectionTitle.QUALITY, "113001", "Rejected for Quality Reasons"),
        (("--reason", "safety"), RejectionTitle.PATIENT_SAFETY, "113037", "Rejected for Patient Safety Reasons"),
    ],
)
def test_the_title_says_why(
    outgoing: Callable[..., Outgoing],
    archive: Callable[..., ScriptedArchive],
    tmp_path: Path,
    *,
    options: tuple[str, ...],
    title: RejectionTitle,
    code: str,
    meaning: str,
) -> None:
    """CID 7010, in a note that the node itself reads as one; what the admin wrote stays in the ledger."""
    main = archive()
    node = outgoing(main.configuration)
    node.later()
    withdraw(node, *options, "--comment", "scan of Mrs. SENTINEL was swapped")
    (note,) = notes(main)
    (concept,) = note.ConceptNameCodeSequence
    assert (concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning) == (code, "DCM", meaning)
    note.save_as(tmp_path / "note.dcm", enforce_file_format=True)
    read = read_note(tmp_path / "note.dcm", default_issuer=ISSUER)
    assert read.title is title
    assert set(read.sop_instance_uids) == {uid for _, uid in named(note)}
    assert b"SENTINEL" not in (tmp_path / "note.dcm").read_bytes()
    with node.bench.database.read() as ledger:
        kept = withdrawals.get(ledger, node.run.run_key)
        (audited,) = ledger.execute(select(tables.audit).where(tables.audit.c.action == "withdraw"))
    assert kept is not None
    assert (kept.title, kept.reason) == (code, "scan of Mrs. SENTINEL was swapped")
    details = json.loads(audited.details)
    assert (details["title"], details["destinations"]) == (code, {"main": len(main.received) - 1})


def test_a_tombstone_is_never_issued_again(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """The same scans make no new run; a second withdrawal, and a retry of what was void, are refused with a reason."""
    main = archive()
    node = outgoing(main.configuration, ScriptedArchive(name="second", port=free_port()).configuration)
    node.later()
    withdraw(node)
    assert node.run.state is RunState.WITHDRAWN
    for _ in range(3):
        node.bench.now += timedelta(days=1)
        node.bench.tick()
    with node.bench.database.read() as ledger:
        assert len(runs.of_patient(ledger, 1)) == 1
        (case,) = ledger.execute(select(tables.case))
    assert case.state == CaseState.WITHDRAWN
    assert "main: rejection note sent" in case.reasons
    again = verb(node, "withdraw", node.run.run_key)
    assert (again.exit_code, "withdrawn or purged before" in again.output) == (1, True)
    assert node.delivery("second").state is VOID
    void = verb(node, "retry", f"{node.run.run_key}/second")
    assert (void.exit_code, "before anything was sent" in void.output) == (1, True)
    count = len(main.received)
    node.later(days=400)
    assert len(main.received) == count


def test_no_later_report_builds_on_a_withdrawn_one(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Neither one frozen before the withdrawal nor one frozen after; the number of the version is not used again."""
    main = archive()
    node = outgoing(main.configuration)
    node.later()
    first = node.run.run_key
    with node.bench.database.write() as ledger:
        for letter in ("b", "c"):
            row = ledger.execute(select(tables.run).where(tables.run.c.run_key == first)).one()._asdict()
            row |= {"run_key": letter * 64, "state": RunState.RUNNING, "encoded_at": None}
            row |= dict.fromkeys(("result", "version", "predecessor", "issued_at"))
            ledger.execute(tables.run.insert().values(**row))
        frozen = runs.freeze(ledger, "b" * 64, "{}", node.bench.now)
    assert (frozen.predecessor, frozen.version) == (first, 2)
    assert verb(node, "withdraw", first).exit_code == 0
    with node.bench.database.write() as ledger:
        before = runs.get(ledger, "b" * 64)
        after = runs.freeze(ledger, "c" * 64, "{}", node.bench.now)
    assert before is not None
    assert (before.predecessor, before.version) == (None, 2)
    assert (after.predecessor, after.version) == (None, 2)


def test_what_an_archive_got_only_in_part_is_rejected_too(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """It took one image and refused the next; the note names the one, and the rest is never sent."""
    main = archive(statuses=[0x0000, 0xC000])
    node = outgoing(main.configuration)
    node.later()
    assert node.delivery().state is DEAD
    withdraw(node)
    (note,) = notes(main)
    assert [uid for _, uid in named(note)] == main.uids[:1]
    assert node.delivery().state is SENT


def test_an_attempt_at_work_changes_nothing_of_a_withdrawal(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Withdrawn while the objects were on the wire: the attempt's end is not the delivery's, the note follows it."""
    main = archive()
    node = outgoing(main.configuration)
    printed: list[str] = []

    def once() -> None:
        main.on_store = lambda: None
        printed.append(verb(node, "withdraw", node.run.run_key).output)

    main.on_store = once
    node.later()
    assert "withdrawn" in printed[0]
    assert node.delivery().state is DeliveryState.PENDING
    assert notes(main) == []
    node.bench.now += timedelta(days=400)
    node.later()
    (note,) = notes(main)
    assert {uid for _, uid in named(note)} >= {uid for uid in main.uids if uid != note.SOPInstanceUID}
    assert node.delivery().state is SENT


def test_an_archive_that_is_away_gets_the_same_bytes_later(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """The note lies encoded in the outbox, is tried like a report, and a person can retry it."""
    main = archive()
    node = outgoing(main.configuration)
    node.later()
    main.stop()
    withdraw(node)
    assert node.delivery().state is DeliveryState.RETRYING
    with node.bench.database.read() as ledger:
        (kept,) = deliveries.contents(ledger, node.delivery())
    before = (node.bench.folders.outbox / kept.path).read_bytes()
    node.later(hours=80)
    assert node.delivery().state is DEAD
    back = ScriptedArchive(port=main.port).start()
    try:
        with node.bench.database.write() as ledger:
            deliveries.revive(ledger, node.delivery(), node.bench.now)
        node.later()
        (note,) = notes(back)
    finally:
        back.stop()
    assert note.SOPInstanceUID == kept.sop_instance_uid
    assert (node.bench.folders.outbox / kept.path).read_bytes() == before
    assert len(back.received) == 1


def test_an_archive_that_takes_no_notes_is_a_dead_letter(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Then its admin has to remove the objects; the reason names the class."""
    main = archive(classes=(*IMAGES, EnhancedSRStorage))
    node = outgoing(main.configuration)
    node.later()
    withdraw(node)
    assert node.delivery().state is DEAD
    assert KeyObjectSelectionDocumentStorage in (node.delivery().error or "")


def test_a_note_is_committed_to_like_a_report(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Commitment is asked for the note alone; what was asked for the report counts for nothing any more."""
    main = archive(commitment=True, at_once=True)
    node = outgoing(main.configuration)
    node.later()
    node.later()
    assert node.delivery().state is DeliveryState.COMMITTED
    withdraw(node)
    node.later()
    (note,) = notes(main)
    assert main.requested() == [str(note.SOPInstanceUID)]
    assert node.delivery().state is DeliveryState.COMMITTED


def test_a_report_that_was_never_made_cannot_be_withdrawn(outgoing: Callable[..., Outgoing]) -> None:
    """`hold` is for that."""
    node = outgoing()
    with node.bench.database.write() as ledger:
        ledger.execute(tables.handed_over.delete())
        ledger.execute(tables.outbox_object.delete())
        runs.set_state(ledger, node.run.run_key, RunState.FAILED)
    done = verb(node, "withdraw", node.run.run_key)
    assert (done.exit_code, "expected a report, found the run failed" in done.output) == (1, True)
    assert node.run.state is RunState.FAILED


def test_a_withdrawn_patient_can_be_purged(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Note, commitment and what each archive held go with the rest; the bare key stays."""
    main = archive(commitment=True, at_once=True)
    node = outgoing(main.configuration)
    node.later()
    node.later()
    withdraw(node)
    node.later()
    done = verb(node, "purge", f"PHANTOM-1^^^{ISSUER}", "--yes")
    assert done.exit_code == 0, done.output
    assert list(node.bench.folders.outbox.glob("*.dcm")) == []
    with node.bench.database.read() as ledger:
        assert [each.state for each in runs.of_patient(ledger, 1)] == [RunState.WITHDRAWN]
        for table in (tables.handed_over, tables.commitment, tables.withdrawal, tables.outbox_object):
            assert ledger.execute(select(table)).all() == []


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_the_note_is_valid(outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]) -> None:
    """No error under dciodvfy; DCMTK's dsrdump reads its tree."""
    main = archive()
    node = outgoing(main.configuration)
    node.later()
    withdraw(node)
    with node.bench.database.read() as ledger:
        (kept,) = deliveries.contents(ledger, node.delivery())
    path = node.bench.folders.outbox / kept.path
    checked = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")] == []
    dumped = subprocess.run(["/usr/bin/dsrdump", str(path)], capture_output=True, text=True, check=False)
    assert dumped.returncode == 0, dumped.stderr
    assert "Rejected for Quality Reasons" in dumped.stdout


@pytest.mark.peer
def test_orthanc_takes_the_note_into_the_study(outgoing: Callable[..., Outgoing], orthanc: Orthanc) -> None:
    """A real archive files it beside what it rejects."""
    dimse = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port}
    node = outgoing({"name": "main", "dimse": dimse}, ae_title=NODE_AE)
    node.later()
    assert node.delivery().state is SENT
    withdraw(node)
    assert node.delivery().state is SENT, node.delivery().error
    (note,) = orthanc.instances(KeyObjectSelectionDocumentStorage)
    held = {uid for _, uid in named(note)}
    tags = [orthanc.client.instances.get_tags(each) for each in orthanc.client.instances.get_all_ids()]
    assert {each["SOPInstanceUID"] for each in tags} == held | {str(note.SOPInstanceUID)}
    assert {each["StudyInstanceUID"] for each in tags} == {str(note.StudyInstanceUID)}
    assert dcmread(node.bench.folders.outbox / f"{_note_path(node)}") == note


def _note_path(node: Outgoing) -> str:
    with node.bench.database.read() as ledger:
        (kept,) = deliveries.contents(ledger, node.delivery())
    return kept.path
