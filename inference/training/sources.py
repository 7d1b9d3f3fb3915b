"""Where a scan of a cohort table comes from: the files of one DICOM series, or one NIfTI file.

DICOM is read by the node's own reader. NIfTI is for research data that exist in no other form; its voxels are put in
the order the node's reader gives: slices first, axes right-handed, millimetres LPS.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pydicom
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from pydicom.errors import InvalidDicomError

from inference.geometry import COSINE_TOLERANCE
from inference.training.table_values import is_nifti
from inference.volume import Volume, VolumeError, read_series

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# NIfTI world coordinates are RAS, DICOM's are LPS.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What nibabel raises on files that are no NIfTI, torn or malformed.
_MALFORMED = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error)
_MAX_VOXELS = 2**29  # 800 x 800 x 800


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files of one series, and a digest of their bytes in the order of their names."""

    files: tuple[Path, ...]
    digest: str


def find_source(path: Path) -> Source:
    """Return the files that a path of a table stands for: one NIfTI file, or all DICOM files of one series.

    Raises:
        VolumeError: if there is no such file, or the folder holds several series.
    """
    if is_nifti(path):
        return Source(files=(path,), digest=_digest([path]))
    candidates = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    series = {each: uid for each in candidates if (uid := _series_instance_uid(each)) is not None}
    if (count := len(set(series.values()))) != 1:
        raise VolumeError(f"expected the instances of one series, found {count} series in {len(candidates)} files")
    return Source(files=tuple(series), digest=_digest(list(series)))


def read_source(source: Source) -> Volume:
    """Read a source as the node reads a series.

    Raises:
        GeometryError: if the planes do not form one volume.
        VolumeError: if a file cannot be read.
    """
    first = source.files[0]
    return read_nifti(first) if is_nifti(first) else read_series(source.files)


def read_nifti(path: Path) -> Volume:
    """Read one NIfTI file; it knows no instances and no frame of reference.

    Raises:
        VolumeError: if it is no NIfTI, not one volume, or does not say where its voxels lie.
    """
    try:
        image = nibabel.load(path)
        _check_nifti(image)
        values = np.asarray(image.dataobj, dtype=np.float32)
    except VolumeError:
        raise
    except _MALFORMED as error:
        raise VolumeError(f"{path.name}: expected a NIfTI file, found {type(error).__name__}") from error
    array, affine, spacing_mm = _slices_first(values.reshape(values.shape[:3]), _RAS_TO_LPS @ image.affine)
    if not np.all(np.isfinite(array)):
        raise VolumeError(f"{path.name}: expected finite values, found infinite or undefined ones")
    return Volume(
        array=array,
        affine=affine,
        spacing_mm=spacing_mm,
        thickness_mm=None,
        slices=(),
        frame_of_reference_uid="",
        series_instance_uid="",
    )


def _check_nifti(image: nibabel.Nifti1Image) -> None:
    """Refuse what is not one volume on a rigid grid in the scanner's space.

    Raises:
        VolumeError: with what was expected and found.
    """
    if not isinstance(image, nibabel.Nifti1Image):
        raise VolumeError(f"expected NIfTI, found {type(image).__name__}")
    shape = image.shape
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise VolumeError(f"expected one volume, found {len(shape)} dimensions of {shape}")
    if int(np.prod(shape)) > _MAX_VOXELS:
        raise VolumeError(f"expected at most {_MAX_VOXELS} voxels, found {shape}")
    if not int(image.header["sform_code"]) and not int(image.header["qform_code"]):
        raise VolumeError("expected a NIfTI file that says where its voxels lie, found neither sform nor qform")
    columns = image.affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(image.affine)) or lengths.min() <= 0:
        raise VolumeError("expected an affine with three axes, found a degenerate one")
    cosines = columns / lengths
    skew = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if skew > COSINE_TOLERANCE:
        raise VolumeError(f"expected axes at right angles, found cosines of up to {skew:.3f} between them")


def _slices_first(
    values: NDArray[np.float32], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[float, float, float]]:
    """Return an array (X, Y, Z) of any axes as (Z, Y, X), its affine of voxels (x, y, z), and spacing (z, y, x).

    Slices lie along the axis of the widest step, the last one where steps are equal; a left-handed grid is turned by
    reversing its slices.
    """
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    slices = int(np.flatnonzero(steps >= steps.max() * 0.999)[-1])
    axes = [*(axis for axis in range(3) if axis != slices), slices]  # x, y, z
    turned = affine[:, [*axes, 3]].copy()
    array = values.transpose(axes[::-1])
    if np.linalg.det(turned[:3, :3]) < 0:
        array = array[::-1]
        turned[:3, 3] += turned[:3, 2] * (len(array) - 1)
        turned[:3, 2] *= -1
    z, y, x = (float(steps[axis]) for axis in axes[::-1])
    return np.ascontiguousarray(array), turned, (z, y, x)


def _series_instance_uid(path: Path) -> str | None:
    """Return the series of a DICOM file, None for any other file, as a DICOMDIR or a note beside the images."""
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except InvalidDicomError:
        return None
    return str(ds["SeriesInstanceUID"].value) if "SeriesInstanceUID" in ds else None


def _digest(files: list[Path]) -> str:
    """Return the digest of the files' bytes, as `python -m inference predict` names a scan by."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
