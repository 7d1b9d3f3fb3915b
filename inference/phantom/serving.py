"""Send a phantom's visit the whole way a scan takes to the network, and measure what the way leaves behind.

Rendering in model space must know how far registration misses and what N4 leaves of the coil's shading. Both are
measured here on scans that were written as DICOM, read as series and preprocessed by the node's own code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from scipy.spatial.transform import Rotation

from inference.phantom.anatomy import rigid_part
from inference.phantom.grid import HEAD_CENTRE_MM, Grid
from inference.phantom.model_space import SHAPE, render_model_space
from inference.phantom.scanner import bias_terms, rotation_matrix
from inference.phantom.study import StudyOptions, write_study
from inference.preprocess import Preprocessed, Template, preprocess
from inference.preprocess.bias import GRID_MM, estimate_log_bias
from inference.preprocess.images import affine_of, coarsen, resample, to_image
from inference.volume import Volume, read_series

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom.patient import PhantomPatient, Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """What the way through DICOM, N4 and registration left of one visit's pose and shading.

    `rotation_deg` about x, y, z and `translation_mm` at the head's centre take the template to where the head truly
    lies; `anatomy` is the share of both that the head's own shape explains (`anatomy.rigid_part`). `bias` are the
    coefficients of `scanner.bias_terms` in the logarithm, constant left out; `bias_rest` is the SD inside the brain of
    what they leave, relative to 1.
    """

    seed: int
    visit: int
    volumetric: bool
    slice_mm: float
    rotation_deg: tuple[float, float, float]
    translation_mm: tuple[float, float, float]
    anatomy: tuple[float, ...]
    bias: tuple[float, ...]
    bias_rest: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Served:
    """A visit as the node sees it, and the measurement of its way."""

    preprocessed: Preprocessed
    residual: Residual


def serving_options(visit: Visit, *, role: str = "FLAIR") -> StudyOptions:
    """Return how the visit's machine acquires: 3D at 1 mm, or 2D with its own slice thickness."""
    nuisance = visit.nuisance
    spacing_mm = (1.0, 1.0, 1.0) if nuisance.volumetric else (nuisance.thick_slice_mm, 1.0, 1.0)
    return StudyOptions(roles=(role,), spacing_mm=spacing_mm, volumetric=nuisance.volumetric, truth=False)


def serve(
    patient: PhantomPatient,
    visit_index: int,
    folder: Path,
    template: Template,
    *,
    shape: tuple[int, int, int] = SHAPE,
) -> Served:
    """Write a visit's FLAIR as DICOM into `folder`, read and preprocess it, and measure what is left.

    Raises:
        PreprocessError: if the scan does not come to lie on the template.
    """
    visit = patient.visits[visit_index]
    volume = read_series(write_study(patient, visit_index, folder, serving_options(visit)))
    preprocessed = preprocess(volume, template, shape=shape)
    rotation_deg, translation_mm = left_of_pose(visit, preprocessed.template_to_source)
    bias, rest = left_of_bias(visit, volume, preprocessed, template)
    residual = Residual(
        seed=patient.seed,
        visit=visit_index % len(patient.visits),
        volumetric=visit.nuisance.volumetric,
        slice_mm=volume.spacing_mm[0],
        rotation_deg=rotation_deg,
        translation_mm=translation_mm,
        anatomy=tuple(float(each) for each in rigid_part(patient.anatomy)),
        bias=bias,
        bias_rest=rest,
    )
    return Served(preprocessed=preprocessed, residual=residual)


def agreement(patient: PhantomPatient, residual: Residual, served: NDArray[np.float32]) -> float:
    """Return the correlation inside the brain of a served volume (Z, Y, X) with the same visit rendered.

    The rendered one has the residuals that were measured on this scan, so what is left is the renderer's own fault.
    """
    visits = list(patient.visits)
    visit = visits[residual.visit]
    nuisance = replace(
        visit.nuisance,
        residual_rotation_deg=residual.rotation_deg,
        residual_translation_mm=residual.translation_mm,
        residual_bias=np.array(residual.bias, dtype=np.float32),
    )
    visits[residual.visit] = replace(visit, nuisance=nuisance)
    shape = (served.shape[0], served.shape[1], served.shape[2])
    rendered = render_model_space(replace(patient, visits=tuple(visits)), residual.visit, shape=shape)
    both = (served > 0) & (rendered > 0)
    return float(np.corrcoef(served[both], rendered[both])[0, 1])


def left_of_pose(
    visit: Visit, template_to_source: NDArray[np.float64]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return rotation (degrees about x, y, z) and translation (mm at the head's centre) from template to true head."""
    turn = rotation_matrix(visit.nuisance.rotation_deg)
    shift = np.asarray(visit.nuisance.translation_mm)
    rotation = turn.T @ template_to_source[:3, :3]
    found = template_to_source[:3, :3] @ HEAD_CENTRE_MM + template_to_source[:3, 3]
    x, y, z = (float(each) for each in turn.T @ (found - HEAD_CENTRE_MM - shift))
    about_x, about_y, about_z = (float(each) for each in Rotation.from_matrix(rotation).as_euler("xyz", degrees=True))
    return (about_x, about_y, about_z), (x, y, z)


def left_of_bias(
    visit: Visit, volume: Volume, preprocessed: Preprocessed, template: Template
) -> tuple[tuple[float, ...], float]:
    """Return the coefficients of what N4 left of the true shading, in the template's brain, and the SD they leave.

    The served image is truth x shading / estimate, so the smooth part of served over truth is shading / estimate: no
    image has to be divided by another.
    """
    scan = to_image(volume.array - volume.array.min(), volume.affine)
    log_estimate = estimate_log_bias(coarsen(scan, GRID_MM))
    grid = coarsen(to_image(template.mask.astype(np.float32), template.affine), GRID_MM / 2)
    inside = np.flatnonzero(sitk.GetArrayFromImage(grid).ravel() > 0.5)
    estimate = resample(log_estimate, grid, preprocessed.template_to_source, extrapolate=True).ravel()[inside]
    points = Grid(affine=affine_of(grid), shape=grid.GetSize()[::-1]).points_mm()[:, inside]
    matrix = preprocessed.template_to_source
    true = visit.nuisance.bias @ bias_terms((matrix[:3, :3] @ points + matrix[:3, 3:]).astype(np.float32))
    left = np.clip(true, -1, 1) - estimate
    terms = np.vstack([bias_terms(points.astype(np.float32)), np.ones(inside.size)])  # (10, N)
    weights = np.linalg.lstsq(terms.T, left, rcond=None)[0]
    return tuple(float(each) for each in weights[:-1]), float((left - weights @ terms).std())
