"""Render a visit: points -> tissue fractions -> signal -> scanner. On the scanner's own grid, or in model space.

A voxel's point is taken back through the head's pose (and, in model space, through what registration leaves), through
slow growth of the brain and through the patient's deformation into the template, where tissue and lesion are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from inference.phantom import lesion as disease
from inference.phantom.anatomy import (
    TEMPLATE_ORIGIN_MM,
    TEMPLATE_SHAPE,
    TissueMaps,
    healthy_fractions,
    may_reach,
    sample,
    tissue_maps,
    to_template,
)
from inference.phantom.scanner import add_rician_noise, bias_field, rotation_matrix
from inference.phantom.signal import Sequence, Tissue, sequence_for, tissue_signal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.phantom.patient import PhantomPatient, Visit

WHITE_MATTER_LEVEL = 400.0  # stored value of white matter at unit gain
_HEAD_CENTRE_MM = np.array([0.0, 17.0, 18.0])  # of the template, LPS
_NEAR_BRAIN_MM = 14.0  # deformation, growth and misregistration move the surface by less
_BRAIN = (
    Tissue.GREY,
    Tissue.WHITE,
    Tissue.CSF,
    Tissue.TUMOUR,
    Tissue.ENHANCING,
    Tissue.OEDEMA,
    Tissue.GLIOSIS,
    Tissue.CAVITY,
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Grid:
    """Where voxels lie: `affine` maps (x, y, z) indices to LPS millimetres in the scanner; `shape` is (Z, Y, X)."""

    affine: NDArray[np.float64]  # (4, 4)
    shape: tuple[int, int, int]

    def points_mm(self) -> NDArray[np.float32]:
        """Return the voxels' centres (3, Z*Y*X) in LPS millimetres."""
        z, y, x = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in self.shape), indexing="ij")
        index = np.stack([x.ravel(), y.ravel(), z.ravel()])
        affine = self.affine.astype(np.float32)
        return np.asarray(affine[:3, :3] @ index + affine[:3, 3:], dtype=np.float32)


def scan_grid(
    *,
    spacing_mm: tuple[float, float, float] = (3.5, 1.0, 1.0),
    shape: tuple[int, int, int] = (44, 224, 192),
    oblique_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """Return an axial grid around the head, tilted about x, y, z. Spacing and shape are (z, y, x)."""
    depth, row, column = spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(oblique_deg) @ np.diag([column, row, depth])
    middle = np.array([(size - 1) / 2 for size in shape[::-1]])
    affine[:3, 3] = _HEAD_CENTRE_MM - affine[:3, :3] @ middle
    return Grid(affine=affine, shape=shape)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scene:
    """What a visit's head is made of on a scanner grid, before a sequence turns it into an image.

    `near` (N,) are the flat indices of the voxels that tissue may reach; `points_mm` (3, N) and `fractions` belong to
    those. All other voxels are air.
    """

    visit: Visit
    grid: Grid
    near: NDArray[np.intp]
    points_mm: NDArray[np.float32]
    fractions: dict[Tissue, NDArray[np.float32]]


def place_head(patient: PhantomPatient, visit_index: int, *, grid: Grid) -> Scene:
    """Place a visit's head on a scanner grid, slices as thick as they are far apart; all contrasts share the scene.

    Raises:
        IndexError: if there is no such visit.
    """
    thickness = round(float(np.linalg.norm(grid.affine[:3, 2])))
    maps = tissue_maps(1, through_plane_mm=thickness)
    return _scene(patient, patient.visits[visit_index], grid, maps, edge_mm=max(1.5, thickness / 2))


def acquire(scene: Scene, role: str, *, volumetric: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Acquire one contrast of a scene.

    Returns:
        The volume (Z, Y, X), about 0 to 4000 without unit, and the affine from (x, y, z) indices to LPS millimetres.

    Raises:
        KeyError: if the role is none of T1, T1c, T2, FLAIR.
    """
    visit, nuisance = scene.visit, scene.visit.nuisance
    shaded = _mix(
        scene.fractions, sequence_for(role, volumetric=volumetric, field_t=visit.scanner.field_t), visit.scanner.field_t
    )
    shaded *= WHITE_MATTER_LEVEL * nuisance.gain
    shaded *= bias_field(nuisance, scene.points_mm)
    signal = np.zeros(scene.grid.shape, dtype=np.float32)
    signal.ravel()[scene.near] = shaded
    sd = nuisance.noise_fraction * WHITE_MATTER_LEVEL * nuisance.gain
    return add_rician_noise(signal, sd, _noise_seed(visit, role)), scene.grid.affine.copy()


def render(
    patient: PhantomPatient, visit_index: int, role: str, *, grid: Grid, volumetric: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Render one contrast on a scanner grid: `place_head`, then `acquire`.

    Returns:
        The volume (Z, Y, X), about 0 to 4000 without unit, and the affine from (x, y, z) indices to LPS millimetres.

    Raises:
        IndexError: if there is no such visit.
        KeyError: if the role is none of T1, T1c, T2, FLAIR.
    """
    return acquire(place_head(patient, visit_index, grid=grid), role, volumetric=volumetric)


def ground_truth(patient: PhantomPatient, visit_index: int, *, grid: Grid) -> dict[str, NDArray[np.bool_]]:
    """Return the masks `brain`, `lesion`, `enhancing` and `cavity`, each (Z, Y, X), on a scanner grid."""
    scene = _scene(patient, patient.visits[visit_index], grid, tissue_maps(1), edge_mm=1.0)
    fractions = scene.fractions
    shares = {
        "brain": sum((fractions[tissue] for tissue in _BRAIN), start=np.float32(0)),
        "lesion": fractions[Tissue.TUMOUR] + fractions[Tissue.ENHANCING],
        "enhancing": fractions[Tissue.ENHANCING],
        "cavity": fractions[Tissue.CAVITY],
    }
    masks = {name: np.zeros(grid.shape, dtype=np.bool_) for name in shares}
    for name, mask in masks.items():
        mask.ravel()[scene.near] = shares[name] > 0.5
    return masks


def render_model_space(
    patient: PhantomPatient, visit_index: int, role: str = "FLAIR", *, shape: tuple[int, int, int] = (48, 64, 48)
) -> NDArray[np.float32]:
    """Render what preprocessing would yield: template space stretched to `shape`, skull removed, 0 to 1.

    About a millimetre and a degree of misregistration, a weak bias field, noise and thick slices remain. Fast enough
    for training; deterministic, so processes need only seeds.

    Returns:
        The volume (Z, Y, X): z upwards, y backwards, x to the patient's left.

    Raises:
        IndexError: if there is no such visit.
        KeyError: if the role is none of T1, T1c, T2, FLAIR.
    """
    visit, nuisance = patient.visits[visit_index], patient.visits[visit_index].nuisance
    sequence = sequence_for(role, volumetric=nuisance.volumetric, field_t=visit.scanner.field_t)
    near, points = _model_points(shape)
    centre = _HEAD_CENTRE_MM[:, None].astype(np.float32)
    turn = rotation_matrix(nuisance.residual_rotation_deg).astype(np.float32)
    shift = np.asarray(nuisance.residual_translation_mm, dtype=np.float32)[:, None]
    moved = turn @ (points - centre) + centre + shift
    voxel_mm = max(full / part for full, part in zip(TEMPLATE_SHAPE, shape, strict=True))
    fractions = _fractions(patient, visit, moved, tissue_maps(2 if voxel_mm > 1.4 else 1), edge_mm=max(1.5, voxel_mm))
    brain_only = {tissue: fractions[tissue] for tissue in _BRAIN}
    shaded = _mix(brain_only, sequence, visit.scanner.field_t) * bias_field(nuisance, points, strength=0.3)
    signal, brain = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    signal.ravel()[near] = shaded
    brain.ravel()[near] = sum(brain_only.values(), start=np.float32(0))
    if not nuisance.volumetric:
        sigma = 0.3 * nuisance.thick_slice_mm * shape[0] / TEMPLATE_SHAPE[0]
        signal = ndimage.gaussian_filter1d(signal, sigma, axis=0)
    noise_sd = nuisance.noise_fraction / max(1.0, voxel_mm)  # averaged down by the resampling
    volume = add_rician_noise(signal, noise_sd, _noise_seed(visit, role))
    inside = brain > 0.5
    low, high = float(volume[inside].min()), float(volume[inside].max())
    return np.asarray(np.where(inside, (volume - low) / (high - low), 0), dtype=np.float32)


@lru_cache(maxsize=4)
def _model_points(shape: tuple[int, int, int]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the flat indices (N,) near the brain and their template points (3, N); fields of view coincide."""
    factors = [full / part for full, part in zip(TEMPLATE_SHAPE, shape, strict=True)]
    affine = np.diag([*factors[::-1], 1.0])
    affine[:3, 3] = np.asarray(TEMPLATE_ORIGIN_MM) + (np.asarray(factors[::-1]) - 1) / 2
    points = Grid(affine=affine, shape=shape).points_mm()
    maps = tissue_maps(2)
    distance = sample(maps.distance_mm, maps.spacing_mm, points, outside=60.0)
    near = np.flatnonzero(distance < _NEAR_BRAIN_MM)
    return near, np.ascontiguousarray(points[:, near])


def _unpose(visit: Visit, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take scanner points (3, N) back to the unmoved head."""
    centre = _HEAD_CENTRE_MM[:, None].astype(np.float32)
    shift = np.asarray(visit.nuisance.translation_mm, dtype=np.float32)[:, None]
    turn = rotation_matrix(visit.nuisance.rotation_deg).astype(np.float32)
    return turn.T @ (points_mm - centre - shift) + centre


def _scene(patient: PhantomPatient, visit: Visit, grid: Grid, maps: TissueMaps, *, edge_mm: float) -> Scene:
    """Find what stands at each voxel; interpolate only where tissue can be, first before and then after deformation."""
    scanner_points = grid.points_mm()
    ungrown = _ungrow(patient, visit, _unpose(visit, scanner_points))
    reach_mm = patient.anatomy.surface_mm
    near = np.flatnonzero(may_reach(maps, ungrown, reach_mm=reach_mm + patient.anatomy.largest_displacement_mm))
    template_points = to_template(patient.anatomy, ungrown[:, near])
    close = may_reach(maps, template_points, reach_mm=reach_mm)
    near, template_points = near[close], template_points[:, close]
    return Scene(
        visit=visit,
        grid=grid,
        near=near,
        points_mm=scanner_points[:, near],
        fractions=_fractions_at(patient, visit, template_points, maps, edge_mm=edge_mm),
    )


def _fractions(
    patient: PhantomPatient, visit: Visit, points_mm: NDArray[np.float32], maps: TissueMaps, *, edge_mm: float
) -> dict[Tissue, NDArray[np.float32]]:
    """Return every tissue's share at points (3, N) of the unmoved head."""
    template_points = to_template(patient.anatomy, _ungrow(patient, visit, points_mm))
    return _fractions_at(patient, visit, template_points, maps, edge_mm=edge_mm)


def _ungrow(patient: PhantomPatient, visit: Visit, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take points (3, N) of the unmoved head to its size at the last visit."""
    centre = _HEAD_CENTRE_MM[:, None].astype(np.float32)
    growth = np.float32(1 + patient.dials.brain_growth_per_year * visit.years_to_last_visit)
    return np.asarray((points_mm - centre) / growth + centre, dtype=np.float32)


def _fractions_at(
    patient: PhantomPatient, visit: Visit, template_points: NDArray[np.float32], maps: TissueMaps, *, edge_mm: float
) -> dict[Tissue, NDArray[np.float32]]:
    """Return every tissue's share at template points (3, N)."""
    cavity_mm = patient.lesion.cavity_radius_at(visit.years_since_surgery)
    radius_mm = disease.lesion_radius_mm(patient.lesion, visit.volume_ml, cavity_radius_mm=cavity_mm)
    return disease.add_lesion(
        healthy_fractions(patient.anatomy, maps, template_points),
        patient.lesion,
        template_points,
        radius_mm=radius_mm,
        cavity_radius_mm=cavity_mm,
        edge_mm=edge_mm,
    )


def _mix(fractions: dict[Tissue, NDArray[np.float32]], sequence: Sequence, field_t: float) -> NDArray[np.float32]:
    """Add the tissues' signals, white matter = 1."""
    white = tissue_signal(Tissue.WHITE, sequence, field_t=field_t)
    total = np.zeros_like(fractions[Tissue.WHITE])
    for tissue, share in fractions.items():
        total += np.float32(tissue_signal(tissue, sequence, field_t=field_t) / white) * share
    return total


def _noise_seed(visit: Visit, role: str) -> int:
    """Return a seed that differs between the contrasts of a visit."""
    return visit.nuisance.noise_seed * 4 + ("T1", "T1c", "T2", "FLAIR").index(role)
