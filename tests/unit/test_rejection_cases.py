"""What becomes of a case when an archive takes images back: decided on what stands, in whatever order things came."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from dicom_node.ledger import arrivals, cases, rejections, runs
from dicom_node.ledger.tables import CaseState
from dicom_node.receive.notes import read_note
from tests.factories.bench import Bench
from tests.factories.flair import ISSUER
from tests.factories.notes import QUALITY, RETENTION_EXPIRED, note, write_note

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.sr.coding import Code

    from dicom_node.ledger.cases import Case


@pytest.fixture(scope="module")
def studies(studies: list[Path]) -> list[list[Path]]:
    """Four FLAIR studies of one patient, oldest first, each with its files."""
    return [[path for path in studies if path.parent.name == str(number)] for number in range(4)]


def receive_note(bench: Bench, images: list[Path], folder: Path, title: Code = QUALITY) -> None:
    """Take in a note about images as listener and indexer do."""
    path = write_note(note(images, title), folder)
    with bench.database.write() as ledger:
        new = arrivals.Arrival(
            sop_instance_uid=path.stem,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=bench.instances.write((path.read_bytes(),)),
            size_bytes=path.stat().st_size,
            calling_ae_title="ARCHIVE",
            default_issuer=ISSUER,
            stat=False,
            received_at=bench.now,
        )
        arrivals.record(ledger, new)
        (pending,) = arrivals.pending(ledger, 2)
        rejections.enter(ledger, pending.arrival_id, read_note(path, default_issuer=ISSUER))


def receive(bench: Bench, *studies: list[Path]) -> None:
    """Take in studies and let them become quiet."""
    for study in studies:
        for path in study:
            bench.receive(path)
    settle(bench)


def settle(bench: Bench) -> None:
    """Decide after the quiet period, and once more on what came of it."""
    bench.now += timedelta(minutes=5)
    bench.tick()
    bench.tick()


def case_of(bench: Bench) -> Case:
    """Return the only case."""
    with bench.database.read() as ledger:
        (found,) = cases.of_patient(ledger, 1)
    return found


def inputs_of(bench: Bench) -> list[str]:
    """Return the days of the newest run's time points."""
    with bench.database.read() as ledger:
        found = runs.of_patient(ledger, 1)
    return [each["acquired_on"] for each in json.loads(found[-1].inputs.to_json())["time_points"]]


@pytest.mark.parametrize("first", [True, False], ids=["note first", "images first"])
def test_only_what_stands_is_used(tmp_path: Path, studies: list[list[Path]], first: bool) -> None:
    """The same run is made whether the note came before the images or after them."""
    bench = Bench(tmp_path / "node")
    if first:
        receive_note(bench, studies[1], tmp_path)
    for study in studies:
        for path in study:
            bench.receive(path)
    if not first:
        receive_note(bench, studies[1], tmp_path)
    settle(bench)
    assert case_of(bench).state is CaseState.REPORTED
    assert inputs_of(bench) == ["2025-06-02", "2025-12-01", "2026-02-20"]


def test_an_expired_scan_is_used(tmp_path: Path, studies: list[list[Path]]) -> None:
    """That the archive no longer keeps it says nothing against it."""
    bench = Bench(tmp_path / "node")
    receive_note(bench, studies[1], tmp_path, RETENTION_EXPIRED)
    receive(bench, *studies)
    assert len(inputs_of(bench)) == 4


def test_a_report_on_rejected_images_is_named_until_a_sound_one_takes_its_place(
    tmp_path: Path, studies: list[list[Path]]
) -> None:
    """With too few scans left the case waits; the report is named, and sending the scan again does not help."""
    bench = Bench(tmp_path / "node")
    receive(bench, *studies[1:])
    receive_note(bench, studies[2], tmp_path)
    settle(bench)
    found = case_of(bench)
    assert found.state is CaseState.WAITING
    assert {"too-few-time-points", "report-unsupported"} <= {each.code for each in found.reasons}
    receive(bench, studies[2])
    assert case_of(bench).state is CaseState.WAITING
    receive(bench, studies[0])
    found = case_of(bench)
    assert found.state is CaseState.REPORTED
    assert "report-unsupported" not in {each.code for each in found.reasons}
    assert inputs_of(bench) == ["2025-06-02", "2025-09-08", "2026-02-20"]


def test_a_patient_of_whom_everything_was_rejected_still_has_a_case(tmp_path: Path, studies: list[list[Path]]) -> None:
    """Nobody vanishes from the status because nothing can be used (invariant 6)."""
    bench = Bench(tmp_path / "node")
    receive(bench, *studies[1:])
    for number, study in enumerate(studies[1:]):
        receive_note(bench, study, tmp_path / str(number))
    settle(bench)
    found = case_of(bench)
    assert found.state is not CaseState.REPORTED
    assert "report-unsupported" in {each.code for each in found.reasons}


def test_one_rejected_slice_is_a_gap(tmp_path: Path, studies: list[list[Path]]) -> None:
    """A series that lost a slice in its middle is not used as if it were whole."""
    bench = Bench(tmp_path / "node")
    middle = sorted(studies[2], key=lambda path: float(dcmread(path).ImagePositionPatient[2]))[12]
    receive_note(bench, [middle], tmp_path)
    receive(bench, *studies)
    with bench.database.read() as ledger:
        used = {uid for run in runs.of_patient(ledger, 1) for uid in runs.facts(run).instances}
    assert not used & {Bench.uid(path) for path in studies[2]}
