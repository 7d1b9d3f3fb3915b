"""Write a volume as classic MR images, one file per slice. Source: PS3.3 A.4, C.7.6.2, C.8.3.1."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import MRImageStorage

from inference.phantom.headers import AGENT
from inference.phantom.modules import Series, deterministic_uid, dicom_date, dicom_time, new_object

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset


class SliceOrder(StrEnum):
    """How InstanceNumber runs along the normal; the content in the world is the same."""

    ASCENDING = "ascending"
    REVERSED = "reversed"
    INTERLEAVED = "interleaved"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Placed:
    """A volume where the scanner put it: `values` (Z, Y, X) uint16, `affine` from (x, y, z) indices to LPS mm."""

    values: NDArray[np.uint16]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Return (x, y, z) spacing."""
        x, y, z = (float(each) for each in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def orientation(self) -> list[float]:
        """Return ImageOrientationPatient: the direction of a row, then of a column."""
        unit = self.affine[:3, :2] / np.linalg.norm(self.affine[:3, :2], axis=0)
        return [round(float(each), 9) for each in unit.T.ravel()]

    def position_mm(self, z: int) -> list[float]:
        """Return ImagePositionPatient of slice z."""
        return [round(float(each), 6) for each in self.affine[:3, 3] + z * self.affine[:3, 2]]


def instance_order(count: int, order: SliceOrder) -> list[int]:
    """Return slice indices in the order of InstanceNumber."""
    if order is SliceOrder.REVERSED:
        return list(range(count))[::-1]
    if order is SliceOrder.INTERLEAVED:
        return [*range(1, count, 2), *range(0, count, 2)]
    return list(range(count))


def write_slices(placed: Placed, series: Series, folder: Path, *, order: SliceOrder) -> list[Path]:
    """Write one file per slice and return the paths in InstanceNumber order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, z in enumerate(instance_order(placed.values.shape[0], order), start=1):
        ds = _slice(placed, series, z, number)
        path = folder / f"MR{series.number:03d}{number:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice(placed: Placed, series: Series, z: int, number: int) -> Dataset:
    ds = new_object(series, MRImageStorage, z)
    words = series.words
    ds.ImageType = list(words.image_type)
    ds.InstanceNumber = number
    ds.AcquisitionNumber = 1
    started = series.started + timedelta(seconds=0 if series.volumetric else 2 * (number % 2))
    ds.AcquisitionDate, ds.AcquisitionTime = dicom_date(started), dicom_time(started)
    ds.ContentDate, ds.ContentTime = dicom_date(started), dicom_time(series.started + timedelta(minutes=5))
    x_mm, y_mm, z_mm = placed.spacing_mm
    ds.ImagePositionPatient = placed.position_mm(z)
    ds.ImageOrientationPatient = placed.orientation
    ds.PixelSpacing = [round(y_mm, 6), round(x_mm, 6)]
    ds.SliceThickness = round(z_mm * (1.0 if series.volumetric else 0.9), 4)
    ds.SpacingBetweenSlices = round(z_mm, 6)
    normal = np.cross(placed.orientation[:3], placed.orientation[3:])
    ds.SliceLocation = round(float(normal @ np.array(placed.position_mm(z))), 4)
    add_protocol(ds, series)
    add_pixels(ds, placed.values[z])
    return ds


def add_protocol(ds: Dataset, series: Series) -> None:
    """Add the MR Image module: what the scanner was told."""
    sequence, words, machine = series.sequence, series.words, series.visit.scanner
    ds.ScanningSequence = list(words.scanning_sequence)
    ds.SequenceVariant = list(words.sequence_variant)
    ds.ScanOptions = list(words.scan_options)
    ds.MRAcquisitionType = "3D" if series.volumetric else "2D"
    if series.vendor != "philips":
        ds.SequenceName = words.sequence_name
    ds.RepetitionTime, ds.EchoTime = sequence.tr_ms, sequence.te_ms
    if sequence.ti_ms is not None:
        ds.InversionTime = sequence.ti_ms
    ds.FlipAngle = sequence.flip_deg
    ds.EchoTrainLength = sequence.echo_train
    ds.EchoNumbers = 1
    ds.NumberOfAverages = 1
    ds.AngioFlag = "N"
    ds.MagneticFieldStrength = machine.field_t
    ds.ImagingFrequency = round(42.577 * machine.field_t, 6)
    ds.ImagedNucleus = "1H"
    ds.PixelBandwidth = 200
    ds.InPlanePhaseEncodingDirection = "ROW"
    ds.PercentSampling = ds.PercentPhaseFieldOfView = 100
    ds.ReceiveCoilName = "HeadMatrix" if series.vendor == "siemens" else "8HRBRAIN"
    if sequence.gadolinium:
        ds.ContrastBolusAgent = AGENT[series.vendor]
        ds.ContrastBolusRoute = "IV"
        ds.ContrastBolusVolume = round(0.1 * float(ds.PatientWeight), 1)


def add_pixels(ds: Dataset, values: NDArray[np.uint16]) -> None:
    """Add the Image Pixel module: 12 bits stored in 16."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.WindowCenter, ds.WindowWidth = 450, 900
    ds.PixelData = values.astype("<u2").tobytes()


def localizer_planes(values: NDArray[np.uint16], affine: NDArray[np.float64]) -> list[Placed]:
    """Cut an axial, a coronal and a sagittal plane through the middle of an isotropic volume."""
    depth, rows, columns = values.shape
    axial = Placed(values=values[depth // 2 : depth // 2 + 1], affine=_slab(affine, (0, 1, 2), depth // 2, (1, 1)))
    coronal = Placed(
        values=values[::-1, rows // 2, :][None], affine=_slab(affine, (0, 2, 1), rows // 2, (1, -1), last=depth - 1)
    )
    sagittal = Placed(
        values=values[::-1, :, columns // 2][None],
        affine=_slab(affine, (1, 2, 0), columns // 2, (1, -1), last=depth - 1),
    )
    return [axial, coronal, sagittal]


def _slab(
    affine: NDArray[np.float64],
    axes: tuple[int, int, int],
    index: int,
    signs: tuple[int, int],
    *,
    last: int = 0,
) -> NDArray[np.float64]:
    """Return the affine of one plane: `axes` are the old (row, column, normal) axes, `last` the flipped axis' end."""
    row, column, normal = axes
    plane = np.eye(4)
    plane[:3, 0] = signs[0] * affine[:3, row]
    plane[:3, 1] = signs[1] * affine[:3, column]
    cross = np.cross(plane[:3, 0], plane[:3, 1])
    plane[:3, 2] = cross / np.linalg.norm(cross) * np.linalg.norm(affine[:3, normal])
    plane[:3, 3] = affine[:3, 3] + index * affine[:3, normal] + (last * affine[:3, column] if signs[1] < 0 else 0)
    return plane


def write_localizer(placed: Placed, series: Series, folder: Path) -> list[Path]:
    """Write a three-plane localizer, as scanners send before anything else: three orientations in one series."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, plane in enumerate(localizer_planes(placed.values, placed.affine), start=1):
        ds = _slice(plane, series, 0, number)
        ds.SOPInstanceUID = deterministic_uid(*series.key, "plane", number)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.ImageType = list(series.words.image_type[:3])
        if series.vendor == "ge":
            ds.SequenceName = "LOC"
        path = folder / f"MR{series.number:03d}{number:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
