"""Tissue maps of a real head: its T1 brought into model space by our own preprocessing, classes told by brightness.

The phantom is then drawn on somebody's own gyri and ventricles; every signal is still synthesised.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from inference.phantom.tissue import TEMPLATE_SHAPE, TissueMaps, signed_distance_mm
from inference.preprocess import load_template, preprocess
from inference.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PATTERN = "*T1*.nii*"
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_RIM_MM = 6.0  # of the mask, where a head that is not the template's shows dura and fat
_CLASSES, _ROUNDS = 3, 30
_COARSE, _AROUND_MM, _PASSES = 4, 28.0, 3


class RealHeadError(ValueError):
    """A folder holds no head that a phantom could be drawn on; the message says what was expected and found."""


@lru_cache(maxsize=2)
def real_head_maps(folder: Path) -> TissueMaps:
    """Return the tissue of the one T1-weighted NIfTI file in a folder, on the template's grid at 1 mm.

    Raises:
        RealHeadError: if the folder does not hold exactly one such file, or it is no image in three dimensions.
        PreprocessError: if the head does not come to lie on the template.
    """
    found = sorted(folder.glob(PATTERN)) if folder.is_dir() else []
    if len(found) != 1:
        raise RealHeadError(f"{folder}: expected one file {PATTERN}, found {len(found)}")
    template = load_template()
    t1 = preprocess(_volume(found[0]), template, shape=TEMPLATE_SHAPE).array
    return maps_of_t1(t1, template.mask)


def maps_of_t1(t1: NDArray[np.float32], mask: NDArray[np.bool_]) -> TissueMaps:
    """Return the tissue of a T1-weighted brain (Z, Y, X) at 1 mm without bias field; fluid is what is left.

    Between the centres of two neighbouring classes a voxel is taken for a mixture of both.
    """
    distance = signed_distance_mm(mask)
    core = mask & (distance < -_RIM_MM)
    for _ in range(_PASSES):
        t1 = flattened(t1, core)
    fluid, grey, white = class_means(t1[core])
    # Fat and dura at the rim outshine or equal white matter: whatever is bright there is no brain.
    brain = mask & ~((distance >= -_RIM_MM) & (t1 > (grey + white) / 2))
    whiteness = np.clip((t1 - grey) / (white - grey), 0, 1) * brain
    tissue = np.clip((t1 - fluid) / (grey - fluid), 0, 1) * brain
    return TissueMaps(
        grey=np.asarray(tissue - whiteness, dtype=np.float32),
        white=np.asarray(whiteness, dtype=np.float32),
        distance_mm=distance,
        spacing_mm=1.0,
    )


def flattened(t1: NDArray[np.float32], core: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a T1 (Z, Y, X) without the shading that N4 left, so that white matter is as bright everywhere.

    White matter is the brightest tissue of a T1 and is found within a few centimetres of any place in the brain: the
    brightest place around, on a smoothed grid of 4 mm, says how bright it is there.
    """
    inside = core[::_COARSE, ::_COARSE, ::_COARSE]
    small = ndimage.gaussian_filter(t1 * core, _COARSE / 2)[::_COARSE, ::_COARSE, ::_COARSE] * inside
    brightest = ndimage.percentile_filter(np.where(inside, small, 0), 97, size=round(_AROUND_MM / _COARSE))
    weight = ndimage.gaussian_filter(inside.astype(np.float32), _AROUND_MM / 2 / _COARSE)
    field = ndimage.gaussian_filter(brightest * inside, _AROUND_MM / 2 / _COARSE) / np.maximum(weight, 1e-3)
    field = np.where(weight > 1e-3, field, np.median(field[inside]))
    whole = ndimage.zoom(field, [full / part for full, part in zip(t1.shape, field.shape, strict=True)], order=1)
    return np.asarray(t1 / whole, dtype=np.float32)


def class_means(values: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return the mean brightness of fluid, grey and white matter: three Gaussians fitted to the histogram by EM."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    means = np.quantile(values, [0.05, 0.35, 0.8])
    spreads, shares = np.full(_CLASSES, values.std() / 3), np.full(_CLASSES, 1 / _CLASSES)
    for _ in range(_ROUNDS):
        offset = (centres - means[:, None]) / spreads[:, None]
        density = shares[:, None] / spreads[:, None] * np.exp(-0.5 * offset**2) + 1e-12
        weight = counts * density / density.sum(0)
        total = weight.sum(1)
        means = weight @ centres / total
        spreads = np.sqrt((weight * (centres - means[:, None]) ** 2).sum(1) / total) + 1e-6
        shares = total / total.sum()
    fluid, grey, white = (float(each) for each in np.sort(means))
    return fluid, grey, white


def _volume(path: Path) -> Volume:
    """Read a NIfTI file (X, Y, Z in RAS) as a volume (Z, Y, X) in LPS."""
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, ImageFileError) as error:
        raise RealHeadError(f"{path}: cannot be read as NIfTI: {type(error).__name__}") from error
    if values.ndim != 3:
        raise RealHeadError(f"{path}: expected three dimensions, found {values.ndim}")
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # from voxels of the array turned to LPS to voxels of the file
    flip[:2, 3] = np.array(values.shape[:2]) - 1.0
    affine = _RAS_TO_LPS @ image.affine @ flip
    array = np.ascontiguousarray(values[::-1, ::-1].T)  # (Z, Y, X)
    x_mm, y_mm, z_mm = (float(each) for each in np.linalg.norm(affine[:3, :3], axis=0))
    return Volume(
        array=array,
        affine=np.asarray(affine, dtype=np.float64),
        spacing_mm=(z_mm, y_mm, x_mm),
        thickness_mm=None,
        slices=(),
        frame_of_reference_uid="",
        series_instance_uid="",
    )
