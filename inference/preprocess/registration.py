"""Rigid registration of a scan to the template: many coarse starts, then finer levels of Mattes mutual information.

Published is one geometry-centred start, 1 % random samples, shrink 4-2-1. Ours differs where scanners ask for it: a
sagittal 3-D scan with half a neck has its brain far above the centre of its field of view, and its centre of mass in
the throat, so neither centre alone is a safe start. Every voxel of a coarse grid is a sample, in one thread, so that
the same scan gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from scipy import ndimage

from inference.preprocess.images import affine_of, coarsen, head_mask, to_image, to_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.preprocess.template import Template

LEVELS_MM = (8.0, 4.0, 3.0)
KEPT = (6, 2, 1)  # how many of the best candidates enter each level
ITERATIONS = (60, 60, 20)
HISTOGRAM_BINS = 50
# One thread: the joint histogram then adds up in one order.
WORK_UNITS = 1
# The template has no skull; a rim of its empty surround tells the metric where the brain ends.
_RIM_MM = 4.0
_MARGIN_MM = 60.0
_SAME_PLACE_MM = 4.0
_FIRST_STEP_MM, _LAST_STEP_MM = 2.0, 0.02
_CAP_PERCENTILE = 90.0
_SHIFTS_MM = (-40.0, -20.0, 0.0, 20.0, 40.0)  # head to foot: how much neck is in the picture
_PITCHES_RAD = (-0.3, 0.0, 0.3)  # nodding: the rotation that differs most between patients


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Registration:
    """The rigid matrix (4, 4) that maps template points to scan points (LPS mm), and its mutual information (nats)."""

    matrix: NDArray[np.float64]
    mutual_information: float


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """The three images of one resolution."""

    fixed: sitk.Image
    mask: sitk.Image
    moving: sitk.Image


def register(template: Template, scan: sitk.Image) -> Registration:
    """Register a scan to a template, whatever its contrast."""
    surrounded = _surround(scan)
    fixed = to_image(template.array, template.affine)
    mask = sitk.Shrink(to_image(template.mask.astype(np.uint8), template.affine), [2, 2, 2])
    rim = sitk.BinaryDilate(mask, [round(_RIM_MM / each) for each in mask.GetSpacing()], sitk.sitkBall)
    levels = [_level(fixed, rim, surrounded, spacing_mm) for spacing_mm in LEVELS_MM]
    candidates = _rank_starts(levels[0], _starts(levels[0].mask, scan))
    for level, kept, iterations in zip(levels, KEPT, ITERATIONS, strict=True):
        found = [_optimise(level, start, iterations) for _, start in candidates[:kept]]
        candidates = _distinct(sorted(found, key=lambda each: each[0]))
    metric, transform = candidates[0]
    return Registration(matrix=to_matrix(transform), mutual_information=-metric)


def _surround(scan: sitk.Image) -> sitk.Image:
    """Cap the brightness of fat and add air on every side.

    Without air the metric is read only where the images meet, and is best where a thin slab meets the template least;
    without the cap, bright scalp takes most bins of the histogram.
    """
    small = sitk.GetArrayFromImage(coarsen(scan, LEVELS_MM[0]))
    head = sitk.GetArrayFromImage(_tissue(scan)) > 0
    cap = float(np.percentile(small[head] if head.any() else small, _CAP_PERCENTILE))
    margin = [round(_MARGIN_MM / each) for each in scan.GetSpacing()]
    return sitk.ConstantPad(sitk.Minimum(scan, cap), margin, margin, 0.0)


def _tissue(scan: sitk.Image) -> sitk.Image:
    """Return where a scan is brighter than air, on the coarsest grid."""
    return head_mask(coarsen(scan, LEVELS_MM[0]))


def _level(fixed: sitk.Image, rim: sitk.Image, scan: sitk.Image, spacing_mm: float) -> _Level:
    """Bring template, mask with rim, and scan to one resolution."""
    small_fixed, small_scan = (
        sitk.SmoothingRecursiveGaussian(coarsen(image, spacing_mm), spacing_mm / 2) for image in (fixed, scan)
    )
    mask = sitk.Resample(rim, small_fixed, sitk.Transform(), sitk.sitkNearestNeighbor)
    return _Level(small_fixed, mask, small_scan)


def _starts(brain_mask: sitk.Image, scan: sitk.Image) -> list[sitk.Euler3DTransform]:
    """Return starts that bring the template's brain to both centres of the scan, shifted and nodding."""
    brain = _centre_mm(sitk.GetArrayFromImage(brain_mask) > 0, affine_of(brain_mask))
    tissue = _tissue(scan)
    head, affine = sitk.GetArrayFromImage(tissue) > 0, affine_of(tissue)
    centres = (_centre_mm(np.ones_like(head), affine), _centre_mm(head, affine))
    starts = []
    for centre, shift_mm, pitch in product(centres, _SHIFTS_MM, _PITCHES_RAD):
        start = sitk.Euler3DTransform()
        start.SetCenter(brain.tolist())
        start.SetRotation(pitch, 0.0, 0.0)
        start.SetTranslation((centre + np.array([0.0, 0.0, shift_mm]) - brain).tolist())
        starts.append(start)
    return starts


def _centre_mm(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centre of mass of a mask (Z, Y, X) in LPS mm; the centre of the grid if the mask is empty."""
    z, y, x = ndimage.center_of_mass(mask if mask.any() else np.ones_like(mask))
    return np.asarray(affine[:3, :3] @ (x, y, z) + affine[:3, 3])


def _rank_starts(level: _Level, starts: list[sitk.Euler3DTransform]) -> list[tuple[float, sitk.Euler3DTransform]]:
    """Return (metric, start), best first; a start whose brain lies outside the scan comes last."""
    method = _method(level)
    scored = []
    for start in starts:
        method.SetInitialTransform(start)
        scored.append((float(method.MetricEvaluate(level.fixed, level.moving)), start))
    return sorted(scored, key=lambda each: each[0])


def _optimise(level: _Level, start: sitk.Euler3DTransform, iterations: int) -> tuple[float, sitk.Euler3DTransform]:
    """Return the metric (negative mutual information) and the transform at the end of a descent."""
    transform = sitk.Euler3DTransform(start)
    method = _method(level)
    method.SetOptimizerAsRegularStepGradientDescent(_FIRST_STEP_MM, _LAST_STEP_MM, iterations, 0.5, 1e-5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, True)  # noqa: FBT003 - SimpleITK takes `inPlace` by position only
    method.Execute(level.fixed, level.moving)
    return float(method.GetMetricValue()), transform


def _distinct(
    candidates: list[tuple[float, sitk.Euler3DTransform]],
) -> list[tuple[float, sitk.Euler3DTransform]]:
    """Drop a candidate (they come best first) that puts the head where a better one has put it already."""
    kept: list[tuple[float, sitk.Euler3DTransform]] = []
    places: list[NDArray[np.float64]] = []
    for candidate in candidates:
        place = np.array([candidate[1].TransformPoint(corner) for corner in product((-70.0, 70.0), repeat=3)])
        if all(np.linalg.norm(place - other, axis=1).max() > _SAME_PLACE_MM for other in places):
            kept.append(candidate)
            places.append(place)
    return kept


def _method(level: _Level) -> sitk.ImageRegistrationMethod:
    """Return a registration method that reads every voxel inside the mask, in one thread."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(WORK_UNITS)
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(level.mask)
    method.SetInterpolator(sitk.sitkLinear)
    return method
