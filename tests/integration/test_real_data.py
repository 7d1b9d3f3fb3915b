"""Real and odd DICOM: every series ends in a visible state with a reason, every file is stored or refused by name."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import Comprehensive3DSRStorage, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from dicom_node.receive import statuses
from dicom_node.receive.contexts import NATIVE, decodable
from dicom_node.resources import task_file
from tests.factories.mr import classic_series, write
from tests.factories.peers import (
    ISSUER,
    NODE_AE,
    SCANNER_AE,
    destination,
    storescu,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.factories.peers import Node, Orthanc, PhantomStudies

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore:Invalid value for VR")]  # odd files are odd
SYNTAXES = (*NATIVE, *decodable())
NAMED = frozenset(statuses.NAMES)


@pytest.fixture(scope="module")
def real_data() -> Path:
    """The folder of real images, named by the environment."""
    folder = os.environ.get("DICOM_NODE_REAL_DATA")
    if not folder:
        pytest.skip("DICOM_NODE_REAL_DATA is not set: no real images on this machine")
    return Path(folder)


@dataclass(frozen=True)
class RawObject:
    """A file cut into what a C-STORE needs, without decoding or repairing it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes


def cut(path: Path) -> RawObject:
    """Cut a file; what names neither class nor instance goes as MR with a UID of its own."""
    content = path.read_bytes()
    offset, meta = 0, None
    if content[128:132] == b"DICM":
        try:
            meta = read_file_meta_info(path)
            offset = 144 + int(meta.FileMetaInformationGroupLength)
        except (InvalidDicomError, AttributeError, OSError, ValueError):
            meta, offset = None, 132
    try:  # as a sender names it; what cannot be parsed is named by its file meta
        named = dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).get("SOPInstanceUID")
    except (InvalidDicomError, AttributeError, OSError, ValueError, EOFError):
        named = None
    return RawObject(
        sop_class_uid=str(getattr(meta, "MediaStorageSOPClassUID", MRImageStorage)),
        sop_instance_uid=str(named or getattr(meta, "MediaStorageSOPInstanceUID", f"2.25.{path.stat().st_size}")),
        transfer_syntax_uid=str(getattr(meta, "TransferSyntaxUID", ImplicitVRLittleEndian)),
        data_set=content[offset:],
    )


def part10(raw: RawObject, path: Path) -> Path:
    """Write an object as a file whose meta fits its C-STORE, its data set untouched."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = raw.sop_class_uid
    meta.MediaStorageSOPInstanceUID = raw.sop_instance_uid
    meta.TransferSyntaxUID = raw.transfer_syntax_uid
    buffer = DicomBytesIO()
    buffer.write(bytes(128) + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=True)
    path.write_bytes(buffer.getvalue() + raw.data_set)
    return path


def send_raw(node: Node, path: Path, scratch: Path) -> str:
    """Send a file's data set byte by byte as it is; return the named status, or that no context was accepted."""
    raw = cut(path)
    ae = AE(ae_title=SCANNER_AE)
    ae.add_requested_context(raw.sop_class_uid, raw.transfer_syntax_uid)
    association = ae.associate("127.0.0.1", node.port, ae_title=NODE_AE)
    if not association.is_established or not association.accepted_contexts:
        association.abort()
        return "no presentation context"
    response = association.send_c_store(part10(raw, scratch))
    association.release()
    assert "Status" in response, f"{path.name}: no answer"
    assert response.Status in NAMED, f"{path.name}: status 0x{response.Status:04X} has no name"
    return statuses.NAMES[response.Status]


def unpacked(archives: Iterator[Path], folder: Path) -> dict[str, list[Path]]:
    """Unpack archives; return archive name -> files."""
    found = {}
    for archive in sorted(archives):
        target = folder / archive.name.removesuffix(".tar.xz")
        with tarfile.open(archive, "r:xz") as tar:
            tar.extractall(target, filter="data")
        found[archive.name] = sorted(path for path in target.rglob("*") if path.is_file())
    return found


def patient_ids(series: dict[str, list[Path]]) -> set[str]:
    """Return whom the series are of, so that the cohort can make them all eligible by diagnosis and surgery."""
    found = {str(dcmread(files[0], stop_before_pixels=True).PatientID) for files in series.values()}
    return {each for each in found if each}


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the bytes of files as they are."""
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)


@pytest.mark.usefixtures("dcmtk", "undecoded")
def test_real_series_end_in_a_visible_state_beside_a_good_patient(
    real_data: Path,
    orthanc: Orthanc,
    make_node: Callable[..., Node],
    phantom: PhantomStudies,
    tmp_path: Path,
) -> None:
    """Every real and odd file gets a named answer and every patient a state with a reason; the good one is reported."""
    series = unpacked((real_data / "dicom").glob("*.tar.xz"), tmp_path / "real")
    series |= unpacked((real_data / "dicom_vendor_headers_noise_pixels").glob("*.tar.xz"), tmp_path / "vendors")
    odd = sorted((real_data / "dicom_odd").glob("*.dcm"))
    for files in unpacked((real_data / "dicom_odd").glob("*.tar.xz"), tmp_path / "odd").values():
        odd += files
    scratch = tmp_path / "scratch.dcm"
    node = make_node(pacs=[destination(orthanc)])
    node.import_cohort(phantom.cohort_row, *(f"{each},{ISSUER},glioma,2000-01-01" for each in patient_ids(series)))
    node.start()
    storescu(phantom.folders[:2], node)
    answers = {name: [send_raw(node, path, scratch) for path in files[:40]] for name, files in series.items()}
    odd_answers = {path.name: send_raw(node, path, scratch) for path in odd}
    storescu(phantom.folders[2:4], node)

    refused = [name for name, each in answers.items() if set(each) != {"success"}]
    assert len(refused) <= 1, answers  # one series has illegal UIDs
    assert all(set(answers[name]) == {"cannot-understand"} for name in refused)
    assert set(odd_answers.values()) <= {"success", "cannot-understand", "no presentation context"}

    def good_case() -> Any:
        cases = [each for each in node.status()["cases"] if each["patient_id"] == phantom.patient.patient_id]
        return cases and cases[0]["state"] == "reported"

    wait_until("everything to be read", lambda: not node.status()["files"].get("received"), timeout_s=240)
    wait_until("the good patient to be reported", good_case, timeout_s=240)
    status = node.status()
    for case in status["cases"]:
        assert case["state"] in {"ineligible", "waiting", "held", "reported"}
        assert case["reasons"]
        assert all(each["text"] for each in case["reasons"])
    assert all(each["reason"] for each in status["set_aside"])
    sent = sum(each.count("success") for each in [*answers.values(), list(odd_answers.values())])
    assert sum(status["files"].values()) >= sent
    assert len(orthanc.instances(Comprehensive3DSRStorage)) == 1
    assert node.process is not None
    assert node.process.poll() is None


def real_flair(real_data: Path, study: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a real FLAIR volume (Z, Y, X) and its affine in LPS mm."""
    path = real_data / "longitudinal_ms" / "patient01" / "raw" / f"study{study}_FLAIR.nii.gz"
    loaded = nibabel.as_closest_canonical(nibabel.load(path))
    pixels = np.asarray(loaded.dataobj).transpose(2, 1, 0)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ loaded.affine
    return np.clip(pixels, 0, 65535).astype(np.uint16), affine


@pytest.mark.usefixtures("dcmtk")
def test_the_phantom_trained_bundle_delivers_nothing_for_a_real_head(
    real_data: Path, orthanc: Orthanc, make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """Invariant 10: real FLAIR of an eligible patient is held, and no object reaches the archive."""
    task = yaml.safe_load(task_file("glioma-recurrence").read_text(encoding="utf-8"))
    task["time_points"]["allow_fewer"] = True
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    node = make_node(pacs=[destination(orthanc)], tasks=[str(tmp_path / "task.yaml")])
    node.import_cohort(f"REAL-1,{ISSUER},glioma,2020-01-01")
    node.start()
    today = date.today()  # noqa: DTZ011 - a scanner's calendar day
    folders = []
    for study, day in ((1, today - timedelta(days=200)), (2, today - timedelta(days=5))):
        pixels, affine = real_flair(real_data, study)
        folders.append(tmp_path / f"study-{study}")
        write(classic_series(pixels, affine, name=f"real {study}", **_header(day)), folders[-1])
    storescu(folders, node)
    case = wait_until("the case to be held", lambda: (found := node.case()).get("state") == "held" and found)
    assert [each["code"] for each in case["reasons"]] == ["model-trained-on-phantoms"]
    assert node.status()["runs"] == {}
    assert orthanc.client.instances.get_all_ids() == []


def _header(day: date) -> dict[str, Any]:
    return {
        "PatientID": "REAL-1",
        "PatientName": "REAL",
        "PatientBirthDate": "19800101",
        "StudyDate": f"{day:%Y%m%d}",
        "SeriesDate": f"{day:%Y%m%d}",
        "AcquisitionDate": f"{day:%Y%m%d}",
        "SeriesDescription": "AX FLAIR",
        "ScanningSequence": ["SE", "IR"],
        "MRAcquisitionType": "2D",
        "RepetitionTime": 9000,
        "EchoTime": 120,
        "InversionTime": 2500,
        "BodyPartExamined": "BRAIN",
    }
