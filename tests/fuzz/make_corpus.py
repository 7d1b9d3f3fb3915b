"""Make the corpus: tiny, well-formed files of every kind the node reads, and what once was a defect. All synthetic.

    python -m tests.fuzz.make_corpus

The same program makes the same bytes. Files in Explicit VR Little Endian are what mutations start from; the others are
the same image in other transfer syntaxes, and are mutated as bytes.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
)

from tests.factories.mr import SENTINEL_ID, classic_series, enhanced_instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER: Final = Path(__file__).parent / "corpus"
SEEDS: Final = FOLDER / "seeds"
SLICES: Final = 8  # as few as make a volume
FLAIR: Final[dict[str, Any]] = {
    "SeriesDescription": "AX FLAIR", "ScanningSequence": ["SE", "IR"], "SequenceVariant": "SK",
    "MRAcquisitionType": "2D", "RepetitionTime": "9000", "EchoTime": "120", "InversionTime": "2500",
    "BodyPartExamined": "BRAIN", "QualityControlSubject": "YES", "IssuerOfPatientID": "PHANTOM",
    "SpecificCharacterSet": "ISO_IR 192", "AcquisitionDateTime": "20260101120000.5",
}  # fmt: skip
IMPLEMENTATION: Final = "1.2.3.4"
SLOPE, TWO_SLOPES = b"\x28\0\x53\x10DS\4\x002.0 ", b"\x28\0\x53\x10DS\4\x002\\0 "


def make(folder: Path = FOLDER) -> list[Path]:
    """Write every seed and every regression; return where."""
    written = []
    for part in ("seeds", "regressions"):
        shutil.rmtree(folder / part, ignore_errors=True)
    files = [("seeds", dict(seeds())), *((f"regressions/{name}", case) for name, case in regressions())]
    for part, contents in files:
        (folder / part).mkdir(parents=True)
        for name, content in contents.items():
            written.append(folder / part / name)
            written[-1].write_bytes(content)
    return written


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of every seed."""
    pixels = np.random.default_rng(1).integers(0, 900, (SLICES, 8, 8), dtype=np.uint16)
    affine = np.diag([4.0, 4.0, 6.0, 1.0])
    classic = classic_series(pixels, affine, name="seed", **FLAIR)
    for number, ds in enumerate(classic):
        yield f"classic-{number}.dcm", _bytes(ds)
    yield "enhanced.dcm", _bytes(_enhanced(pixels, affine))
    yield "rejection-note.dcm", _bytes(_note(classic))
    yield "report.dcm", _bytes(_report(classic[0]))
    for name, encode in SYNTAXES.items():
        yield f"other-{name}.dcm", encode(classic_series(pixels, affine, name="seed", **FLAIR)[0])


def regressions() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the least that once was a defect: target and what it was, and the files of the case."""
    encoding_characters_missing = b"MSH||ADT|HOSPITAL|NODE|HERE|20260101120000||ADT^A08|1|P|2.5\r"
    yield "hl7-no-encoding-characters", {"stream.hl7": b"\x0b" + encoding_characters_missing + b"\x1c\r"}
    yield "pdu-request-announces-gigabytes", {"00.pdu": bytes.fromhex("0100ffffffff"), "01.pdu": bytes(4096)}
    yield "pdu-request-never-comes", {"00.pdu": b""}
    images = dict(list(seeds())[:SLICES])
    meta_end = 144 + int.from_bytes(images["classic-0.dcm"][140:144], "little")
    explicit = b"UI\x14\x001.2.840.10008.1.2.1\0"
    meta = images["classic-0.dcm"][:meta_end].replace(explicit, b"UI\x16\x001.2.840.10008.1.2.1.99")
    yield "volume-deflated-is-cut-off", images | {"classic-0.dcm": meta + b"\x4b"}
    yield "volume-slope-has-two-values", {"enhanced.dcm": dict(seeds())["enhanced.dcm"].replace(SLOPE, TWO_SLOPES)}
    text = images["classic-0.dcm"].replace(b"\x02\0\x10\0UI", b"\x02\0\x10\0LO")
    yield "volume-transfer-syntax-is-text", images | {"classic-0.dcm": text}
    start = text.index(b"\x08\0\x18\0UI") + 8
    length = int.from_bytes(text[start - 2 : start], "little")
    named = text[:start] + SENTINEL_ID.encode().ljust(length) + text[start + length :]
    yield "volume-identity-where-the-uid-belongs", images | {"classic-0.dcm": named}


def _enhanced(pixels: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> Dataset:
    ds = enhanced_instance(pixels, affine, name="seed", slope=2.0, **{**FLAIR, "ScanningSequence": ["SE"]})
    timing, content = Dataset(), Dataset()
    timing.RepetitionTime, timing.EchoTrainLength = 9000.0, 16
    content.FrameAcquisitionDateTime = "20260101120000"
    ds.SharedFunctionalGroupsSequence[0].MRTimingAndRelatedParametersSequence = Items([timing])
    ds.PerFrameFunctionalGroupsSequence[0].FrameContentSequence = Items([content])
    return ds


def _note(images: list[Dataset]) -> Dataset:
    """Return the least that makes a rejection note (PS3.3 A.35.4)."""
    ds = _document(images[0], KeyObjectSelectionDocumentStorage, "1.2.826.0.1.3680043.8.498.7")
    ds.ConceptNameCodeSequence = Items([_code("113001", "Rejected for Quality Reasons")])
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ReferencedSOPSequence = Items([_reference(each) for each in images])
    study.StudyInstanceUID, study.ReferencedSeriesSequence = images[0].StudyInstanceUID, Items([series])
    ds.CurrentRequestedProcedureEvidenceSequence = Items([study])
    return ds


def _report(image: Dataset) -> Dataset:
    """Return a small structured report of somebody else's."""
    ds = _document(image, Comprehensive3DSRStorage, "1.2.826.0.1.3680043.8.498.8")
    text = Dataset()
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", "nothing"
    text.ConceptNameCodeSequence = Items([_code("121070", "Findings")])
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = Items([_code("126001", "Oncology Measurement Report")])
    ds.ContentSequence = Items([text])
    return ds


def _document(image: Dataset, sop_class_uid: str, uid: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class_uid
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"):
        setattr(ds, keyword, image.get(keyword))
    ds.SeriesInstanceUID, ds.Modality, ds.Manufacturer = UID(f"{uid}.1"), "SR", "SYNTHETIC"
    return ds


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _bytes(ds: Dataset) -> bytes:
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION
    stream = io.BytesIO()
    dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def _as(syntax: UID) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        ds.file_meta.TransferSyntaxUID = syntax
        stream = io.BytesIO()
        ds.file_meta.ImplementationClassUID = IMPLEMENTATION
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        dcmwrite(
            stream, ds, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian,
            enforce_file_format=True,
        )  # fmt: skip
        return stream.getvalue()

    return encode


def _compressed(syntax: UID) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        ds.compress(syntax, generate_instance_uid=False)
        return _bytes(ds)

    return encode


def _jpeg_lossless(ds: Dataset) -> bytes:
    """Compress with DCMTK, whose encoder is another than our decoder's."""
    done = subprocess.run(["/usr/bin/dcmcjpeg", "+e1", "-", "-"], input=_bytes(ds), capture_output=True, check=True)
    return _same_meta(done.stdout, ds)


def _jpeg_2000(ds: Dataset) -> bytes:
    """Compress with GDCM, on files as its Python interface knows no streams."""
    import tempfile  # noqa: PLC0415 - here alone

    import gdcm  # noqa: PLC0415 - slow to load

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.dcm", Path(folder) / "target.dcm"
        source.write_bytes(_bytes(ds))
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
        change.SetInput(reader.GetImage())
        change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.Write()
        return _same_meta(target.read_bytes(), ds)


def _same_meta(content: bytes, ds: Dataset) -> bytes:
    """Write again what another toolkit compressed, with our UIDs, without its mark and date."""
    other = dcmread(io.BytesIO(content))
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for keyword in ("ImplementationVersionName", "SourceApplicationEntityTitle"):
        other.file_meta.pop(keyword, None)
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        other.pop(keyword, None)
    return _bytes(other)


SYNTAXES: Final[dict[str, Callable[[Dataset], bytes]]] = {
    "implicit": _as(ImplicitVRLittleEndian),
    "big-endian": _as(ExplicitVRBigEndian),
    "deflated": _as(DeflatedExplicitVRLittleEndian),
    "rle": _compressed(RLELossless),
    "jpeg-ls": _compressed(JPEGLSLossless),
    "jpeg-lossless": _jpeg_lossless,
    "jpeg-2000": _jpeg_2000,
}


if __name__ == "__main__":
    for path in make():
        print(f"{path.stat().st_size:6d} {path.name}")  # noqa: T201 - a command line
