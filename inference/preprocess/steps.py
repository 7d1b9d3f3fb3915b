"""From a series' volume to the model's space, and from there back onto the series' own slices.

Published order (Tak et al., NEJM AI 2025, released preprocessing code): N4, rigid registration to a template at 1 mm,
skull strip, stretch of the whole field of view to 96 x 128 x 96, min-max to 0..1. Ours: the brain mask is the
template's, which costs nothing in template space; the published one is HD-BET's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from inference.feature_cache import cache_key
from inference.preprocess.bias import GRID_MM, estimate_log_bias
from inference.preprocess.images import coarsen, grid_image, head_mask, resample, to_image
from inference.preprocess.prepared import Preprocessed, PreprocessError, Quality
from inference.preprocess.registration import LEVELS_MM, Registration, register
from inference.preprocess.stretch import normalise, stretch, stretched_affine
from inference.results import QualityFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.preprocess.template import Template
    from inference.volume import Volume

# Enters every cache key: change it whenever the same scan would give another array.
PREPROCESSING_VERSION = "3"  # 2: three classes tell head from air; 3: N4 in one thread on any number of cores
SHAPE = (96, 128, 96)  # (Z, Y, X)
# Share of the template's brain that must lie on tissue of the scan; 11 real scans reach 0.86 to 0.97.
MIN_OVERLAP = 0.5
# Nats, at 3 mm: 11 real scans reach 0.13 to 0.35; noise (0.06) is refused. It asks for structure of a head's size, no
# more: a cylinder (0.12), a ball (0.17) and a head upside down (0.22) pass, one of shuffled slices (0.075) nearly.
MIN_MUTUAL_INFORMATION = 0.08
# Share of the template's brain inside the scanned slab, below which the reader is told.
FULL_COVERAGE = 0.95
THICK_SLICE_MM = 4.0
# Field of view along each axis: less than this is a slab that says nothing of where the head is.
MIN_VIEW_MM = 60.0


def preprocess(volume: Volume, template: Template, *, shape: tuple[int, int, int] = SHAPE) -> Preprocessed:
    """Bring a volume into the model's space, an array of `shape` (Z, Y, X); the same volume gives the same bits.

    Raises:
        PreprocessError: if the volume is empty, or does not come to lie on the template.
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if not high > low:
        raise PreprocessError(f"expected an image, found one value everywhere ({low:g})")
    scan = to_image(volume.array - np.float32(low), volume.affine)
    view_mm = min(size * step for size, step in zip(scan.GetSize(), scan.GetSpacing(), strict=True))
    if view_mm < MIN_VIEW_MM:
        raise PreprocessError(f"expected a field of view of {MIN_VIEW_MM:.0f} mm each way, found {view_mm:.0f} mm")
    log_bias, found = _locate(scan, template)
    quality = _judge(volume, template, scan, matrix=found.matrix, mutual_information=found.mutual_information)
    grid = to_image(template.mask.astype(np.uint8), template.affine)
    bias = np.exp(resample(log_bias, grid, found.matrix, extrapolate=True))
    values = np.asarray(resample(scan, grid, found.matrix) / bias, dtype=np.float32)  # (Z, Y, X) of the template
    affine = stretched_affine(template.affine, template.array.shape, shape)
    brain = resample(grid, grid_image(shape, affine), np.eye(4)) > 0.5
    return Preprocessed(
        array=normalise(stretch(values, shape), brain),
        affine=affine,
        template_to_source=found.matrix,
        quality=quality,
    )


def volume_key(digest: str, role: str, template: Template, shape: tuple[int, int, int]) -> str:
    """Return the cache's name for a scan's volume in the model's space; `digest` is that of the scan's content."""
    return cache_key("volume", digest, role, template.digest, PREPROCESSING_VERSION, "x".join(map(str, shape)))


def to_native(values: NDArray[np.float32], preprocessed: Preprocessed, volume: Volume) -> NDArray[np.float32]:
    """Bring a map (Z, Y, X) from the model's space onto the slices of `volume`, linearly; 0 outside its view."""
    image = to_image(np.asarray(values, dtype=np.float32), preprocessed.affine)
    to_template = np.asarray(np.linalg.inv(preprocessed.template_to_source), dtype=np.float64)
    return resample(image, grid_image(volume.array.shape, volume.affine), to_template)


def _locate(scan: sitk.Image, template: Template) -> tuple[sitk.Image, Registration]:
    """Return the logarithm of the bias field, and where the template lies in the scan."""
    try:
        log_bias = estimate_log_bias(coarsen(scan, GRID_MM))
        return log_bias, register(template, _corrected_coarse(scan, log_bias))
    except RuntimeError as error:  # SimpleITK's only exception, as for an image without any structure
        raise PreprocessError("registration failed: bias field or alignment could not be computed") from error


def _corrected_coarse(scan: sitk.Image, log_bias: sitk.Image) -> sitk.Image:
    """Return the scan without its bias field, at the finest resolution that registration reads."""
    small = coarsen(scan, min(LEVELS_MM))
    bias = np.exp(resample(log_bias, small, np.eye(4), extrapolate=True))
    corrected = sitk.GetImageFromArray(sitk.GetArrayFromImage(small) / bias)
    corrected.CopyInformation(small)
    return corrected


def _judge(
    volume: Volume, template: Template, scan: sitk.Image, *, matrix: NDArray[np.float64], mutual_information: float
) -> Quality:
    """Measure how the scan lies on the template, at 4 mm.

    Raises:
        PreprocessError: if it does not.
    """
    grid = coarsen(to_image(template.mask.astype(np.float32), template.affine), 4.0)
    brain = sitk.GetArrayFromImage(grid) > 0.5
    small = coarsen(scan, 4.0)
    inside = resample(small * 0.0 + 1.0, grid, matrix) > 0.5
    tissue = resample(head_mask(small), grid, matrix) > 0.5
    coverage, overlap = float(inside[brain].mean()), float(tissue[brain].mean())
    if overlap < MIN_OVERLAP:
        raise PreprocessError(f"registration failed: overlap {overlap:.2f} below {MIN_OVERLAP}")
    if mutual_information < MIN_MUTUAL_INFORMATION:
        raise PreprocessError(
            f"registration failed: mutual information {mutual_information:.3f} below {MIN_MUTUAL_INFORMATION}"
        )
    return Quality(
        coverage=coverage,
        overlap=overlap,
        mutual_information=mutual_information,
        flags=_flags(volume, coverage),
    )


def _flags(volume: Volume, coverage: float) -> tuple[QualityFlag, ...]:
    """Return what the reader of a report should know of this scan."""
    flags = []
    if coverage < FULL_COVERAGE:
        flags.append(QualityFlag(code="partial-coverage", message=f"{coverage:.0%} of the brain was scanned"))
    if volume.spacing_mm[0] >= THICK_SLICE_MM:
        flags.append(QualityFlag(code="thick-slices", message=f"slices every {volume.spacing_mm[0]:.1f} mm"))
    return tuple(flags)
