"""A node that lost its ledger reads its own reports back, and goes on as if it had not."""

from __future__ import annotations

import io
import shutil
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)
from sqlalchemy import select

from dicom_node.app import prepare
from dicom_node.cli import main
from dicom_node.ledger import cases, deliveries, rejections, runs
from dicom_node.ledger.tables import DeliveryState, arrival
from dicom_node.observe.logs import open_log
from dicom_node.priors.own_reports import OwnReport, read_own_report
from dicom_node.receive.facts import NotAnInput, UnreadableInstance
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.intake import Intake, Origin
from dicom_node.receive.reader import Reader
from dicom_node.receive.recovery import Recovery
from dicom_node.settings import Logging, load
from dicom_node.timeline.model import RunState
from sr_templates.headers import to_bytes
from sr_templates.read_report import read_report
from sr_templates.uids import derive_uid
from tests.factories.bench import Bench
from tests.factories.flair import DAYS, ISSUER, flair_study
from tests.factories.notes import note, write_note
from tests.factories.peers import ISSUER as PHANTOM_ISSUER
from tests.factories.peers import destination, storescu, wait_for_report, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom import Dataset

    from tests.factories.peers import Node, Orthanc, PhantomStudies

NODE = "NODE"  # the AE title of every bench
ARCHIVE = "main"


class Lost(Bench):
    """A bench that takes files in as they come from an archive or a peer, and has them read in the child."""

    def take(self, *contents: bytes, fetched_from: str | None = ARCHIVE, ae_title: str = NODE) -> None:
        """Take files in and have them read."""
        origin = Origin(name="(fetched)", default_issuer=ISSUER, fetched_from=fetched_from)
        intake = Intake(self.database, self.instances, origin, lambda: self.now)
        for each in contents:
            intake.take(each)
        log = open_log(Logging(level="error", format="json"), b"key")
        recovery = Recovery(
            ae_title=ae_title,
            outbox=self.folders.outbox,
            database=self.database,
            clock=lambda: self.now,
            log=log,
        )
        with Reader() as reader:
            Indexer(self.database, self.instances, reader, log, recovery).run_once()

    def runs(self) -> list[runs.Run]:
        """Return every run, oldest version first."""
        with self.database.read() as ledger:
            found = runs.of_patient(ledger, 1)
        return sorted(found, key=lambda each: each.version or 0)


def reports(bench: Bench) -> list[bytes]:
    """Return the reports of a bench as they were sent, by version."""
    with bench.database.read() as ledger:
        issued = [each for each in runs.of_patient(ledger, 1) if each.version is not None]
        objects = [
            next(o for o in runs.objects_of(ledger, each.run_key) if o.kind == "report")
            for each in sorted(issued, key=lambda each: each.version or 0)
        ]
    return [(bench.folders.outbox / each.path).read_bytes() for each in objects]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory, studies: list[Path]) -> tuple[list[bytes], list[runs.Run]]:
    """The two reports of a node that saw three studies, then the fourth; and its runs."""
    bench = Lost(tmp_path_factory.mktemp("first-life"))
    early = [each for each in studies if each.parent.name != "3"]
    for batch in (early, [each for each in studies if each not in early]):
        bench.receive(*batch)
        bench.now += timedelta(minutes=5)
        bench.tick()
        bench.tick()
    found = bench.runs()
    assert [each.version for each in found] == [1, 2]
    return reports(bench), found


@pytest.fixture
def fresh(tmp_path: Path, issued: tuple[list[bytes], list[runs.Run]]) -> Iterator[Lost]:
    """The same node with an empty ledger, an hour later."""
    bench = Lost(tmp_path / "second-life")
    bench.now += timedelta(hours=1)
    yield bench
    bench.database.close()


def changed(content: bytes, **attributes: str) -> bytes:
    """Return a report with other attributes."""
    ds = dcmread(io.BytesIO(content))
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return to_bytes(ds)


def settle(bench: Bench) -> None:
    """Let the quiet period pass and decide."""
    bench.now += timedelta(minutes=5)
    bench.tick()
    bench.tick()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_reports_that_are_read_back_stand_as_they_were_issued(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], order: tuple[int, int]
) -> None:
    """Keys, versions, times, predecessors, inputs and answers, in whatever order they come, and however often."""
    contents, before = issued
    fresh.take(*(contents[each] for each in order))
    fresh.take(*contents)
    found = fresh.runs()
    same = ("run_key", "task", "state", "version", "issued_at", "bundle_digest", "predecessor")
    assert [[getattr(each, name) for name in same] for each in found] == [
        [getattr(each, name) for name in same] for each in before
    ]
    for now, then in zip(found, before, strict=True):
        assert now.inputs.dates == then.inputs.dates
        assert runs.facts(now).studies == runs.facts(then).studies
        assert named(now) == named(then)
        assert now.result is not None
        assert (fresh.folders.outbox / f"{now.run_key}-recovered.dcm").is_file()


def named(run: runs.Run) -> list[list[tuple[str, list[str]]]]:
    """Return roles and instances of the inputs, in order."""
    return [
        [(series.role.value, [each.sop_instance_uid for each in series.instances]) for series in point.series]
        for point in run.inputs.time_points
    ]


def test_inputs_that_were_reported_are_not_reported_again(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path]
) -> None:
    """The images come back too, and the case stands as reported by the old report."""
    contents, before = issued
    fresh.take(*contents)
    fresh.receive(*studies)
    settle(fresh)
    assert [each.run_key for each in fresh.runs()] == [each.run_key for each in before]
    assert {each.state for each in fresh.runs()} == {RunState.REPORTED}


def test_a_run_that_waits_to_be_made_again_stands_as_reported_once_its_report_is_read(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path]
) -> None:
    """The images were there before the report."""
    contents, before = issued
    fresh.receive(*studies)
    fresh.now += timedelta(minutes=5)
    with fresh.database.read() as ledger:
        assert runs.of_patient(ledger, 1) == []
    fresh.reconciler._decide()  # proposes the run, and hands it to nobody
    assert [each.state for each in fresh.runs()] == [RunState.QUEUED]
    fresh.take(contents[1])
    (run,) = fresh.runs()
    assert (run.run_key, run.state, run.version) == (before[1].run_key, RunState.REPORTED, 2)
    assert run.inputs == before[1].inputs


def test_the_next_report_counts_on_and_names_its_true_predecessor(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path], tmp_path: Path
) -> None:
    """Version 3 after the loss, with the same tracking UID, and the SR of version 2 as predecessor."""
    contents, _ = issued
    fresh.take(*contents)
    newer = flair_study(tmp_path / "newer", DAYS[-1] + timedelta(days=90), name="newer")
    fresh.now += timedelta(days=90)
    fresh.receive(*studies, *newer)
    settle(fresh)
    third = read_report(dcmread(io.BytesIO(reports(fresh)[-1])))
    second = read_report(dcmread(io.BytesIO(contents[-1])))
    assert third.run.version == 3
    assert third.predecessor_sop_instance_uid == second.sop_instance_uid
    assert third.tracking_uid == second.tracking_uid


def test_a_report_whose_older_images_are_not_here_yet_is_not_said_to_rest_on_wrong_ones(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path]
) -> None:
    """What was never fetched again is not what somebody took back."""
    fresh.take(*issued[0])
    fresh.receive(*(each for each in studies if each.parent.name == "3"))
    settle(fresh)
    with fresh.database.read() as ledger:
        (case,) = cases.of_patient(ledger, 1)
    assert case.reasons
    assert not [each for each in case.reasons if each.code == "report-unsupported"]


def test_the_next_report_says_when_another_model_made_the_one_before(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path], tmp_path: Path
) -> None:
    """A reader would take the difference between two models for a change of the patient."""
    contents, _ = issued
    ds = dcmread(io.BytesIO(contents[-1]))
    other = "sha256:" + "0" * 64
    for item in (each for each in descendants(ds) if str(each.get("TextValue", "")).startswith("weights=")):
        item.TextValue = f"weights={other}"
    equipment = ds.ContributingEquipmentSequence[0]
    equipment.SoftwareVersions = ["1", "sha256:" + "0" * 32, "0" * 32]
    equipment.DeviceUID = derive_uid("device", NODE, other)
    newer = flair_study(tmp_path / "newer", DAYS[-1] + timedelta(days=90), name="newer")
    fresh.take(contents[0], to_bytes(ds))
    fresh.now += timedelta(days=90)
    fresh.receive(*studies, *newer)
    settle(fresh)
    report = read_report(dcmread(io.BytesIO(reports(fresh)[-1])))
    assert report.run.version == 3
    assert any("made by another model (fake 1): not comparable" in line for line in report.summary)


def test_a_report_that_a_note_in_the_archive_takes_back_stays_withdrawn(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path], tmp_path: Path
) -> None:
    """Whichever is read first; its inputs are not reported again, and no later report builds on it."""
    contents, _ = issued
    report = tmp_path / "report.dcm"
    report.write_bytes(contents[-1])
    taken_back = write_note(note([report]), tmp_path / "notes").read_bytes()
    fresh.take(taken_back, *contents)
    assert [each.state for each in fresh.runs()] == [RunState.REPORTED, RunState.WITHDRAWN]
    fresh.receive(*studies)
    settle(fresh)
    assert [each.state for each in fresh.runs()] == [RunState.REPORTED, RunState.WITHDRAWN]
    other = Lost(tmp_path / "other")
    other.take(*contents, taken_back)
    assert [each.state for each in other.runs()] == [RunState.REPORTED, RunState.WITHDRAWN]
    other.database.close()


def test_the_archive_counts_as_holding_what_it_gave_back(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]]
) -> None:
    """So that a later withdrawal reaches it: report, saliency and summary."""
    contents, before = issued
    fresh.take(*contents)
    with fresh.database.read() as ledger:
        (delivery,) = deliveries.of_run(ledger, before[1].run_key)
        held = deliveries.held_by(ledger, delivery)
    assert (delivery.destination, delivery.state) == (ARCHIVE, DeliveryState.SENT)
    evidence = read_report(dcmread(io.BytesIO(contents[1])))
    assert len(held) == 3
    assert held[-1].sop_instance_uid == evidence.sop_instance_uid
    assert {each.sop_instance_uid for each in held[:-1]} <= evidence.input_sop_instance_uids


def test_a_report_of_ours_that_somebody_sends_is_no_input_and_enters_no_run(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]]
) -> None:
    """Invariant 11; only what we asked an archive for is read back, and only what this node made."""
    contents, _ = issued
    fresh.take(contents[0], fetched_from=None)
    fresh.take(contents[1], ae_title="ANOTHER")
    with fresh.database.read() as ledger:
        assert runs.counts_by_state(ledger) == {}


def test_another_makers_report_is_not_taken_for_ours(
    tmp_path: Path, issued: tuple[list[bytes], list[runs.Run]]
) -> None:
    """Nor one whose equipment, station or template was changed on the way."""
    contents, _ = issued
    for number, attributes in enumerate(
        ({"ManufacturerModelName": "Other"}, {"Manufacturer": "Other"}, {"StationName": "ELSEWHERE"})
    ):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(changed(contents[0], **attributes))
        with pytest.raises(NotAnInput, match="structured-report"):
            read_own_report(path, default_issuer=ISSUER)


def test_a_report_that_says_no_run_is_set_aside_with_its_reason(
    tmp_path: Path, issued: tuple[list[bytes], list[runs.Run]]
) -> None:
    """Untrusted as everything: what it should say is checked before it is believed."""

    def write(ds: Dataset) -> Path:
        path = tmp_path / "report.dcm"
        path.write_bytes(to_bytes(ds))
        return path

    ds = dcmread(io.BytesIO(issued[0][0]))
    for item in (each for each in descendants(ds) if str(each.get("TextValue", "")).startswith("run=")):
        item.TextValue = "run=../../outbox"
    with pytest.raises(UnreadableInstance, match="without task, run and version"):
        read_own_report(write(ds), default_issuer=ISSUER)
    ds = dcmread(io.BytesIO(issued[0][0]))
    del ds.CurrentRequestedProcedureEvidenceSequence
    with pytest.raises(UnreadableInstance):
        read_own_report(write(ds), default_issuer=ISSUER)


def descendants(item: Dataset) -> Iterator[Dataset]:
    """Yield every content item below this one."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from descendants(child)


def test_what_the_child_says_of_a_report_survives_the_pipe(
    tmp_path: Path, issued: tuple[list[bytes], list[runs.Run]]
) -> None:
    """Plain JSON there and back."""
    path = tmp_path / "report.dcm"
    path.write_bytes(issued[0][1])
    report = read_own_report(path, default_issuer=ISSUER)
    assert OwnReport.from_json(report.to_json()) == report
    assert replace(report, version=7) != report
    with Reader() as reader:
        assert reader.read(path, ISSUER) == report


@pytest.mark.parametrize(
    ("methods", "code", "said"), [([], 1, "no archive may be asked"), (["orthanc"], 0, "1 questions")]
)
def test_recover_asks_the_archives_that_may_be_asked(tmp_path: Path, methods: list[str], code: int, said: str) -> None:
    """Of a patient whom nobody here knows any more; asked twice, the open question stays the only one."""
    config = tmp_path / "node.yaml"
    archive = {"name": ARCHIVE, "orthanc": {"url": "http://127.0.0.1:9"}, "default_issuer": ISSUER}
    content = {
        "node": {"ae_title": NODE, "data_dir": str(tmp_path / "data")},
        "receive": {"allow_unknown_peers": True},
        "tasks": ["glioma-recurrence"],
        "pacs": [archive | {"priors": {"methods": methods}}],
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    prepare(load(config))
    done = CliRunner().invoke(main, ["recover", "P1", "--config", str(config)])
    assert (done.exit_code, said in done.output) == (code, True)
    again = CliRunner().invoke(main, ["recover", "--config", str(config)])
    assert again.exit_code == code
    assert ("0 questions opened about 1 patients" in again.output) is (code == 0)


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_a_node_whose_data_folder_is_gone_goes_on_with_what_the_archive_holds(
    orthanc: Orthanc, make_node: Callable[..., Node], phantom: PhantomStudies
) -> None:
    """The report after the loss follows the one before it, which nobody but the archive remembers."""
    entry = destination(orthanc) | {
        "orthanc": {"url": f"http://127.0.0.1:{orthanc.http_port}"},
        "default_issuer": PHANTOM_ISSUER,
        "priors": {"methods": ["orthanc"]},
    }
    for folder in phantom.folders[:3]:
        orthanc.client.upload_folder(str(folder))
    node = make_node(pacs=[entry])
    node.import_cohort(phantom.cohort_row)
    node.start()
    storescu([phantom.folders[2]], node)
    wait_for_report(node)
    (first,) = orthanc.instances(Comprehensive3DSRStorage)
    node.stop()
    shutil.rmtree(node.folder / "data")

    node.import_cohort(phantom.cohort_row)
    node.start()
    assert "1 questions opened about 1 patients" in node.verb("recover", phantom.patient.patient_id)
    wait_until("the old report", lambda: node.status()["runs"] == {"reported": 1}, timeout_s=90)
    storescu([phantom.folders[3]], node)
    wait_until("the next report", lambda: node.status()["runs"].get("reported") == 2, timeout_s=180)
    wait_for_report(node)
    second = max(orthanc.instances(Comprehensive3DSRStorage), key=lambda ds: read_report(ds).run.version)
    assert read_report(second).run.version == 2
    assert read_report(second).predecessor_sop_instance_uid == first.SOPInstanceUID
    assert read_report(second).tracking_uid == read_report(first).tracking_uid
    assert len(orthanc.instances(Comprehensive3DSRStorage)) == 2
    log = node.log_path.read_text(encoding="utf-8")
    assert phantom.patient.patient_id not in log
    assert "report.read_back" in log


def with_parameters(content: bytes, **parameters: object) -> Dataset:
    """Return a report of another SOP Instance UID whose algorithm parameters say something else."""
    ds = dcmread(io.BytesIO(content))
    for name, value in parameters.items():
        said = name.replace("_", " ") + "="
        for item in (each for each in descendants(ds) if str(each.get("TextValue", "")).startswith(said)):
            item.TextValue = f"{said}{value}"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = derive_uid("altered", *sorted(parameters))
    return ds


@pytest.mark.parametrize(
    ("version", "is_read"), [(1, True), (9999, True), (10000, False), (2**63 - 1, False), (0, False)]
)
def test_a_version_that_no_node_reaches_is_not_counted_on(
    tmp_path: Path, issued: tuple[list[bytes], list[runs.Run]], version: int, is_read: bool
) -> None:
    """The next report would have none: the ledger's integers end there."""
    path = tmp_path / "report.dcm"
    path.write_bytes(to_bytes(with_parameters(issued[0][0], report_version=version)))
    if is_read:
        assert read_own_report(path, default_issuer=ISSUER).version == version
        return
    with pytest.raises(UnreadableInstance, match="without task, run and version"):
        read_own_report(path, default_issuer=ISSUER)


@pytest.mark.parametrize(
    ("sop_class_uid", "series_instance_uid", "is_ours"),
    [
        (SecondaryCaptureImageStorage, "2.25.77", True),
        (MultiFrameTrueColorSecondaryCaptureImageStorage, "2.25.77", True),
        (ParametricMapStorage, "2.25.77", True),
        (MRImageStorage, "2.25.77", False),
        (Comprehensive3DSRStorage, "2.25.77", False),
        (SecondaryCaptureImageStorage, "an input's", False),
        (SecondaryCaptureImageStorage, "no UID", False),
    ],
)
def test_only_images_of_the_kinds_that_we_issue_count_as_issued_with_a_report(
    tmp_path: Path,
    issued: tuple[list[bytes], list[runs.Run]],
    sop_class_uid: str,
    series_instance_uid: str,
    is_ours: bool,
) -> None:
    """A withdrawal names them: it must never reject what a scanner made."""
    ds = dcmread(io.BytesIO(issued[0][1]))
    study = next(
        each for each in ds.CurrentRequestedProcedureEvidenceSequence if each.StudyInstanceUID == ds.StudyInstanceUID
    )
    inputs = read_own_report_of(tmp_path, issued[0][1]).inputs.time_points
    one = next(s for point in inputs for s in point.series if s.study_instance_uid == ds.StudyInstanceUID)
    added = deepcopy(study.ReferencedSeriesSequence[0])
    added.SeriesInstanceUID = one.series_instance_uid if series_instance_uid == "an input's" else "2.25.77"
    if series_instance_uid == "no UID":
        added.SeriesInstanceUID = ""
    added.ReferencedSOPSequence = added.ReferencedSOPSequence[:1]
    added.ReferencedSOPSequence[0].ReferencedSOPClassUID = sop_class_uid
    added.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.78"
    study.ReferencedSeriesSequence.append(added)
    found = read_own_report_of(tmp_path, to_bytes(ds)).objects
    assert ("2.25.78" in {each.sop_instance_uid for each in found}) is is_ours
    assert len(found) == 3 + is_ours


def read_own_report_of(folder: Path, content: bytes) -> OwnReport:
    """Read a report from its bytes."""
    path = folder / "report.dcm"
    path.write_bytes(content)
    return read_own_report(path, default_issuer=ISSUER)


@pytest.mark.parametrize("what", ["patient", "task", "inputs"])
def test_a_report_that_contradicts_a_run_known_here_is_not_believed(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path], what: str
) -> None:
    """Its run stays to be made, and the true report is still read back, with its own bytes."""
    contents, before = issued
    fresh.receive(*studies)
    fresh.now += timedelta(minutes=5)
    fresh.reconciler._decide()  # proposes the run, and hands it to nobody
    ds = with_parameters(contents[1], **({"task": "other-task"} if what == "task" else {}))
    if what == "patient":
        ds.PatientID, ds.PatientName = "PHANTOM-2", "PHANTOM^2"
        ds.StudyInstanceUID = derive_uid("another study")
    if what == "inputs":
        for study in ds.CurrentRequestedProcedureEvidenceSequence:
            study.ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()
    fresh.take(to_bytes(ds))
    assert [each.state for each in fresh.runs()] == [RunState.QUEUED]
    with fresh.database.read() as ledger:
        assert deliveries.of_run(ledger, before[1].run_key) == []
        assert "contradicts" in str(ledger.scalars(select(arrival.c.reason).order_by(arrival.c.id.desc())).first())
    fresh.take(contents[1])
    (run,) = fresh.runs()
    assert (run.state, run.version) == (RunState.REPORTED, 2)
    assert (fresh.folders.outbox / f"{run.run_key}-recovered.dcm").read_bytes() == contents[1]


def test_a_note_that_names_only_an_image_issued_with_a_report_does_not_withdraw_the_report(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], tmp_path: Path
) -> None:
    """The reading stands; the archive lost a picture of it."""
    contents, _ = issued
    fresh.take(*contents)
    report = tmp_path / "report.dcm"
    report.write_bytes(contents[-1])
    found = note([report])
    capture = read_own_report_of(tmp_path, contents[-1]).objects[0]
    assert capture.kind == "image"
    for item in (each for each in (found, *descendants(found)) if "ReferencedSOPSequence" in each):
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = capture.sop_instance_uid
    for study in found.CurrentRequestedProcedureEvidenceSequence:
        study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = capture.sop_instance_uid
    fresh.take(write_note(found, tmp_path / "notes").read_bytes())
    with fresh.database.read() as ledger:
        assert capture.sop_instance_uid in rejections.rejected(ledger, 1)
    assert [each.state for each in fresh.runs()] == [RunState.REPORTED, RunState.REPORTED]


def test_a_report_not_yet_encoded_does_not_build_on_one_that_a_note_takes_back(
    fresh: Lost, issued: tuple[list[bytes], list[runs.Run]], studies: list[Path], tmp_path: Path
) -> None:
    """The note comes between inference and encoding: the one before the withdrawn is the predecessor."""
    contents, before = issued
    fresh.take(*contents)
    newer = flair_study(tmp_path / "newer", DAYS[-1] + timedelta(days=90), name="newer")
    fresh.now += timedelta(days=90)
    fresh.receive(*studies, *newer)
    fresh.now += timedelta(minutes=5)
    fresh.reconciler._decide()  # proposes the run, and hands it to nobody
    fresh.steps.infer(next(each.run_key for each in fresh.runs() if each.state is RunState.QUEUED))
    assert [each.predecessor for each in fresh.runs()] == [None, before[0].run_key, before[1].run_key]
    report = tmp_path / "report.dcm"
    report.write_bytes(contents[-1])
    fresh.take(write_note(note([report]), tmp_path / "notes").read_bytes())
    third = fresh.runs()[-1]
    assert [each.state for each in fresh.runs()][:2] == [RunState.REPORTED, RunState.WITHDRAWN]
    assert third.predecessor == before[0].run_key
