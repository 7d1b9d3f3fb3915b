"""Small MR series as DICOM: classic or enhanced multi-frame, from an array and where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SENTINEL_NAME = "SENTINEL^NEVER^LOGGED"
SENTINEL_ID = "SENTINEL-ID-4711"


def classic_series(
    array: NDArray[np.generic],
    affine: NDArray[np.float64],
    *,
    name: str = "series",
    numbering: Sequence[int] | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
    **attributes: Any,
) -> list[Dataset]:
    """Return one MR image per slice of an array (Z, Y, X); `affine` maps voxels (x, y, z) to LPS mm.

    `numbering[z]` is the Instance Number of slice z (default: in order); `attributes` overwrite any other value.
    """
    numbers = range(1, len(array) + 1) if numbering is None else numbering
    datasets = []
    for z, number in enumerate(numbers):
        ds = _header(name, MRImageStorage, str(number), array.shape)
        ds.InstanceNumber = int(number)
        ds.ImagePositionPatient = _decimals((affine @ (0, 0, z, 1))[:3])
        ds.ImageOrientationPatient = _decimals(_cosines(affine))
        ds.PixelSpacing = _decimals(_spacing(affine)[1::-1])
        ds.SliceThickness = _decimals(_spacing(affine)[2:])[0]
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
        ds.PixelData = _stored(array[z], slope, intercept)
        _overwrite(ds, attributes)
        datasets.append(ds)
    return datasets


def enhanced_instance(
    array: NDArray[np.generic],
    affine: NDArray[np.float64],
    *,
    name: str = "series",
    order: Sequence[int] | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
    **attributes: Any,
) -> Dataset:
    """Return one enhanced MR image of an array (Z, Y, X); frame f holds slice `order[f]` (default: in order)."""
    slices = list(range(len(array))) if order is None else list(order)
    ds = _header(name, EnhancedMRImageStorage, "enhanced", array.shape)
    ds.InstanceNumber = 1
    ds.NumberOfFrames = len(slices)
    between = _spacing(affine)
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=_decimals(_cosines(affine)))
    shared.PixelMeasuresSequence = _item(
        PixelSpacing=_decimals(between[1::-1]), SliceThickness=_decimals(between[2:])[0]
    )
    ds.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for z in slices:
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=_decimals((affine @ (0, 0, z, 1))[:3]))
        frame.PixelValueTransformationSequence = _item(
            RescaleSlope=str(slope), RescaleIntercept=str(intercept), RescaleType="US"
        )
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    ds.PixelData = _stored(np.asarray(array)[slices], slope, intercept)
    _overwrite(ds, attributes)
    return ds


def write(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write data sets as Part 10 files into a new folder and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(datasets):
        paths.append(folder / f"{number:04d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def _header(name: str, sop_class_uid: str, instance: str, shape: Sequence[int]) -> Dataset:
    """Return what all instances of a series share; UIDs derive from the names."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class_uid
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[name, "instance", instance])
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[name, "study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[name, "series"])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[name, "frame of reference"])
    ds.PatientName, ds.PatientID = SENTINEL_NAME, SENTINEL_ID
    ds.PatientBirthDate, ds.PatientSex = "20100101", "O"
    ds.Modality, ds.Manufacturer = "MR", "SYNTHETIC"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20260101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = "120000"
    ds.StudyID, ds.AccessionNumber, ds.SeriesNumber = "1", "", 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    ds.Rows, ds.Columns = int(shape[1]), int(shape[2])
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    return ds


def _overwrite(ds: Dataset, attributes: dict[str, Any]) -> None:
    """Set attributes by keyword; None removes one."""
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)


def _item(**attributes: Any) -> Items:
    """Return a sequence of one item."""
    item = Dataset()
    _overwrite(item, attributes)
    return Items([item])


def _stored(array: NDArray[np.generic], slope: float, intercept: float) -> bytes:
    """Return 16-bit pixels whose rescaled values are the array's, rounded to a step."""
    return np.rint((np.asarray(array, dtype=np.float64) - intercept) / slope).astype("<u2").tobytes()


def _spacing(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the voxel size (x, y, z) in mm."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _cosines(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the six direction cosines: along a row, then along a column."""
    return np.asarray((affine[:3, :2] / _spacing(affine)[:2]).T.ravel())


def _decimals(values: NDArray[np.float64]) -> list[str]:
    """Return numbers as Decimal Strings of at most 16 characters."""
    return [f"{float(value):.9g}" for value in values]
