"""Real pairs of scans with an expert's mask of what changed, for the saliency check's case illustration.

Layout: `patientNN/raw/study1_FLAIR.nii.gz` and `study2_FLAIR.nii.gz`, `patientNN/transforms/
study2_FLAIR_to_common_space.txt` (ITK), `patientNN/common_space/gt.nii.gz`. Each scan goes through the node's own
preprocessing; the mask follows the newer one.

Source: open longitudinal MS data, Lesjak et al., Neuroinformatics 2016 (CC BY).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from inference.evaluation.saliency_checks import Case
from inference.preprocess import load_template, preprocess
from inference.preprocess.images import affine_of, resample, to_image, to_matrix
from inference.preprocess.stretch import stretch
from inference.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.preprocess import Preprocessed, Template

_CHANGED = 0.25  # share of a model voxel (about 60 cubic millimetres): plaques are small


def real_pairs(folder: Path, *, shape: tuple[int, int, int]) -> Iterator[Case]:
    """Yield the patients of whom both FLAIR scans, the transform and the mask are there.

    Raises:
        PreprocessError: if a scan does not come to lie on the template.
        RuntimeError: if a file cannot be read (SimpleITK's only exception).
    """
    template = load_template()
    for patient in sorted(folder.glob("patient*")):
        scans = [patient / "raw" / f"study{number}_FLAIR.nii.gz" for number in (1, 2)]
        if all(each.is_file() for each in scans):
            older, newer = (preprocess(_volume(each), template, shape=shape) for each in scans)
            yield Case(
                name=patient.name,
                volumes=np.stack([older.array, newer.array]),
                change=_change(patient, newer, template, shape),
            )


def _volume(path: Path) -> Volume:
    """Read a NIfTI file as a series that has no instances."""
    image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    x, y, z = image.GetSpacing()
    return Volume(
        array=sitk.GetArrayFromImage(image),
        affine=affine_of(image),
        spacing_mm=(z, y, x),
        thickness_mm=None,
        slices=(),
        frame_of_reference_uid="",
        series_instance_uid="",
    )


def _change(patient: Path, newer: Preprocessed, template: Template, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return the expert's mask (Z, Y, X) in the model's space: template -> newer scan -> common space."""
    mask = sitk.ReadImage(str(patient / "common_space" / "gt.nii.gz"), sitk.sitkFloat32)
    common_to_scan = sitk.ReadTransform(str(patient / "transforms" / "study2_FLAIR_to_common_space.txt"))
    to_common = np.linalg.inv(to_matrix(common_to_scan)) @ newer.template_to_source
    grid = to_image(template.mask.astype(np.uint8), template.affine)
    share = stretch(resample(mask, grid, np.asarray(to_common, dtype=np.float64)), shape)
    return np.asarray(share > _CHANGED)
