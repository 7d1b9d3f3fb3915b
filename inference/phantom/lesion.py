"""The lesion, the resection cavity and the scar: where they lie and what fraction of each voxel they take.

A lesion is the level set `radius(x) <= R` of an irregular shape fixed per patient, confined to parenchyma; R is solved
so that the set has the wanted volume. Site, shape, texture and enhancement are drawn without knowledge of growth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from inference.phantom.heads import tissue_maps
from inference.phantom.signal import Tissue
from inference.phantom.tissue import TEMPLATE_ORIGIN_MM, sample

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom.population import Population

MAX_VOLUME_ML = 120.0  # slow shrinkers run backwards would outgrow the head
_REACH_MM = 52.0  # how far from its centre a lesion may extend


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shape:
    """A star-like shape: direction-dependent stretch as a sum of plane waves on the unit sphere."""

    centre_mm: NDArray[np.float32]  # (3,) template LPS
    waves: NDArray[np.float32]  # (K, 3)
    phases: NDArray[np.float32]  # (K,)
    amplitude: float

    def radius_mm(self, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the shape-normalised distance of points (3, N) from the centre."""
        offset = points_mm - self.centre_mm[:, None]
        length = np.sqrt((offset**2).sum(0)) + np.float32(1e-3)
        wave = np.cos(self.waves @ (offset / length) + self.phases[:, None]).mean(0)
        return np.asarray(length / (1 + self.amplitude * wave), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Lesion:
    """Everything about a patient's disease that the images show, except its size."""

    shape: Shape
    cavity: Shape
    cavity_radius_mm: float  # at surgery
    cavity_final_fraction: float  # of the radius, after shrinking
    cavity_time_constant_years: float
    gliosis_mm: float
    oedema_mm: float
    enhancing_fraction: float  # of the lesion's radius; 0: does not enhance

    def cavity_radius_at(self, years_since_surgery: float) -> float:
        """Return the cavity's radius in millimetres; it shrinks exponentially to its final size."""
        rest = np.exp(-max(years_since_surgery, 0.0) / self.cavity_time_constant_years)
        return float(self.cavity_radius_mm * (self.cavity_final_fraction + (1 - self.cavity_final_fraction) * rest))


def draw_lesion(rng: np.random.Generator, head: Path | None = None) -> Lesion:
    """Draw site, shape, cavity, scar and enhancement; nothing here knows z."""
    sites = _sites_mm(head)
    centre = sites[:, int(rng.integers(sites.shape[1]))]
    cavity_radius = float(rng.uniform(8, 14))
    outward = centre / np.linalg.norm(centre) + 0.35 * rng.standard_normal(3)
    outward /= np.linalg.norm(outward)
    cavity_centre = centre + outward * (cavity_radius + rng.uniform(2, 6))
    return Lesion(
        shape=_draw_shape(rng, centre, amplitude=0.55),
        cavity=_draw_shape(rng, cavity_centre, amplitude=0.4),
        cavity_radius_mm=cavity_radius,
        cavity_final_fraction=float(rng.uniform(0.55, 0.95)),
        cavity_time_constant_years=float(rng.uniform(0.3, 1.2)),
        gliosis_mm=float(rng.uniform(1.5, 4.0)),
        oedema_mm=float(rng.uniform(2.0, 6.0)),
        enhancing_fraction=float(rng.choice([0.0, rng.uniform(0.35, 0.75)], p=[0.3, 0.7])),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Texture:
    """How uneven a tumour is inside: the mean shares of looser and of dead tissue, and where they lie."""

    loose_share: float
    necrotic_share: float
    waves_per_mm: NDArray[np.float32]  # (K, 3)
    phases: NDArray[np.float32]  # (K,)

    def pattern(self, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an uneven field (N,) around 1 at points (3, N)."""
        wave = np.cos(self.waves_per_mm @ points_mm + self.phases[:, None]).sum(0) / np.sqrt(self.phases.size / 2)
        return np.asarray(1 + np.float32(0.6) * wave, dtype=np.float32)


def draw_texture(rng: np.random.Generator, population: Population) -> Texture:
    """Draw a tumour's inside; nothing here knows z."""
    waves = rng.standard_normal((8, 3)) * (2 * np.pi / 14)  # about 14 mm from crest to crest
    return Texture(
        loose_share=float(rng.uniform(*population.loose_share)),
        necrotic_share=float(rng.uniform(*population.necrotic_share)),
        waves_per_mm=waves.astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 8).astype(np.float32),
    )


def roughen(
    fractions: dict[Tissue, NDArray[np.float32]], texture: Texture, points_mm: NDArray[np.float32]
) -> dict[Tissue, NDArray[np.float32]]:
    """Replace part of the tumour by looser tissue and part of its core by dead tissue, at template points (3, N)."""
    if not texture.loose_share and not texture.necrotic_share:
        return fractions
    pattern = texture.pattern(points_mm)
    loose = np.clip(texture.loose_share * pattern, 0, 1) * fractions[Tissue.TUMOUR]
    dead = np.clip(texture.necrotic_share * pattern, 0, 1) * fractions[Tissue.ENHANCING]
    return {
        **fractions,
        Tissue.TUMOUR: fractions[Tissue.TUMOUR] - loose,
        Tissue.ENHANCING: fractions[Tissue.ENHANCING] - dead,
        Tissue.MIXED: loose,
        Tissue.NECROSIS: dead,
    }


def _draw_shape(rng: np.random.Generator, centre: NDArray[np.float64], *, amplitude: float) -> Shape:
    waves = rng.standard_normal((6, 3)) * np.array([1.2, 1.2, 2.0, 2.0, 3.5, 3.5])[:, None]
    return Shape(
        centre_mm=np.asarray(centre, dtype=np.float32),
        waves=waves.astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 6).astype(np.float32),
        amplitude=amplitude,
    )


@lru_cache(maxsize=2)
def _sites_mm(head: Path | None) -> NDArray[np.float64]:
    """Return template points (3, N) in the hemispheres' parenchyma, supratentorial, away from midline and surface."""
    maps = tissue_maps(2, head=head)
    tissue = ndimage.gaussian_filter(maps.grey + maps.white, 2.0)
    index = np.argwhere((tissue > 0.85) & (maps.distance_mm < -14)).T[::-1]  # (x, y, z)
    points = index * maps.spacing_mm + np.asarray(TEMPLATE_ORIGIN_MM)[:, None]
    above = (np.abs(points[0]) > 20) & (points[2] > 8)
    return np.asarray(points[:, above], dtype=np.float64)


def lesion_radius_mm(lesion: Lesion, volume_ml: float, *, cavity_radius_mm: float, head: Path | None = None) -> float:
    """Return the level R whose set, inside parenchyma and outside the cavity, has `volume_ml` (at most the maximum)."""
    maps = tissue_maps(2, head=head)
    step = int(maps.spacing_mm)
    wanted = min(volume_ml, MAX_VOLUME_ML)
    ball_mm = (wanted * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    reach_mm = step * round(min(_REACH_MM, 2.5 * ball_mm + 12) / step)  # room for fluid and cavity in the way
    axis = np.arange(-reach_mm, reach_mm + 1, step, dtype=np.float32)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()]) + lesion.shape.centre_mm[:, None]
    tissue = sample(maps.grey + maps.white, maps.spacing_mm, points, outside=0.0)
    tissue *= lesion.cavity.radius_mm(points) > cavity_radius_mm
    radius = lesion.shape.radius_mm(points)
    order = np.argsort(radius)
    volumes_ml = np.cumsum(tissue[order]) * (step**3 / 1000)
    if wanted <= volumes_ml[radius[order].searchsorted(4.0)]:  # too few voxels to integrate: a whole star
        return float((wanted * 1000 * 3 / (4 * np.pi) / _mean_cubed_stretch(lesion.shape)) ** (1 / 3))
    return float(np.interp(wanted, volumes_ml, radius[order]))


def _mean_cubed_stretch(shape: Shape) -> float:
    """Return the volume of the star of level 1, relative to a ball of radius 1."""
    turns = np.arange(400) + 0.5
    z = 1 - turns / 200
    angle = turns * np.pi * (1 + 5**0.5)
    directions = np.stack([np.cos(angle) * np.sqrt(1 - z**2), np.sin(angle) * np.sqrt(1 - z**2), z])
    wave = np.cos(shape.waves @ directions + shape.phases[:, None]).mean(0)
    return float(((1 + shape.amplitude * wave) ** 3).mean())


def add_lesion(
    healthy: dict[Tissue, NDArray[np.float32]],
    lesion: Lesion,
    points_mm: NDArray[np.float32],
    *,
    radius_mm: float,
    cavity_radius_mm: float,
    edge_mm: float,
) -> dict[Tissue, NDArray[np.float32]]:
    """Replace parenchyma by disease at template points (3, N); `edge_mm` is the width of partial volume."""
    reach = max(radius_mm * 1.7 + 3 * lesion.oedema_mm, 1.0)
    cavity_reach = cavity_radius_mm * 1.6 + 4 * lesion.gliosis_mm
    near = _within(points_mm, lesion.shape.centre_mm, reach) | _within(points_mm, lesion.cavity.centre_mm, cavity_reach)
    index = np.flatnonzero(near)
    local = points_mm[:, index]
    part = {tissue: values[index] for tissue, values in healthy.items()}
    _carve_cavity(part, lesion, local, cavity_radius_mm, edge_mm)
    _grow_tumour(part, lesion, local, radius_mm, edge_mm)
    result = {}
    for tissue, values in part.items():
        whole = healthy[tissue].copy() if tissue in healthy else np.zeros(points_mm.shape[1], dtype=np.float32)
        whole[index] = values
        result[tissue] = whole
    return result


def _within(points_mm: NDArray[np.float32], centre_mm: NDArray[np.float32], reach_mm: float) -> NDArray[np.bool_]:
    return np.asarray(((points_mm - centre_mm[:, None]) ** 2).sum(0) < reach_mm**2)


def _carve_cavity(
    part: dict[Tissue, NDArray[np.float32]],
    lesion: Lesion,
    points_mm: NDArray[np.float32],
    cavity_radius_mm: float,
    edge_mm: float,
) -> None:
    """Replace tissue inside the cavity by fluid and the rim around it, fading outwards, by gliosis."""
    depth = lesion.cavity.radius_mm(points_mm) - cavity_radius_mm
    cavity = np.clip(0.5 - depth / edge_mm, 0, 1)
    gliosis = 0.8 * np.exp(-np.maximum(depth, 0) / lesion.gliosis_mm)
    tissue = part[Tissue.GREY] + part[Tissue.WHITE]
    part[Tissue.CAVITY] = cavity * tissue
    part[Tissue.GLIOSIS] = (1 - cavity) * gliosis * tissue
    for each in (Tissue.GREY, Tissue.WHITE):
        part[each] = part[each] * (1 - cavity) * (1 - gliosis)


def _grow_tumour(
    part: dict[Tissue, NDArray[np.float32]],
    lesion: Lesion,
    points_mm: NDArray[np.float32],
    radius_mm: float,
    edge_mm: float,
) -> None:
    """Replace parenchyma and scar by tumour, its inner part by enhancing tumour, and surround it with oedema."""
    depth = lesion.shape.radius_mm(points_mm) - radius_mm
    tumour = np.clip(0.5 - depth / edge_mm, 0, 1)
    core = np.clip(0.5 - (depth + (1 - lesion.enhancing_fraction) * radius_mm) / edge_mm, 0, 1)
    core *= lesion.enhancing_fraction > 0
    strength = 0.6 * min(1.0, radius_mm / 6)
    oedema = strength * np.exp(-np.maximum(depth, 0) / (0.5 * lesion.oedema_mm)) * (1 - tumour)
    bed = part[Tissue.GREY] + part[Tissue.WHITE] + part[Tissue.GLIOSIS]
    part[Tissue.OEDEMA] = oedema * part[Tissue.WHITE]
    part[Tissue.WHITE] = part[Tissue.WHITE] * (1 - oedema)
    for each in (Tissue.GREY, Tissue.WHITE, Tissue.GLIOSIS, Tissue.OEDEMA):
        part[each] = part[each] * (1 - tumour)
    part[Tissue.TUMOUR] = bed * tumour * (1 - core)
    part[Tissue.ENHANCING] = bed * tumour * core
