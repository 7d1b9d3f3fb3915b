"""The template that every scan is registered to: a brain, its mask, and the grid of the model's space."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nilearn.datasets import load_mni152_template
from scipy import ndimage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# NIfTI world coordinates are RAS, DICOM's are LPS.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# nilearn's own threshold for the brain mask of its template, before holes are filled.
_MNI_MASK_THRESHOLD = 0.2


class TemplateError(ValueError):
    """A configured template cannot be used; the message says which file and why."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Template:
    """A skull-stripped brain and its mask, both (Z, Y, X); x grows to the left, y to the back, z to the top.

    `affine` (4, 4) maps voxels (x, y, z) to millimetres, LPS; `digest` is "sha256:..." over values and affine.
    """

    name: str
    array: NDArray[np.float32]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    digest: str


def load_template(path: Path | None = None) -> Template:
    """Load a template from a folder with `t1.nii.gz` and `mask.nii.gz`, or the MNI152 that nilearn brings along.

    Raises:
        TemplateError: if a file is missing, unreadable, not 3-D, or the two grids differ.

    Source: ICBM 2009a nonlinear symmetric (Fonov et al., NeuroImage 2011), as packed in nilearn at 1 mm.
    """
    if path is None:
        image = load_mni152_template(resolution=1)
        brain = np.asarray(image.dataobj) > _MNI_MASK_THRESHOLD
        return _template("MNI152", image, ndimage.binary_fill_holes(ndimage.binary_closing(brain, iterations=2)))
    image, mask = (_load(path / name) for name in ("t1.nii.gz", "mask.nii.gz"))
    if image.shape != mask.shape or not np.allclose(image.affine, mask.affine, atol=1e-3):
        raise TemplateError(f"{path}: expected t1 and mask on one grid, found {image.shape} and {mask.shape} voxels")
    return _template(path.name, image, np.asarray(mask.dataobj) > 0)


def _load(path: Path) -> nibabel.Nifti1Image:
    """Load one 3-D NIfTI file."""
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
    except (OSError, ImageFileError) as error:
        raise TemplateError(f"{path}: cannot be read as NIfTI: {type(error).__name__}") from error
    if len(image.shape) != 3:
        raise TemplateError(f"{path}: expected three dimensions, found {len(image.shape)}")
    return image


def _template(name: str, image: nibabel.Nifti1Image, mask: NDArray[np.bool_]) -> Template:
    """Turn a RAS image (X, Y, Z) into a template in LPS, stored (Z, Y, X)."""
    flip = np.eye(4)  # from voxels of the flipped array to voxels of the RAS array
    flip[0, 0] = flip[1, 1] = -1.0
    flip[:2, 3] = np.array(image.shape[:2]) - 1.0
    affine = _RAS_TO_LPS @ image.affine @ flip
    values = np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32)[::-1, ::-1].T)
    inside = np.ascontiguousarray(mask[::-1, ::-1].T)
    if not inside.any():
        raise TemplateError(f"template {name}: expected a brain mask, found an empty one")
    content = hashlib.sha256()
    for each in (values, inside, affine):
        content.update(each.tobytes())
    return Template(name=name, array=values, mask=inside, affine=affine, digest=f"sha256:{content.hexdigest()}")
