"""Individual heads: maps of tissue under a smooth random deformation, with a simple skull and scalp around.

All coordinates are LPS millimetres of the template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from inference.phantom.grid import HEAD_CENTRE_MM
from inference.phantom.heads import tissue_maps
from inference.phantom.signal import Tissue
from inference.phantom.tissue import TEMPLATE_ORIGIN_MM, TissueMaps, sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.phantom.population import Population

_DURA_MM, _SKIN_MM = 1.2, 2.0
_VENTRICLES_MM, _CORTEX_MM = 22.0, 15.0
_LATTICE_MM = 28.0
_LATTICE_SHAPE = (9, 11, 9)  # (Z, Y, X) control points of the deformation


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Anatomy:
    """What makes a head this patient's: a displacement lattice and the layers' thickness, in millimetres."""

    lattice_mm: NDArray[np.float32]  # (3, Z, Y, X): displacement along x, y, z
    skull_mm: float
    scalp_mm: float
    ventricle_expansion: float = 0.0
    atrophy: float = 0.0

    @property
    def surface_mm(self) -> float:
        """Return how far from the brain's hull the skin ends."""
        return _DURA_MM + self.skull_mm + self.scalp_mm + _SKIN_MM

    @property
    def largest_displacement_mm(self) -> float:
        """Return an upper bound of the deformation: linear interpolation stays within its control points."""
        lattice_mm = float(np.sqrt((self.lattice_mm**2).sum(0)).max())
        return lattice_mm + self.ventricle_expansion * _VENTRICLES_MM * float(np.exp(-0.5))


def draw_anatomy(rng: np.random.Generator, population: Population) -> Anatomy:
    """Draw a head: a smooth displacement of a few millimetres (far below the lattice spacing, so it does not fold)."""
    noise = rng.standard_normal((3, *_LATTICE_SHAPE))
    smooth = np.stack([ndimage.gaussian_filter(each, 0.8) for each in noise])
    smooth *= population.displacement_sd_mm / smooth.std()
    return Anatomy(
        lattice_mm=smooth.astype(np.float32),
        skull_mm=float(rng.uniform(5, 8)),
        scalp_mm=float(rng.uniform(4, 7)),
        ventricle_expansion=population.ventricle_expansion,
        atrophy=population.atrophy,
    )


def to_template(anatomy: Anatomy, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map patient points (3, N) to template points (3, N), both LPS millimetres in the order x, y, z."""
    origin = np.asarray(TEMPLATE_ORIGIN_MM, dtype=np.float32)[:, None]
    index = ((points_mm - origin) / _LATTICE_MM + 0.5)[::-1]
    shift = [ndimage.map_coordinates(each, index, order=1, mode="nearest") for each in anatomy.lattice_mm]
    moved = np.asarray(points_mm + np.stack(shift), dtype=np.float32)
    return _inwards(moved, anatomy.ventricle_expansion) if anatomy.ventricle_expansion else moved


def _inwards(points_mm: NDArray[np.float32], expansion: float) -> NDArray[np.float32]:
    """Move points (3, N) towards the ventricles, so that the head they are looked up for has larger ones."""
    offset = points_mm - HEAD_CENTRE_MM[:, None].astype(np.float32)
    pull = np.float32(expansion) * np.exp(-(offset**2).sum(0) / np.float32(2 * _VENTRICLES_MM**2))
    return np.asarray(points_mm - pull * offset, dtype=np.float32)


def rigid_part(anatomy: Anatomy) -> NDArray[np.float64]:
    """Return the pose (6,) that undoes most of a deformation: degrees about x, y, z, then mm at the head's centre.

    This is where registration of this head to the template should end, least squares over the brain of the template.
    """
    points, solver = _rigid_solver()
    displacement = to_template(anatomy, points) - points
    pose = -solver @ displacement.ravel().astype(np.float64)
    return np.asarray(np.concatenate([np.degrees(pose[:3]), pose[3:]]))


@lru_cache(maxsize=1)
def _rigid_solver() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return points (3, N) of the template's brain, 12 mm apart, and what finds a pose (6, 3N) from displacements."""
    maps = tissue_maps(2)
    index = np.argwhere(maps.distance_mm[::6, ::6, ::6] < 0).T[::-1] * 6  # (x, y, z)
    points = index * maps.spacing_mm + np.asarray(TEMPLATE_ORIGIN_MM)[:, None]
    x, y, z = points - HEAD_CENTRE_MM[:, None]
    zero, one = np.zeros_like(x), np.ones_like(x)
    turned = np.stack([[zero, -z, y], [z, zero, -x], [-y, x, zero]])  # (3 angles, 3 axes, N), small angles
    shifted = np.stack([[one, zero, zero], [zero, one, zero], [zero, zero, one]])
    solver = np.linalg.pinv(np.concatenate([turned, shifted]).reshape(6, -1).T)
    return points.astype(np.float32), np.asarray(solver, dtype=np.float64)


def healthy_fractions(
    anatomy: Anatomy, maps: TissueMaps, points_mm: NDArray[np.float32]
) -> dict[Tissue, NDArray[np.float32]]:
    """Return how much of each healthy tissue stands at each template point (3, N); what is missing to 1 is air."""
    grey = sample(maps.grey, maps.spacing_mm, points_mm, outside=0.0)
    white = sample(maps.white, maps.spacing_mm, points_mm, outside=0.0)
    distance = sample(maps.distance_mm, maps.spacing_mm, points_mm, outside=60.0)
    if anatomy.atrophy:
        grey = grey * (1 - np.float32(anatomy.atrophy) * np.clip(1 + distance / _CORTEX_MM, 0, 1))
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
