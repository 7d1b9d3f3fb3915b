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


def render(
    patient: PhantomPatient, visit_index: int, role: str, *, grid: Grid, volumetric: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Render one contrast on a scanner grid.

    Returns:
        The volume (Z, Y, X), about 0 to 4000 without unit, and the affine from (x, y, z) indices to LPS millimetres.

    Raises:
        IndexError: if there is no such visit.
        KeyError: if the role is none of T1, T1c, T2, FLAIR.
    """
    visit = patient.visits[visit_index]
    sequence = sequence_for(role, volumetric=volumetric, field_t=visit.scanner.field_t)
    scanner_points = grid.points_mm()
    thickness = round(float(np.linalg.norm(grid.affine[:3, 2])))
    maps = tissue_maps(1, through_plane_mm=thickness)
    fractions = _fractions(patient, visit, _unpose(visit, scanner_points), maps, edge_mm=max(1.5, thickness / 2))
    signal = _mix(fractions, sequence, visit.scanner.field_t)
    signal *= WHITE_MATTER_LEVEL * visit.nuisance.gain
    signal *= bias_field(visit.nuisance, scanner_points)
    sd = visit.nuisance.noise_fraction * WHITE_MATTER_LEVEL * visit.nuisance.gain
    seed = _noise_seed(visit, role)
    return add_rician_noise(signal, sd, seed).reshape(grid.shape), grid.affine.copy()


def ground_truth(patient: PhantomPatient, visit_index: int, *, grid: Grid) -> dict[str, NDArray[np.bool_]]:
    """Return the masks `brain`, `lesion`, `enhancing` and `cavity`, each (Z, Y, X), on a scanner grid."""
    visit = patient.visits[visit_index]
    maps = tissue_maps(1)
    fractions = _fractions(patient, visit, _unpose(visit, grid.points_mm()), maps, edge_mm=1.0)
    lesion = fractions[Tissue.TUMOUR] + fractions[Tissue.ENHANCING]
    masks = {
        "brain": sum((fractions[tissue] for tissue in _BRAIN), start=np.float32(0)),
        "lesion": lesion,
        "enhancing": fractions[Tissue.ENHANCING],
        "cavity": fractions[Tissue.CAVITY],
    }
    return {name: (values > 0.5).reshape(grid.shape) for name, values in masks.items()}


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


def _fractions(
    patient: PhantomPatient, visit: Visit, points_mm: NDArray[np.float32], maps: TissueMaps, *, edge_mm: float
) -> dict[Tissue, NDArray[np.float32]]:
    """Return every tissue's share at points (3, N) of the unmoved head."""
    centre = _HEAD_CENTRE_MM[:, None].astype(np.float32)
    growth = np.float32(1 + patient.dials.brain_growth_per_year * visit.years_to_last_visit)
    template_points = to_template(patient.anatomy, (points_mm - centre) / growth + centre)
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
