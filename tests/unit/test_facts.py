"""Facts of a file: equal for every encoding of one content, or a reason why there are none."""

from __future__ import annotations

import os
import tarfile
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from dicom_node.errors import PeerError
from dicom_node.receive.facts import NotAnInput, UnreadableInstance, read_facts
from dicom_node.timeline.model import InstanceFacts
from dicom_node.timeline.roles import classify
from tests.factories.facts import SELECTION, uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REAL_DATA = Path(os.environ.get("DICOM_NODE_REAL_DATA", "does-not-exist"))
needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="DICOM_NODE_REAL_DATA names no folder")
IDENTITY = ("SENTINEL", "4711", "20100203")


def an_mr_image(**changes: object) -> Dataset:
    """Return a FLAIR slice of 16 x 12 pixels, 12 bits stored, signed."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, uid("instance")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid("study"), uid("series"), uid("frame")
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = " 4711 ", "SENTINEL^X", "20100203", "F"
    ds.Modality, ds.ImageType, ds.SeriesDescription = "MR", ["ORIGINAL", "PRIMARY", "M"], "FLAIR"
    ds.EchoTime, ds.RepetitionTime, ds.InversionTime, ds.ScanningSequence = "95.0", "9000", "2500", ["SE", "IR"]
    ds.StudyDate, ds.AcquisitionDate, ds.AcquisitionTime = "20250102", "20250103", "093001.5"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-8.0, -6.0, 3.5], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.InstanceNumber = [1.0, 1.5], "5.0", 7
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 16, 12, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 1
    ds.PixelData = (np.arange(192, dtype="<i2") * 20 - 1900).tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def _write(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def _facts(ds: Dataset, tmp_path: Path) -> InstanceFacts:
    return read_facts(_write(ds, tmp_path / "instance.dcm"), default_issuer="HOSPITAL")


def _refusal(ds: Dataset, tmp_path: Path) -> str:
    with pytest.raises(UnreadableInstance) as caught:
        _facts(ds, tmp_path)
    assert not any(word in str(caught.value) for word in IDENTITY)
    return str(caught.value)


def test_the_facts_of_a_classic_image(tmp_path: Path) -> None:
    """Who, when, where, and what decides the role."""
    facts = _facts(an_mr_image(), tmp_path)
    assert (facts.patient.issuer, facts.patient.patient_id, facts.patient.phantom) == ("HOSPITAL", "4711", False)
    assert (facts.acquired_on, facts.acquired_time) == (date(2025, 1, 3), time(9, 30, 1, 500000))
    assert facts.acquired_from == "AcquisitionDate"
    assert facts.attributes["EchoTime"] == 95.0
    assert facts.attributes["ScanningSequence"] == ("SE", "IR")
    assert facts.planes[0].position_mm == (-8.0, -6.0, 3.5)
    assert facts.planes[0].spacing_mm == (1.0, 1.5)
    assert classify(facts.attributes, SELECTION).name == "FLAIR"
    assert InstanceFacts.from_json(facts.to_json()) == facts


def test_the_issuer_and_the_phantom_mark_come_from_the_object(tmp_path: Path) -> None:
    """The default serves only where the object says nothing."""
    facts = _facts(an_mr_image(IssuerOfPatientID="CLINIC", QualityControlSubject="YES"), tmp_path)
    assert (facts.patient.issuer, facts.patient.phantom) == ("CLINIC", True)


def _implicit(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _big_endian(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()


def _rle(ds: Dataset) -> None:
    ds.compress(RLELossless, generate_instance_uid=False)


def _jpeg_ls(ds: Dataset) -> None:
    ds.compress(JPEGLSLossless, generate_instance_uid=False)


def _coerced(ds: Dataset) -> None:
    ds.PatientName, ds.StudyDescription, ds.AccessionNumber = "SENTINEL^COERCED", "Brain", "A1"
    ds.BodyPartExamined = "BRAIN"
    ds.file_meta.ImplementationVersionName = "SOME_PACS"


def _rewritten_numbers(ds: Dataset) -> None:
    ds.EchoTime, ds.RepetitionTime, ds.SliceThickness = "95", "9000.000", "5"


def _overlay_in_high_bits(ds: Dataset) -> None:
    pixels = np.frombuffer(ds.PixelData, "<u2").copy()
    ds.PixelData = ((pixels & 0x0FFF) | 0x5000).astype("<u2").tobytes()


@pytest.mark.filterwarnings("ignore:.*(big endian|Big Endian).*:UserWarning")
@pytest.mark.parametrize(
    "copy", [_implicit, _big_endian, _rle, _jpeg_ls, _coerced, _rewritten_numbers, _overlay_in_high_bits]
)
def test_the_pacs_copy_has_the_scanners_digest(tmp_path: Path, copy: Callable[[Dataset], None]) -> None:
    """Transfer syntax, file meta, coerced attributes and spelling of numbers are not content."""
    scanner, pacs = an_mr_image(), an_mr_image()
    copy(pacs)
    assert _facts(pacs, tmp_path).content_digest == _facts(scanner, tmp_path).content_digest


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": bytes(384)},
        {"ImagePositionPatient": [-8.0, -6.0, 3.6]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        {"PixelSpacing": [1.0, 1.6]},
        {"RescaleSlope": "2", "RescaleIntercept": "0"},
        {"EchoTime": "96"},
        {"AcquisitionDate": "20250104"},
        {"SeriesDescription": "T2"},
        {"ContrastBolusAgent": "Gadovist"},
        {"ImageType": ["DERIVED", "PRIMARY", "M"]},
        {"Rows": 12, "Columns": 16},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_content_has_another_digest(tmp_path: Path, changes: dict[str, object]) -> None:
    """Pixels, geometry, rescale, and what decides role and time."""
    assert _facts(an_mr_image(**changes), tmp_path).content_digest != _facts(an_mr_image(), tmp_path).content_digest


def test_a_rescale_of_one_and_none_is_the_same(tmp_path: Path) -> None:
    """The identity written out is not another content."""
    written = an_mr_image(RescaleSlope="1", RescaleIntercept="0")
    assert _facts(written, tmp_path).content_digest == _facts(an_mr_image(), tmp_path).content_digest


@pytest.mark.parametrize(
    ("changes", "day", "clock", "source"),
    [
        ({"AcquisitionDateTime": "20250105101112+0200"}, (2025, 1, 5), time(10, 11, 12), "AcquisitionDateTime"),
        ({"AcquisitionDateTime": "20250105"}, (2025, 1, 5), None, "AcquisitionDateTime"),
        ({"AcquisitionTime": None}, (2025, 1, 3), None, "AcquisitionDate"),
        ({"AcquisitionDate": None, "SeriesDate": "20250106"}, (2025, 1, 6), None, "SeriesDate"),
        ({"AcquisitionDate": None}, (2025, 1, 2), None, "StudyDate"),
        ({"AcquisitionDate": ""}, (2025, 1, 2), None, "StudyDate"),
        ({"AcquisitionDate": None, "StudyDate": None}, None, None, ""),
    ],
)  # fmt: skip
def test_the_acquisition_time_and_where_it_comes_from(tmp_path: Path, changes, day, clock, source) -> None:
    """Acquisition date-time, else acquisition, series, study date."""
    facts = _facts(an_mr_image(**changes), tmp_path)
    assert (facts.acquired_on, facts.acquired_time) == (day and date(*day), clock)
    assert facts.acquired_from == source


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientID": None}, "missing: PatientID"),
        ({"PatientID": "  "}, "missing: PatientID"),
        ({"StudyInstanceUID": None, "Rows": None}, "missing: StudyInstanceUID, Rows"),
        ({"PixelData": None}, "no-pixel-data"),
        ({"PixelData": bytes(100)}, "bad-pixel-claim: claims 384 bytes of pixels in 100 bytes"),
        ({"NumberOfFrames": "4000000"}, "bad-pixel-claim: claims 1536000000 bytes of pixels in 384 bytes"),
        ({"BitsAllocated": 0}, "bad-pixel-claim: 1 frames of 1 samples of 0 bits"),
    ],
)
def test_what_cannot_be_an_input_is_refused_with_a_reason(tmp_path: Path, changes, reason) -> None:
    """The reason names attributes and sizes, never values of the patient."""
    assert _refusal(an_mr_image(**changes), tmp_path) == reason


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
def test_an_invalid_uid_is_refused(tmp_path: Path) -> None:
    """It would become a file name, a key and an attribute of a report."""
    ds = an_mr_image()
    ds.SeriesInstanceUID = "1.2.x"
    assert _refusal(ds, tmp_path) == "invalid-uid: SeriesInstanceUID"


def test_a_broken_stream_is_refused_with_its_transfer_syntax(tmp_path: Path) -> None:
    """The admin learns which encoding failed."""
    ds = an_mr_image()
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    ds.PixelData = ds.PixelData[:16] + bytes(len(ds.PixelData) - 16)
    assert _refusal(ds, tmp_path).startswith("undecodable: JPEG-LS Lossless Image Compression")


def test_a_report_is_no_input_and_not_broken(tmp_path: Path) -> None:
    """It is routed elsewhere by its kind."""
    ds = an_mr_image(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.59")
    with pytest.raises(NotAnInput) as caught:
        _facts(ds, tmp_path)
    assert caught.value.kind == "key-object-selection"


def test_a_report_announced_as_an_image_is_refused(tmp_path: Path) -> None:
    """What a peer may send is settled by class: nothing comes in under the name of another."""
    ds = an_mr_image(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.59")
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.preamble = bytes(128)
    ds.save_as(tmp_path / "announced.dcm")
    with pytest.raises(UnreadableInstance, match="another-class"):
        read_facts(tmp_path / "announced.dcm", default_issuer="HOSPITAL")


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 999])
def test_what_is_no_dicom_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, cut, or noise."""
    path = tmp_path / "noise.dcm"
    path.write_bytes(content)
    with pytest.raises(UnreadableInstance):
        read_facts(path, default_issuer="X")


def test_a_file_cut_anywhere_gives_facts_or_a_reason(tmp_path: Path) -> None:
    """No cut raises anything else (a cut UID may look like one of another kind)."""
    whole = _write(an_mr_image(), tmp_path / "whole.dcm").read_bytes()
    for length in range(0, len(whole), 37):
        path = tmp_path / "cut.dcm"
        path.write_bytes(whole[:length])
        with pytest.raises(PeerError):
            read_facts(path, default_issuer="X")


def test_a_sequence_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    """A recursion that pydicom cannot finish is the file's fault."""
    whole = _write(an_mr_image(), tmp_path / "whole.dcm").read_bytes()
    level = b"\x40\x00\x30\xa7SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path = tmp_path / "nested.dcm"
    path.write_bytes(whole[: whole.index(b"\xe0\x7f\x10\x00")] + level * 5000)
    with pytest.raises(UnreadableInstance, match="malformed: RecursionError"):
        read_facts(path, default_issuer="X")


@pytest.mark.parametrize(
    ("keyword", "value", "planes"), [("SliceThickness", b"inf ", 1), ("PixelSpacing", b"nan\\1 ", 0)]
)
def test_what_is_no_number_is_no_number(tmp_path: Path, keyword: str, value: bytes, planes: int) -> None:
    """Facts can be written down: JSON knows neither infinity nor NaN."""
    ds = an_mr_image()
    ds[keyword]._value = value.decode()  # as no library writes it
    path = _write(ds, tmp_path / "odd.dcm")
    facts = read_facts(path, default_issuer="X")
    assert len(facts.planes) == planes
    assert all(each.thickness_mm is None for each in facts.planes)
    assert InstanceFacts.from_json(facts.to_json()) == facts


def an_enhanced_image() -> Dataset:
    """Return an enhanced MR object of three FLAIR frames, geometry and timing in functional groups."""
    ds = an_mr_image(
        SOPClassUID=EnhancedMRImageStorage,
        NumberOfFrames=3,
        PixelData=np.arange(576, dtype="<i2").tobytes(),
        EchoPulseSequence="SPIN",
        EchoPlanarPulseSequence="NO",
    )
    for keyword in ("EchoTime", "RepetitionTime", "InversionTime", "ScanningSequence", "AcquisitionDate"):
        delattr(ds, keyword)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    ds.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[_item(PixelSpacing=[1.0, 1.5], SliceThickness=5.0)],
            MREchoSequence=[_item(EffectiveEchoTime=95.0)],
            MRTimingAndRelatedParametersSequence=[_item(RepetitionTime=9000.0, FlipAngle=150.0)],
            MRModifierSequence=[_item(InversionRecovery="YES", InversionTimes=[2500.0])],
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[0.0, 0.0, 5.0 * number])],
            FrameContentSequence=[_item(FrameAcquisitionDateTime=f"2025010309300{number}")],
        )
        for number in range(3)
    ]
    return ds


def _item(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def test_an_enhanced_object_reads_like_a_classic_one(tmp_path: Path) -> None:
    """Functional groups become classic keywords, planes and an acquisition time."""
    facts = _facts(an_enhanced_image(), tmp_path)
    assert [plane.position_mm[2] for plane in facts.planes] == [0.0, 5.0, 10.0]
    assert (facts.acquired_on, facts.acquired_time) == (date(2025, 1, 3), time(9, 30))
    assert facts.acquired_from == "FrameAcquisitionDateTime"
    assert facts.attributes["ScanningSequence"] == ("SE", "IR")
    verdict = classify({**facts.attributes, "SeriesDescription": ""}, SELECTION)
    assert verdict.rule == "flair-by-physics"


@pytest.mark.parametrize("changes", [{"InversionTimes": [2600.0]}, {"RepetitionTime": 8000.0}])
def test_the_functional_groups_of_an_enhanced_object_are_content(tmp_path: Path, changes: dict[str, object]) -> None:
    """A changed group is another digest."""
    ds = an_enhanced_image()
    for group in (each for sequence in ds.SharedFunctionalGroupsSequence[0] for each in sequence.value):
        for keyword, value in changes.items():
            if keyword in group:
                setattr(group, keyword, value)
    assert _facts(ds, tmp_path).content_digest != _facts(an_enhanced_image(), tmp_path).content_digest


@pytest.mark.peer
@needs_real_data
@pytest.mark.filterwarnings("ignore")
def test_every_encoding_of_a_real_enhanced_object_is_one_content(tmp_path: Path) -> None:
    """Native, big endian, RLE, JPEG-LS and JPEG 2000 copies of one acquisition."""
    digests = set()
    for suffix in ("", "_big_endian", "_RLE", "_jpeg_ls_lossless", "_jpeg_2k_lossless"):
        ds = pydicom.dcmread(REAL_DATA / "dicom_odd" / f"pydicom-data__emri_small{suffix}.dcm")
        ds.PatientID = "4711"
        digests.add(_facts(ds, tmp_path).content_digest)
    assert len(digests) == 1


def _odd_files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.dcm"))


@pytest.mark.peer
@needs_real_data
@pytest.mark.filterwarnings("ignore")
def test_every_odd_file_gives_facts_or_a_named_reason() -> None:
    """Real broken files never raise anything else."""
    outcomes = {}
    for path in _odd_files(REAL_DATA / "dicom_odd"):
        try:
            outcomes[path.name] = read_facts(path, default_issuer="X").content_digest[:7]
        except PeerError as error:
            outcomes[path.name] = str(error)
    assert len(outcomes) > 30
    assert outcomes["fo-dicom__GH1146.dcm"] == "no-pixel-data"
    assert outcomes["fo-dicom__test_SR.dcm"] == "not an input: structured-report"
    assert outcomes["fo-dicom__GH064.dcm"] == "sha256:"
    assert outcomes["fo-dicom__CR-MONO1-10-chest.dcm"].startswith("not-dicom")


EXPECTED = {  # as in tests/selection/expected.yaml, here with the pixels decoded
    "siemens_skyra_T1_pediatric_3y": "T1",
    "canon_galan_DTI_classic_3000": "DWI",
    "canon_galan_DTI_enhanced_3000": "DWI",
    "ge_mr750_EPI_brain_20180918": "functional",
    "siemens_skyra_EPI_mosaic_phantom": "EPI",
    "siemens_vida_XA10_enhanced_phantom": "functional",
    "ge_anatomical_001": "T1",
    "hyperfine_anatomical_001": "FLAIR",
    "philips_anatomical_001": "FLAIR",
    "philips_enhanced_anatomical_001": "T1",
    "siemens_anatomical_001": "FLAIR",
    "generic_compressed_jpeg_001": "FLAIR",
    "generic_compressed_jpegls_001": "FLAIR",
    "generic_compressed_rle_001": "FLAIR",
}


def _first_file(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive, "r:xz") as tar:
        member = next(each for each in tar if each.isfile() and "DICOMDIR" not in each.name)
        tar.extract(member.replace(name="first.dcm", deep=False), folder, filter="data")
    return folder / "first.dcm"


@pytest.mark.peer
@needs_real_data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_series_is_what_its_header_says(tmp_path: Path, name: str) -> None:
    """One file of each real archive is decoded and classified."""
    (archive,) = REAL_DATA.glob(f"dicom*/{name}.tar.xz")
    facts = read_facts(_first_file(archive, tmp_path), default_issuer="X")
    assert classify(facts.attributes, SELECTION).name == EXPECTED[name]
    assert InstanceFacts.from_json(facts.to_json()) == facts
