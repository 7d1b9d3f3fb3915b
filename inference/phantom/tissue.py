"""Maps of tissue on the template's grid: what stands where in a head before anyone's deformation. LPS millimetres.

The template (nilearn's MNI152 2009a, 1 mm) has no skull; the layers around a brain are functions of the distance to its
surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from nilearn import datasets
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPLATE_SHAPE = (189, 233, 197)  # (Z, Y, X) at 1 mm
TEMPLATE_ORIGIN_MM = (-98.0, -98.0, -72.0)  # LPS (x, y, z) of voxel (0, 0, 0)
# The distance map is smoothed, looked up at the nearest voxel, and its layers have soft edges.
_DISTANCE_SLACK_MM = 4.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TissueMaps:
    """Template fractions, each (Z, Y, X) float32 on a grid of `spacing_mm`, and the signed distance to the brain."""

    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    distance_mm: NDArray[np.float32]  # negative inside the brain
    spacing_mm: float


@lru_cache(maxsize=1)
def template_maps() -> TissueMaps:
    """Return the maps of the MNI152 template at 1 mm."""
    grey, white, inside = (
        _as_lps(image)
        for image in (
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
            datasets.load_mni152_brain_mask(resolution=1),
        )
    )
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(inside > 0.5, iterations=2))
    return TissueMaps(grey=grey * brain, white=white * brain, distance_mm=signed_distance_mm(brain), spacing_mm=1.0)


def _as_lps(image: object) -> NDArray[np.float32]:
    """Return a nilearn template as (Z, Y, X), x towards the patient's left, y towards the back."""
    values = np.asarray(image.get_fdata(dtype=np.float32))  # type: ignore[attr-defined]  # nilearn is untyped
    return np.ascontiguousarray(values[::-1, ::-1, :].transpose(2, 1, 0))


def signed_distance_mm(brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return millimetres to the surface of the brain's hull: sulci and cisterns are bridged, as the dura does."""
    margin = 20
    coarse = np.pad(brain[::2, ::2, ::2], ((margin, 0), (margin, margin), (margin, margin)), mode="edge")
    hull = ndimage.binary_closing(coarse, iterations=8)
    signed = 2 * (ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull))
    smooth = ndimage.gaussian_filter(signed[margin:, margin:-margin, margin:-margin].astype(np.float32), 0.8)
    index = np.meshgrid(*(np.arange(size) / 2 for size in brain.shape), indexing="ij")
    return np.asarray(ndimage.map_coordinates(smooth, index, order=1, mode="nearest"), dtype=np.float32)


def sample(
    values: NDArray[np.float32], spacing_mm: float, points_mm: NDArray[np.float32], *, outside: float
) -> NDArray[np.float32]:
    """Interpolate a template map (Z, Y, X) linearly at template points (3, N)."""
    origin = np.asarray(TEMPLATE_ORIGIN_MM, dtype=np.float32)[:, None]
    index = ((points_mm - origin) / np.float32(spacing_mm))[::-1]
    return np.asarray(ndimage.map_coordinates(values, index, order=1, mode="constant", cval=outside), dtype=np.float32)


def may_reach(maps: TissueMaps, points_mm: NDArray[np.float32], *, reach_mm: float) -> NDArray[np.bool_]:
    """Tell which template points (3, N) lie within `reach_mm` of the brain's hull; errs on the side of yes."""
    last = np.array(maps.distance_mm.shape[::-1], dtype=np.float32)[:, None] - 1
    origin = np.asarray(TEMPLATE_ORIGIN_MM, dtype=np.float32)[:, None]
    inside = np.clip(points_mm, origin, origin + last * np.float32(maps.spacing_mm))
    beyond_mm = np.abs(points_mm - inside).max(0)
    x, y, z = np.rint((inside - origin) / np.float32(maps.spacing_mm)).astype(np.intp)
    slack_mm = _DISTANCE_SLACK_MM * maps.spacing_mm
    return np.asarray((maps.distance_mm[z, y, x] < reach_mm + slack_mm) & (beyond_mm < reach_mm + slack_mm))
