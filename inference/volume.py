"""Read the instances of one MR series, classic or enhanced multi-frame, into one volume in LPS millimetres.

Every byte comes from a stranger: what an instance claims is checked against what it holds before anything is decoded,
and whatever is wrong ends in a `VolumeError` or `GeometryError` that names the instance and the rule, not the patient.
Pixels are decoded by pydicom and its plugins alone (GDCM, OpenJPEG, CharLS); there is no second path.
"""

from __future__ import annotations

import math
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from inference.geometry import Defect, GeometryError, Plane, stack
from inference.results import SourceSlice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

# One instance: an enhanced MR of 2,000 frames of 512 x 512 at 16 bits is 1 GiB.
MAX_DECODED_BYTES = 2 * 2**30
# RLE reaches 64:1 at most; an all-black frame may beat that in JPEG 2000, a believable head does not.
MAX_COMPRESSION_RATIO = 500
# What pydicom and its plugins raise on malformed bytes, seen with the odd files of public test suites.
_MALFORMED = (
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    KeyError,
    IndexError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class VolumeError(ValueError):
    """The instances of a series cannot be read as one volume; the message names the instance and what is wrong."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Volume:
    """One series as a volume.

    `array` has shape (Z, Y, X) and holds rescaled values; `affine` (4, 4) maps voxel indices (x, y, z) to LPS
    millimetres and is right-handed; `slices[z]` says where slice z came from.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]  # (z, y, x)
    thickness_mm: float | None
    slices: tuple[SourceSlice, ...]
    frame_of_reference_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """A plane, and where its pixels are: `index` counts the frames of its instance from 0."""

    plane: Plane
    instance: int
    index: int


def read_series(paths: Sequence[Path]) -> Volume:
    """Read all instances of one series; the order of `paths` does not matter.

    Raises:
        GeometryError: if the planes do not form one volume.
        VolumeError: if a file cannot be read or decoded, or the files are not of one series.
    """
    if not paths:
        raise VolumeError("expected the instances of a series, found no file")
    datasets = sorted((_read(path) for path in paths), key=lambda ds: _text(ds, "SOPInstanceUID"))
    series_instance_uid = _only(datasets, "SeriesInstanceUID")
    frame_of_reference_uid = _only(datasets, "FrameOfReferenceUID")
    _refuse_repeated(datasets)
    frames = [
        _Frame(plane, number, index) for number, ds in enumerate(datasets) for index, plane in enumerate(planes_of(ds))
    ]
    stacked = stack([frame.plane for frame in frames])
    for ds in datasets:
        with _readable(ds, "a description of its pixels"):
            _check_claim(ds)
    ordered = [frames[index] for index in stacked.order]
    return Volume(
        array=_fill(datasets, ordered, stacked.shape),
        affine=stacked.affine,
        spacing_mm=stacked.spacing_mm,
        thickness_mm=ordered[0].plane.thickness_mm,
        slices=tuple(_source(datasets[frame.instance], frame) for frame in ordered),
        frame_of_reference_uid=frame_of_reference_uid,
        series_instance_uid=series_instance_uid,
    )


def planes_of(ds: Dataset) -> tuple[Plane, ...]:
    """Return the image planes of an instance: one of a classic MR, one per frame of an enhanced one.

    Reads headers only, so it serves data sets read with `stop_before_pixels`.

    Raises:
        GeometryError: if the position, orientation, spacing or size of a plane is missing or unreadable, or if the
            plane is a Siemens mosaic, whose one position is not where its tiles lie.

    Source: PS3.3 C.7.6.2 (classic), C.7.6.16.2.1, C.7.6.16.2.3 and C.7.6.16.2.4 (functional groups).
    """
    try:
        return _planes(ds)
    except GeometryError:
        raise
    except _MALFORMED as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else type(error).__name__
        message = f"{_name(ds)}: image plane is missing or unreadable ({reason})"
        raise GeometryError(Defect.MISSING_POSITION, message) from error


def _planes(ds: Dataset) -> tuple[Plane, ...]:
    """Read the planes of an instance without guarding against malformed values."""
    if "MOSAIC" in (ds.get("ImageType") or ()):
        raise GeometryError(Defect.MOSAIC, f"{_name(ds)}: slices are tiled in a mosaic")
    count = int(ds.get("NumberOfFrames") or 1)
    if "PerFrameFunctionalGroupsSequence" in ds or "SharedFunctionalGroupsSequence" in ds:
        return tuple(_enhanced_plane(ds, index) for index in range(_counted(ds, count)))
    if count > 1:
        raise KeyError("PerFrameFunctionalGroupsSequence")
    return (_plane(ds, position=ds, orientation=ds, measures=ds),)


def _counted(ds: Dataset, claimed: int) -> int:
    """Return the number of frames if header and per-frame groups agree on it.

    Raises:
        GeometryError: if they do not.
    """
    described = len(ds.get("PerFrameFunctionalGroupsSequence") or ())
    if described != claimed:
        message = f"{_name(ds)}: expected {claimed} frames, found {described} described"
        raise GeometryError(Defect.MISSING_POSITION, message)
    return claimed


def _enhanced_plane(ds: Dataset, index: int) -> Plane:
    """Read the plane of one frame from its functional groups."""
    return _plane(
        ds,
        position=_group(ds, index, "PlanePositionSequence"),
        orientation=_group(ds, index, "PlaneOrientationSequence"),
        measures=_group(ds, index, "PixelMeasuresSequence"),
    )


def _plane(ds: Dataset, *, position: Dataset, orientation: Dataset, measures: Dataset) -> Plane:
    """Read one plane from the items that hold its attributes."""
    x, y, z = _numbers(position, "ImagePositionPatient", 3)
    a, b, c, d, e, f = _numbers(orientation, "ImageOrientationPatient", 6)
    between_rows_mm, between_columns_mm = _numbers(measures, "PixelSpacing", 2)
    thickness = measures.get("SliceThickness")
    thickness_mm = None if thickness in (None, "") else float(thickness)
    return Plane(
        position_mm=(x, y, z),
        orientation=(a, b, c, d, e, f),
        spacing_mm=(between_rows_mm, between_columns_mm),
        rows=_size(ds, "Rows"),
        columns=_size(ds, "Columns"),
        thickness_mm=thickness_mm if thickness_mm is not None and math.isfinite(thickness_mm) else None,
    )


def _size(ds: Dataset, keyword: str) -> int:
    """Return Rows or Columns.

    Raises:
        KeyError: if it is missing.
    """
    value = ds.get(keyword)
    if value is None:
        raise KeyError(keyword)
    return int(value)


def _numbers(item: Dataset, keyword: str, count: int) -> list[float]:
    """Return exactly `count` finite numbers of an attribute.

    Raises:
        KeyError: if it is missing or holds another number of values.
        ValueError: if one is no number.
    """
    value = item.get(keyword)
    if value is None or isinstance(value, str) or len(value) != count:
        raise KeyError(keyword)
    numbers = [float(each) for each in value]
    if not all(math.isfinite(each) for each in numbers):
        raise ValueError(keyword)
    return numbers


def _group(ds: Dataset, index: int, keyword: str) -> Dataset:
    """Return a functional group macro of a frame, per-frame before shared.

    Raises:
        KeyError: if the frame has none.
    """
    group = _optional_group(ds, index, keyword)
    if group is None:
        raise KeyError(keyword)
    return group


def _optional_group(ds: Dataset, index: int, keyword: str) -> Dataset | None:
    """Return a functional group macro of a frame, per-frame before shared, or None."""
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or ()
    shared = ds.get("SharedFunctionalGroupsSequence") or ()
    for holder in (*per_frame[index : index + 1], *shared[:1]):
        items = holder.get(keyword)
        if items:
            found: Dataset = items[0]
            return found
    return None


def _read(path: Path) -> Dataset:
    """Read one Part 10 file whole.

    Raises:
        VolumeError: if it is not one, or is malformed.
    """
    try:
        return pydicom.dcmread(path)
    except _MALFORMED as error:
        raise VolumeError(f"{path.name}: expected a DICOM file, found {type(error).__name__}") from error


def _name(ds: Dataset) -> str:
    """Return how an instance is called in a message: where its UID should be, anything may stand, a name too."""
    try:
        uid = UID(ds.get("SOPInstanceUID"))
    except _MALFORMED:
        uid = UID("")
    return f"instance {uid}" if uid.is_valid else "an instance without a legal UID"


def _text(ds: Dataset, keyword: str) -> str:
    """Return an attribute as text, empty where it is missing.

    Raises:
        VolumeError: if its value cannot be read.
    """
    with _readable(ds, keyword):
        return str(ds.get(keyword) or "")


@contextmanager
def _readable(ds: Dataset, what: str) -> Iterator[None]:
    """Say which instance lacks what, in place of what pydicom raises on a malformed value.

    Raises:
        VolumeError: if something is malformed.
    """
    try:
        yield
    except VolumeError:
        raise
    except _MALFORMED as error:
        raise VolumeError(f"{_name(ds)}: expected {what}, found a malformed value ({type(error).__name__})") from error


def _only(datasets: Sequence[Dataset], keyword: str) -> str:
    """Return the value that all instances share; empty if none has one.

    Raises:
        VolumeError: if they differ.
    """
    values = sorted({_text(ds, keyword) for ds in datasets})
    if len(values) > 1:
        raise VolumeError(f"expected one {keyword} in {len(datasets)} instances, found {len(values)}")
    return values[0]


def _refuse_repeated(datasets: Sequence[Dataset]) -> None:
    """Refuse the same instance given twice (data sets are in order of SOP Instance UID)."""
    for earlier, later in pairwise(datasets):
        if _text(earlier, "SOPInstanceUID") == _text(later, "SOPInstanceUID"):
            raise VolumeError(f"{_name(later)}: given twice")


def _check_claim(ds: Dataset) -> None:
    """Check the pixels an instance claims against the bytes it holds, before anything is allocated for them.

    Raises:
        VolumeError: if there are none, too few, not grey, or unbelievably many.
    """
    name = _name(ds)
    held_bytes = len(ds.get("PixelData") or b"")
    samples, bits = ds.get("SamplesPerPixel") or 1, ds.get("BitsAllocated") or 0
    if samples != 1 or bits not in {8, 16, 32}:
        raise VolumeError(f"{name}: expected grey pixels of 8, 16 or 32 bits, found {samples} x {bits} bits")
    claimed_bytes = int(ds.Rows) * int(ds.Columns) * int(ds.get("NumberOfFrames") or 1) * bits // 8
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise VolumeError(f"{name}: TransferSyntaxUID is missing")
    compressed = syntax.is_private or (syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian)
    believable_bytes = held_bytes * (MAX_COMPRESSION_RATIO if compressed else 1)
    if not held_bytes or claimed_bytes > min(believable_bytes, MAX_DECODED_BYTES):
        raise VolumeError(
            f"{name}: expected pixel data for {claimed_bytes} bytes, found {held_bytes} bytes of "
            f"{'compressed' if compressed else 'native'} pixel data (limit {MAX_DECODED_BYTES})"
        )


def _fill(datasets: Sequence[Dataset], frames: Sequence[_Frame], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Decode every instance once and put its frames, rescaled, where they belong: (Z, Y, X)."""
    places: dict[int, list[tuple[int, int]]] = {}
    for z, frame in enumerate(frames):
        places.setdefault(frame.instance, []).append((z, frame.index))
    volume = np.empty(shape, dtype=np.float32)
    for number, ds in enumerate(datasets):
        pixels = _decode(ds, shape)  # (F, Y, X)
        for z, index in places[number]:
            with _readable(ds, "a rescale slope and intercept"):
                slope, intercept = _rescale(ds, index)
            volume[z] = pixels[index].astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if not np.all(np.isfinite(volume)):
        raise VolumeError("expected finite values after rescaling, found infinite or undefined ones")
    return volume


def _decode(ds: Dataset, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """Decode the pixels of one instance to (F, Y, X).

    Raises:
        VolumeError: if no decoder can, or the decoded size is not the one claimed.
    """
    name = _name(ds)
    try:
        pixels = np.asarray(ds.pixel_array)
    except _MALFORMED as error:
        syntax = ds.file_meta.TransferSyntaxUID
        raise VolumeError(f"{name}: pixels in {syntax.name} cannot be decoded: {type(error).__name__}") from error
    pixels = pixels.reshape((-1, *pixels.shape[-2:]))
    expected = (int(ds.get("NumberOfFrames") or 1), *shape[1:])
    if pixels.shape != expected:
        raise VolumeError(f"{name}: expected decoded pixels of shape {expected}, found {pixels.shape}")
    return pixels


def _rescale(ds: Dataset, index: int) -> tuple[float, float]:
    """Return slope and intercept of a frame (1 and 0 where there are none); Philips' private scaling is not applied.

    Source: PS3.3 C.11.1 (classic), C.7.6.16.2.9 (Pixel Value Transformation).
    """
    item = _optional_group(ds, index, "PixelValueTransformationSequence") or ds
    slope, intercept = item.get("RescaleSlope"), item.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))


def _source(ds: Dataset, frame: _Frame) -> SourceSlice:
    """Return where a slice came from; frames are counted from 1, and only in multi-frame objects."""
    multi_frame = "NumberOfFrames" in ds
    return SourceSlice(
        sop_class_uid=_text(ds, "SOPClassUID"),
        sop_instance_uid=_text(ds, "SOPInstanceUID"),
        frame=frame.index + 1 if multi_frame else None,
    )
