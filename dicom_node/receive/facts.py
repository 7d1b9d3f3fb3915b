"""Read one file into `InstanceFacts`: claims checked, pixels decoded once, content digested.

This is the only place where untrusted pixels are decoded. It is meant for a sacrificial child process: whatever
pydicom or a codec throws becomes `UnreadableInstance` with a reason free of identity, and what kills the
interpreter kills a child. What is readable but no input (a report, a segmentation, a CT) raises `NotAnInput`, so
that the caller can store or route it without asking why it is broken.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, EnhancedMRImageStorage, MRImageStorage

from dicom_node.errors import PeerError
from dicom_node.receive.attributes import CONTEXT, functional_groups, read_acquired, read_attributes
from dicom_node.timeline.model import InstanceFacts, PatientFacts, Value, canonical_json
from inference.geometry import GeometryError
from inference.volume import planes_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset, FileDataset
    from pydicom.tag import BaseTag

    from inference.geometry import Plane

INPUT_SOP_CLASSES = frozenset({MRImageStorage, EnhancedMRImageStorage})
MAX_DECODED_BYTES = 4 << 30  # a 4D enhanced MR of 10,000 frames of 512 x 512 is 5.2 GB; clinical ones stay below 1 GB
MAX_COMPRESSION_RATIO = 20_000  # an all-zero 512 x 512 frame in JPEG 2000 reaches about 5,000
MAX_INFLATED_BYTES = 1 << 30  # of a deflated data set; a megabyte of file can hold a gigabyte of zeros
CHUNK_BYTES = 1 << 18
FILE_META_GROUP = 0x0002  # PS3.10 7.1
LONGEST_LO = 64  # characters of a value of VR LO
REQUIRED = ("PatientID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns")
KEY_OBJECT_SELECTION = "key-object-selection"
KINDS = {  # first parts of SOP class UIDs, PS3.4 B.5
    "1.2.840.10008.5.1.4.1.1.88.59": KEY_OBJECT_SELECTION,
    "1.2.840.10008.5.1.4.1.1.88.": "structured-report",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "parametric-map",
    "1.2.840.10008.5.1.4.1.1.7.": "secondary-capture",
    "1.2.840.10008.5.1.4.1.1.4.2": "mr-spectroscopy",
    "1.2.840.10008.5.1.4.1.1.11.": "presentation-state",
    "1.2.840.10008.1.3.10": "media-directory",
}


class UnreadableInstance(PeerError):  # noqa: N818 - the name says what it is
    """A file that claims to be an input and cannot be used as one; `code` is stable, the message says more."""

    def __init__(self, code: str, found: str = "") -> None:
        super().__init__(f"{code}: {found}" if found else code)
        self.code = code


class NotAnInput(PeerError):  # noqa: N818 - the name says what it is
    """A DICOM object of another kind (`kind`, for example "structured-report"); nothing is wrong with it."""

    def __init__(self, kind: str, sop_class_uid: str = "") -> None:
        super().__init__(f"not an input: {kind}")
        self.kind = kind
        self.sop_class_uid = sop_class_uid


def read_facts(path: Path, *, default_issuer: str) -> InstanceFacts:
    """Read and decode one file.

    Args:
        path: a Part 10 file.
        default_issuer: the issuer of the PatientID where the object names none.

    Raises:
        NotAnInput: if it is DICOM, but neither MR nor Enhanced MR.
        UnreadableInstance: if it cannot be parsed, lacks what an input needs, claims what it does not hold, or
            cannot be decoded.
    """
    with blaming_the_file():
        return _facts(_open(path), default_issuer)


@contextmanager
def blaming_the_file() -> Iterator[None]:
    """Turn whatever parsing raises into `UnreadableInstance`, with a reason free of identity.

    Raises:
        UnreadableInstance: in place of everything that is not a `PeerError`.
    """
    try:
        yield
    except PeerError:
        raise
    except MemoryError as error:
        raise UnreadableInstance("too-large", "out of memory") from error
    except Exception as error:  # the edge: pydicom and codecs raise anything
        raise UnreadableInstance("malformed", type(error).__name__) from error


def content_digest(ds: Dataset, attributes: dict[str, Value]) -> str:
    """Digest what an instance says: stored pixels, geometry, rescale, and the attributes that decide role and time.

    Equal for the scanner's copy and the PACS's copy, which may differ in transfer syntax, file meta, value padding
    and in attributes that a PACS coerces (patient and study level).

    Raises:
        UnreadableInstance: if the pixels cannot be decoded.
    """
    digest = hashlib.sha256()
    for frame in _stored_frames(ds):
        digest.update(struct.pack("<3I", *frame.shape, *(1,) * (3 - frame.ndim)))
        digest.update(frame.tobytes())
    day, clock, source = read_acquired(ds)
    header = {
        "planes": [[*each.position_mm, *each.orientation, *each.spacing_mm] for each in _planes(ds)],
        "rescale": _rescale(ds),
        "attributes": {key: value for key, value in attributes.items() if key not in (*CONTEXT, *_ENCODING)},
        "acquired": [day and day.isoformat(), clock and clock.isoformat(), source],
    }
    digest.update(canonical_json(header).encode())
    return f"sha256:{digest.hexdigest()}"


_ENCODING = ("PhotometricInterpretation", "SamplesPerPixel")  # follow the transfer syntax, as pixels show anyway


def _open(path: Path) -> FileDataset:
    try:
        _refuse_bomb(path)
        ds = pydicom.dcmread(path)
    except InvalidDicomError:
        raise UnreadableInstance("not-dicom", "no DICM prefix") from None
    announced = str(ds.file_meta.get("MediaStorageSOPClassUID") or "")  # by the C-STORE command, where it came by one
    sop_class = UID(str(ds.get("SOPClassUID") or announced))
    if announced and sop_class != announced:
        raise UnreadableInstance("another-class", "the data set is of another SOP Class than was announced")
    if sop_class and sop_class not in INPUT_SOP_CLASSES:
        kinds = (kind for prefix, kind in KINDS.items() if f"{sop_class}.".startswith(prefix))
        raise NotAnInput(next(kinds, "other-sop-class"), str(sop_class))
    if not sop_class:
        raise UnreadableInstance("missing", "SOPClassUID")
    return ds


def _refuse_bomb(path: Path) -> None:
    """Inflate a deflated data set piece by piece and count, before pydicom inflates it whole.

    Raises:
        UnreadableInstance: if it is too large inflated.
    """
    with path.open("rb") as file:
        read_preamble(file, force=False)
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta)
        if str(meta.get("TransferSyntaxUID")) != DeflatedExplicitVRLittleEndian:
            return
        inflate, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while not inflate.eof and (chunk := inflate.unconsumed_tail or file.read(CHUNK_BYTES)):
            count += len(inflate.decompress(chunk, CHUNK_BYTES))
            if count > MAX_INFLATED_BYTES:
                raise UnreadableInstance("too-large", f"more than {MAX_INFLATED_BYTES} bytes inflated")


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != FILE_META_GROUP


def _facts(ds: FileDataset, default_issuer: str) -> InstanceFacts:
    missing = [keyword for keyword in REQUIRED if not str(ds.get(keyword) or "").strip(" \0")]
    if missing:
        raise UnreadableInstance("missing", ", ".join(missing))
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not UID(ds[keyword].value).is_valid:
            raise UnreadableInstance("invalid-uid", keyword)
    attributes = read_attributes(ds)
    day, clock, source = read_acquired(ds)
    number = ds.get("InstanceNumber")
    return InstanceFacts(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        content_digest=content_digest(ds, attributes),
        patient=read_patient(ds, default_issuer),
        attributes=attributes,
        acquired_on=day,
        acquired_time=clock,
        acquired_from=source,
        frame_of_reference_uid=str(ds.get("FrameOfReferenceUID") or ""),
        instance_number=int(number) if number not in (None, "") else None,
        planes=_planes(ds),
    )


def read_patient(ds: Dataset, default_issuer: str) -> PatientFacts:
    """Name the patient; only leading and trailing spaces of the ID mean nothing (PS3.4 C.2.2.2.1).

    Raises:
        UnreadableInstance: if the ID or its issuer is no legal value.
    """
    issuer = str(ds.get("IssuerOfPatientID") or "").strip(" \0") or default_issuer
    patient_id = str(ds.PatientID).strip(" \0")
    for keyword, text in (("PatientID", patient_id), ("IssuerOfPatientID", issuer)):
        if len(text) > LONGEST_LO or not text.isprintable():  # LO, PS3.5 6.2; also what no database could hold
            raise UnreadableInstance("illegal-value", keyword)
    return PatientFacts(
        issuer=issuer,
        patient_id=patient_id,
        name=str(ds.get("PatientName") or "").strip(" \0"),
        birth_date=str(ds.get("PatientBirthDate") or "").strip(" \0"),
        sex=str(ds.get("PatientSex") or "").strip(" \0"),
        phantom=str(ds.get("QualityControlSubject") or "").strip(" \0") == "YES",
    )


def _stored_frames(ds: Dataset) -> Iterator[np.ndarray[Any, np.dtype[np.int32]]]:
    """Yield each frame's stored values as little-endian int32, without the bits beyond Bits Stored.

    Overlay bits that old scanners keep in the unused high bits do not survive compression, so they cannot count.
    The sign is extended here, since pydicom 3.0 cannot for signed JPEG-LS that it decodes frame by frame.
    """
    _check_claims(ds)
    bits, signed = int(ds.get("BitsStored") or ds.BitsAllocated), ds.get("PixelRepresentation") == 1
    try:
        frames = iter_pixels(
            ds,
            raw=True,
            apply_jls_sign_correction=False,
            apply_j2k_sign_correction=False,
            correct_unused_bits=False,
        )
        for frame in frames:
            values = frame.astype("<i8") & ((1 << bits) - 1)
            if signed:
                values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
            yield np.ascontiguousarray(values.astype("<i4"))
    except MemoryError:
        raise
    except Exception as error:  # the edge: each codec has its own errors
        syntax = ds.file_meta.TransferSyntaxUID if hasattr(ds, "file_meta") else "unknown transfer syntax"
        raise UnreadableInstance("undecodable", f"{UID(syntax).name} ({type(error).__name__})") from error


def _check_claims(ds: Dataset) -> None:
    """Compare Rows x Columns x Frames with what is there, before anything is decoded.

    Raises:
        UnreadableInstance: if there are no pixels, or the claim cannot be true.
    """
    if "PixelData" not in ds or not ds.PixelData:
        raise UnreadableInstance("no-pixel-data")
    frames = int(ds.get("NumberOfFrames") or 1)
    samples, bits = int(ds.get("SamplesPerPixel") or 1), int(ds.get("BitsAllocated") or 0)
    claimed = int(ds.Rows) * int(ds.Columns) * frames * samples * bits // 8
    held = len(ds.PixelData)
    if min(frames, samples, bits) < 1 or bits > 32:
        raise UnreadableInstance("bad-pixel-claim", f"{frames} frames of {samples} samples of {bits} bits")
    compressed = UID(ds.file_meta.TransferSyntaxUID).is_compressed and ds["PixelData"].is_undefined_length
    limit = held * MAX_COMPRESSION_RATIO if compressed else held
    if claimed > min(limit, MAX_DECODED_BYTES):
        raise UnreadableInstance("bad-pixel-claim", f"claims {claimed} bytes of pixels in {held} bytes")


def _planes(ds: Dataset) -> tuple[Plane, ...]:
    """Return one plane per frame, none where the object does not say where its planes lie (and is no volume)."""
    try:
        return planes_of(ds)
    except GeometryError:
        return ()


def _rescale(ds: Dataset) -> list[list[float]]:
    """Collect the rescale slopes and intercepts per frame, in frame order (one pair for a classic object)."""
    items = [item for group in functional_groups(ds) for item in group.get("PixelValueTransformationSequence") or ()]
    pairs = [
        [float(item.RescaleSlope), float(item.get("RescaleIntercept") or 0)]
        for item in (ds, *items)
        if item.get("RescaleSlope") is not None
    ]
    return pairs or [[1.0, 0.0]]
