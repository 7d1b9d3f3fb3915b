"""Between arrays with an affine and SimpleITK images; both live in LPS millimetres, so nothing is flipped here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def to_image(array: NDArray[np.generic], affine: NDArray[np.float64]) -> sitk.Image:
    """Return an image of an array (Z, Y, X) whose affine (4, 4) maps voxels (x, y, z) to LPS mm."""
    return _place(sitk.GetImageFromArray(np.ascontiguousarray(array)), affine)


def grid_image(shape: Sequence[int], affine: NDArray[np.float64]) -> sitk.Image:
    """Return an empty image of a shape (Z, Y, X) that only says where its voxels lie."""
    return _place(sitk.Image(list(shape[::-1]), sitk.sitkUInt8), affine)


def _place(image: sitk.Image, affine: NDArray[np.float64]) -> sitk.Image:
    """Give an image the spacing, direction and origin of an affine (4, 4) without shear."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def affine_of(image: sitk.Image) -> NDArray[np.float64]:
    """Return the affine (4, 4) that maps voxels (x, y, z) of an image to LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def to_transform(matrix: NDArray[np.float64]) -> sitk.AffineTransform:
    """Return the transform of points (LPS mm) that a matrix (4, 4) describes."""
    return sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())


def to_matrix(transform: sitk.Transform) -> NDArray[np.float64]:
    """Return the matrix (4, 4) of a linear transform of points (LPS mm)."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(np.eye(3)[axis].tolist())) - origin
    return matrix


def resample(
    image: sitk.Image,
    grid: sitk.Image,
    matrix: NDArray[np.float64],
    *,
    interpolator: int = sitk.sitkLinear,
    extrapolate: bool = False,
) -> NDArray[np.float32]:
    """Return `image` at the voxels of `grid`, as (Z, Y, X); `matrix` maps points of the grid to points of the image.

    Points outside the image are 0, or the nearest voxel's value if `extrapolate`.
    """
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetTransform(to_transform(matrix))
    resampler.SetInterpolator(interpolator)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.SetUseNearestNeighborExtrapolator(extrapolate)
    array: NDArray[np.float32] = sitk.GetArrayFromImage(resampler.Execute(image))
    return array


def coarsen(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average whole voxels into bins of about `spacing_mm`; an axis that is coarser already stays as it is."""
    factors = [max(1, round(spacing_mm / each)) for each in image.GetSpacing()]
    factors = [min(factor, size) for factor, size in zip(factors, image.GetSize(), strict=True)]
    return sitk.BinShrink(image, factors)


def head_mask(coarse: sitk.Image) -> sitk.Image:
    """Return 1 where a coarse image is brighter than air, by Otsu's method with three classes: air, tissue, bright.

    Two classes do not do: fat on T1 and fluid on T2 can outshine the brain by so much that the brain falls to the air.
    """
    return sitk.OtsuMultipleThresholds(coarse, 2, 0, 128) > 0
