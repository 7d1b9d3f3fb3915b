"""Never to the wrong person, on real components: Orthanc corrects or moves a study while its report is held back."""

from __future__ import annotations

import shutil
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import runs
from dicom_node.ledger.database import Database
from dicom_node.priors.archives import open_archive
from dicom_node.settings import Pacs
from dicom_node.work.demographics import Answer, as_told, ask, of_header
from tests.factories.peers import ISSUER, NODE_AE, destination, storescu, wait_for_report, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset

    from tests.factories.peers import Node, Orthanc, PhantomStudies

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("dcmtk")]

CORRECTED = "CORRÉE^SENTINEL"
UNICODE = "YAMADA^SENTINEL=山田^太郎"
STRANGER = "STRANGER-4711"
OURS = (SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage, Comprehensive3DSRStorage)
OTHER_CLASSES = ("report-compr", "report-enhanced")


def store(orthanc: Orthanc, folder: Path, **changes: str) -> None:
    """Put a study into Orthanc as it would stand there after a correction of these attributes."""
    for path in folder.rglob("*.dcm"):
        ds = dcmread(path)
        ds.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        content = BytesIO()
        dcmwrite(content, ds, enforce_file_format=True)
        orthanc.client.upload(content.getvalue())


def change_while_unreachable(orthanc: Orthanc, folder: Path, **changes: str) -> None:
    """Replace the study in Orthanc while the node cannot reach its DICOM port."""
    port, orthanc.dicom_port = orthanc.dicom_port, free_port()
    orthanc.start()
    for study in orthanc.client.studies.get_all_ids():
        orthanc.client.studies.delete(study)
    store(orthanc, folder, **changes)
    orthanc.stop()
    orthanc.dicom_port = port


def ours(orthanc: Orthanc) -> list[Dataset]:
    """Return everything in Orthanc that a node made."""
    return [ds for sop_class_uid in OURS for ds in orthanc.instances(sop_class_uid)]


def objects(node: Node, encoding: int) -> set[str]:
    """Return the SOP Instance UIDs of an encoding of the only run, as an archive gets it that takes the first class."""
    database = Database(f"sqlite:///{node.folder / 'data' / 'ledger.sqlite'}")
    try:
        with database.read() as ledger:
            (run,) = runs.of_patient(ledger, 1)
            made = runs.objects_of(ledger, run.run_key, encoding)
            return {each.sop_instance_uid for each in made if each.kind not in OTHER_CLASSES}
    finally:
        database.close()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data folder of a node with a waiting report is kept, so that only the first test has to infer."""
    return tmp_path_factory.mktemp("shelf") / "data"


@pytest.fixture
def held_back(orthanc: Orthanc, make_node: Callable[..., Node], phantom: PhantomStudies, shelf: Path) -> Node:
    """A node whose report waits, for Orthanc was away when it was made, and still is."""
    orthanc.stop()
    node = make_node(pacs=[destination(orthanc)])
    if shelf.exists():
        shutil.copytree(shelf, node.folder / "data", symlinks=True, dirs_exist_ok=True)
    else:
        node.import_cohort(phantom.cohort_row)
        node.start()
        storescu(phantom.folders[:3], node)
        wait_until("a failed attempt", lambda: node.status()["deliveries"] == {"retrying": 1}, timeout_s=300)
        node.stop()
        shutil.copytree(node.folder / "data", shelf, ignore=shutil.ignore_patterns("cache"))
    node.start()
    return node


def test_a_report_held_back_goes_out_under_the_corrected_name(
    orthanc: Orthanc, held_back: Node, phantom: PhantomStudies
) -> None:
    """Encoded anew it joins the corrected study, though all processes die meanwhile; of the void nothing arrives."""
    change_while_unreachable(orthanc, phantom.folders[2], PatientName=CORRECTED, PatientSex="M")
    orthanc.start()
    wait_until("the void", lambda: "delivery.voided" in held_back.log_path.read_text(encoding="utf-8"), every_s=0.01)
    held_back.kill()
    held_back.start()
    wait_for_report(held_back)
    found = ours(orthanc)
    assert {str(ds.SOPInstanceUID) for ds in found} == objects(held_back, 2)
    assert len(found) == len(objects(held_back, 1)) == 3
    assert {(str(ds.PatientName), ds.PatientSex) for ds in found} == {(CORRECTED, "M")}
    assert len(orthanc.client.studies.get_all_ids()) == 1
    held_back.stop()
    assert "SENTINEL" not in held_back.log_path.read_text(encoding="utf-8")


def test_a_report_of_a_study_that_was_moved_to_another_patient_is_not_sent(
    orthanc: Orthanc, held_back: Node, phantom: PhantomStudies
) -> None:
    """The case is failed and says which field differs; neither the log nor the reason holds the other ID."""
    change_while_unreachable(orthanc, phantom.folders[2], PatientID=STRANGER)
    orthanc.start()
    wait_until("the case to fail", lambda: held_back.case()["state"] == "failed")
    (reason,) = held_back.case()["reasons"]
    assert "files the study under another PatientID" in reason["text"]
    assert STRANGER not in reason["text"]
    assert held_back.status()["deliveries"] == {"dead": 1}
    assert ours(orthanc) == []
    held_back.stop()
    assert STRANGER not in held_back.log_path.read_text(encoding="utf-8")


def test_a_name_that_orthanc_cannot_answer_with_has_not_changed(orthanc: Orthanc, phantom: PhantomStudies) -> None:
    """Its C-FIND answers in Latin 1 and drops ideographs, though it holds them: the study is not taken as corrected."""
    store(orthanc, phantom.folders[2], PatientName=UNICODE)
    header = dcmread(next(phantom.folders[2].rglob("*.dcm")))
    header.PatientName = UNICODE
    held = of_header(header, default_issuer=ISSUER)
    pacs = Pacs.model_validate(destination(orthanc))
    answer, found = ask(pacs, lambda each: open_archive(each, NODE_AE), str(header.StudyInstanceUID))
    assert answer is Answer.ANSWERED
    assert found is not None
    assert found.patient.name != UNICODE
    assert as_told(held, found, pacs.name, []) == held


def test_over_rest_orthanc_is_asked_as_well(
    orthanc: Orthanc, make_node: Callable[..., Node], phantom: PhantomStudies
) -> None:
    """Corrected before encoding: the first report already carries the archive's name, and nothing is void."""
    pacs: dict[str, Any] = {"name": "main", "orthanc": {"url": f"http://127.0.0.1:{orthanc.http_port}"}}
    node = make_node(pacs=[pacs])
    node.import_cohort(phantom.cohort_row)
    node.start()
    store(orthanc, phantom.folders[2], PatientName=UNICODE)
    storescu(phantom.folders[:3], node)
    wait_for_report(node)
    assert {str(ds.PatientName) for ds in ours(orthanc)} == {UNICODE}
    assert {str(ds.SOPInstanceUID) for ds in ours(orthanc)} == objects(node, 1)
    assert objects(node, 2) == set()
