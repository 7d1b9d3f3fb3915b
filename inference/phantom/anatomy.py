"""Individual heads: the MNI152 tissue maps under a smooth random deformation, with a simple skull and scalp around.

All coordinates are LPS millimetres of the template. The template (nilearn's MNI152 2009a, 1 mm) has no skull; the
layers around the brain are functions of the distance to its surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from nilearn import datasets
from scipy import ndimage

from inference.phantom.signal import Tissue

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPLATE_SHAPE = (189, 233, 197)  # (Z, Y, X) at 1 mm
TEMPLATE_ORIGIN_MM = (-98.0, -98.0, -72.0)  # LPS (x, y, z) of voxel (0, 0, 0)
_DURA_MM, _SKIN_MM = 1.2, 2.0
# The distance map is smoothed, looked up at the nearest voxel, and its layers have soft edges.
_DISTANCE_SLACK_MM = 4.0
_LATTICE_MM = 28.0
_LATTICE_SHAPE = (9, 11, 9)  # (Z, Y, X) control points of the deformation


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TissueMaps:
    """Template fractions, each (Z, Y, X) float32 on a grid of `spacing_mm`, and the signed distance to the brain."""

    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    distance_mm: NDArray[np.float32]  # negative inside the brain
    spacing_mm: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Anatomy:
    """What makes a head this patient's: a displacement lattice and the layers' thickness, in millimetres."""

    lattice_mm: NDArray[np.float32]  # (3, Z, Y, X): displacement along x, y, z
    skull_mm: float
    scalp_mm: float

    @property
    def surface_mm(self) -> float:
        """Return how far from the brain's hull the skin ends."""
        return _DURA_MM + self.skull_mm + self.scalp_mm + _SKIN_MM

    @property
    def largest_displacement_mm(self) -> float:
        """Return an upper bound of the deformation: linear interpolation stays within its control points."""
        return float(np.sqrt((self.lattice_mm**2).sum(0)).max())


@lru_cache(maxsize=4)
def tissue_maps(spacing_mm: int = 1, *, through_plane_mm: int = 0) -> TissueMaps:
    """Load the template's tissue fractions at 1 or 2 mm, averaged over `through_plane_mm` along z for thick slices."""
    maps = list(_millimetre_maps())
    if through_plane_mm > 1:
        maps = [ndimage.uniform_filter1d(each, through_plane_mm, axis=0) for each in maps]
    if spacing_mm > 1:
        maps = [
            ndimage.gaussian_filter(each, 0.4 * spacing_mm)[::spacing_mm, ::spacing_mm, ::spacing_mm] for each in maps
        ]
    grey, white, distance = (np.ascontiguousarray(each, dtype=np.float32) for each in maps)
    return TissueMaps(grey=grey, white=white, distance_mm=distance, spacing_mm=float(spacing_mm))


@lru_cache(maxsize=1)
def _millimetre_maps() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return grey matter, white matter and the signed distance to the brain, each (Z, Y, X) at 1 mm."""
    grey, white, inside = (
        _as_lps(image)
        for image in (
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
            datasets.load_mni152_brain_mask(resolution=1),
        )
    )
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(inside > 0.5, iterations=2))
    return grey * brain, white * brain, _signed_distance(brain)


def _as_lps(image: object) -> NDArray[np.float32]:
    """Return a nilearn template as (Z, Y, X), x towards the patient's left, y towards the back."""
    values = np.asarray(image.get_fdata(dtype=np.float32))  # type: ignore[attr-defined]  # nilearn is untyped
    return np.ascontiguousarray(values[::-1, ::-1, :].transpose(2, 1, 0))


def _signed_distance(brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return millimetres to the surface of the brain's hull: sulci and cisterns are bridged, as the dura does."""
    margin = 20
    coarse = np.pad(brain[::2, ::2, ::2], ((margin, 0), (margin, margin), (margin, margin)), mode="edge")
    hull = ndimage.binary_closing(coarse, iterations=8)
    signed = 2 * (ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull))
    smooth = ndimage.gaussian_filter(signed[margin:, margin:-margin, margin:-margin].astype(np.float32), 0.8)
    index = np.meshgrid(*(np.arange(size) / 2 for size in brain.shape), indexing="ij")
    return np.asarray(ndimage.map_coordinates(smooth, index, order=1, mode="nearest"), dtype=np.float32)


def draw_anatomy(rng: np.random.Generator, *, displacement_sd_mm: float = 2.5) -> Anatomy:
    """Draw a head: a smooth displacement of a few millimetres (far below the lattice spacing, so it does not fold)."""
    noise = rng.standard_normal((3, *_LATTICE_SHAPE))
    smooth = np.stack([ndimage.gaussian_filter(each, 0.8) for each in noise])
    smooth *= displacement_sd_mm / smooth.std()
    return Anatomy(
        lattice_mm=smooth.astype(np.float32),
        skull_mm=float(rng.uniform(5, 8)),
        scalp_mm=float(rng.uniform(4, 7)),
    )


def to_template(anatomy: Anatomy, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map patient points (3, N) to template points (3, N), both LPS millimetres in the order x, y, z."""
    origin = np.asarray(TEMPLATE_ORIGIN_MM, dtype=np.float32)[:, None]
    index = ((points_mm - origin) / _LATTICE_MM + 0.5)[::-1]
    shift = [ndimage.map_coordinates(each, index, order=1, mode="nearest") for each in anatomy.lattice_mm]
    return np.asarray(points_mm + np.stack(shift), dtype=np.float32)


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


def healthy_fractions(
    anatomy: Anatomy, maps: TissueMaps, points_mm: NDArray[np.float32]
) -> dict[Tissue, NDArray[np.float32]]:
    """Return how much of each healthy tissue stands at each template point (3, N); what is missing to 1 is air."""
    grey = sample(maps.grey, maps.spacing_mm, points_mm, outside=0.0)
    white = sample(maps.white, maps.spacing_mm, points_mm, outside=0.0)
    distance = sample(maps.distance_mm, maps.spacing_mm, points_mm, outside=60.0)
    dura = _DURA_MM
    bone_end = dura + anatomy.skull_mm
    fat_end = bone_end + anatomy.scalp_mm
    width = np.float32(max(1.0, maps.spacing_mm))
    bone = _layer(distance, dura, bone_end, width)
    marrow = 0.8 * _layer(distance, dura + 0.3 * anatomy.skull_mm, dura + 0.7 * anatomy.skull_mm, width)
    vein = _layer(distance, 0.5, 5.0, width) * _sagittal_sinus(points_mm)
    inside = _layer(distance, -1e3, dura, width)
    fluid = np.maximum(inside - grey - white, 0)
    return {
        Tissue.GREY: grey,
        Tissue.WHITE: white,
        Tissue.CSF: fluid * (1 - vein),
        Tissue.BONE: (bone - np.minimum(marrow, bone)) * (1 - vein),
        Tissue.MARROW: np.minimum(marrow, bone) * (1 - vein),
        Tissue.VEIN: vein,
        Tissue.FAT: _layer(distance, bone_end, fat_end, width),
        Tissue.SKIN: _layer(distance, fat_end, fat_end + _SKIN_MM, width),
    }


def _layer(
    distance_mm: NDArray[np.float32], start_mm: float, end_mm: float, width_mm: np.float32
) -> NDArray[np.float32]:
    """Return 1 between two distances, 0 elsewhere, with linear edges of `width_mm`."""
    after = np.clip((distance_mm - start_mm) / width_mm + 0.5, 0, 1)
    before = np.clip((end_mm - distance_mm) / width_mm + 0.5, 0, 1)
    return np.asarray(after * before, dtype=np.float32)


def _sagittal_sinus(points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 along the midline above the brain, where the superior sagittal sinus runs."""
    x, _, z = points_mm
    return np.asarray(np.clip(1.5 - np.abs(x) / 3.5, 0, 1) * (z > 5), dtype=np.float32)
