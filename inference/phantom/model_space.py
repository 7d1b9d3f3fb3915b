"""Render what preprocessing would yield of a visit, and what is true at each of its voxels.

A voxel's point is taken back through what registration leaves, through slow growth of the brain and through the
patient's deformation into the template, where tissue and lesion are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from inference.phantom.anatomy import to_template
from inference.phantom.composition import BRAIN, LESION, fractions_at, mix, noise_seed, share, ungrow
from inference.phantom.grid import HEAD_CENTRE_MM, Grid
from inference.phantom.heads import tissue_maps
from inference.phantom.scanner import add_rician_noise, bias_field, rotation_matrix
from inference.phantom.signal import Tissue
from inference.phantom.tissue import TEMPLATE_ORIGIN_MM, TEMPLATE_SHAPE, sample

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom.patient import PhantomPatient, Visit
    from inference.phantom.scanner import Nuisance
    from inference.phantom.tissue import TissueMaps

SHAPE = (48, 64, 48)  # (Z, Y, X)
_NEAR_BRAIN_MM = 14.0  # deformation, growth and misregistration move the surface by less


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Scene:
    """What a visit's head is made of in model space: `fractions` belong to `points_mm` (3, N), voxels `near` (N,)."""

    near: NDArray[np.intp]
    points_mm: NDArray[np.float32]
    fractions: dict[Tissue, NDArray[np.float32]]


def render_model_space(
    patient: PhantomPatient, visit_index: int, role: str = "FLAIR", *, shape: tuple[int, int, int] = SHAPE
) -> NDArray[np.float32]:
    """Render what preprocessing would yield: template space stretched to `shape`, skull removed, 0 to 1.

    Misregistration and shading as measured (`residuals.json`), noise and thick slices remain. Fast enough for training;
    deterministic, so processes need only seeds.

    Returns:
        The volume (Z, Y, X): z upwards, y backwards, x to the patient's left.

    Raises:
        IndexError: if there is no such visit.
        KeyError: if the role is none of T1, T1c, T2, FLAIR.
    """
    visit, nuisance = patient.visits[visit_index], patient.visits[visit_index].nuisance
    sequence = patient.population.sequence(role, volumetric=nuisance.volumetric, field_t=visit.scanner.field_t)
    scene = _scene(patient, visit, shape)
    brain_only = {tissue: scene.fractions[tissue] for tissue in BRAIN if tissue in scene.fractions}
    shaded = mix(brain_only, sequence, visit.scanner.field_t) * bias_field(nuisance.residual_bias, scene.points_mm)
    signal = _spread(shaded, scene.near, shape)
    brain = _spread(share(scene.fractions, BRAIN), scene.near, shape)
    if not nuisance.volumetric:
        sigma = 0.3 * nuisance.thick_slice_mm * shape[0] / TEMPLATE_SHAPE[0]
        signal = ndimage.gaussian_filter1d(signal, sigma, axis=0)
    noise_sd = nuisance.noise_fraction / max(1.0, _voxel_mm(shape))  # averaged down by the resampling
    volume = add_rician_noise(signal, noise_sd, noise_seed(visit, role))
    inside = brain > 0.5
    low, high = float(volume[inside].min()), float(volume[inside].max())
    return np.asarray(np.where(inside, (volume - low) / (high - low), 0), dtype=np.float32)


def model_space_masks(
    patient: PhantomPatient, visit_index: int, *, shape: tuple[int, int, int] = SHAPE
) -> dict[str, NDArray[np.float32]]:
    """Return the shares `lesion` (enhancing or not), `cavity` and `brain`, each (Z, Y, X), 0 to 1.

    They lie exactly where `render_model_space` draws them: what registration leaves has moved both alike. The image is
    cut off where `brain` is at most a half.

    Raises:
        IndexError: if there is no such visit.
    """
    scene = _scene(patient, patient.visits[visit_index], shape)
    groups = {"lesion": LESION, "cavity": (Tissue.CAVITY,), "brain": BRAIN}
    return {name: _spread(share(scene.fractions, tissues), scene.near, shape) for name, tissues in groups.items()}


def change_mask(
    patient: PhantomPatient, older: int, newer: int, *, shape: tuple[int, int, int] = SHAPE
) -> NDArray[np.bool_]:
    """Return (Z, Y, X) where the lesion's share truly differs by more than a half between two visits.

    Both lesions are laid into the newer visit's head as perfect registration would place it: neither misregistration
    nor growth of the brain is a change.

    Raises:
        IndexError: if there is no such visit.
    """
    near, points = _model_points(shape, patient.population.head)
    template_points = to_template(patient.anatomy, ungrow(patient, patient.visits[newer], points))
    shares = []
    for index in (older, newer):
        fractions = fractions_at(
            patient, patient.visits[index], template_points, _maps(shape, patient), edge_mm=_edge_mm(shape)
        )
        shares.append(share(fractions, LESION))
    return np.asarray(np.abs(_spread(shares[1] - shares[0], near, shape)) > 0.5)


def _scene(patient: PhantomPatient, visit: Visit, shape: tuple[int, int, int]) -> _Scene:
    """Find what stands at each voxel near the brain, after what registration leaves."""
    near, points = _model_points(shape, patient.population.head)
    template_points = to_template(patient.anatomy, ungrow(patient, visit, _misregister(visit.nuisance, points)))
    fractions = fractions_at(patient, visit, template_points, _maps(shape, patient), edge_mm=_edge_mm(shape))
    return _Scene(near=near, points_mm=points, fractions=fractions)


def _misregister(nuisance: Nuisance, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take points (3, N) of model space to where registration really found them in the unmoved head."""
    centre = HEAD_CENTRE_MM[:, None].astype(np.float32)
    turn = rotation_matrix(nuisance.residual_rotation_deg).astype(np.float32)
    shift = np.asarray(nuisance.residual_translation_mm, dtype=np.float32)[:, None]
    return np.asarray(turn @ (points_mm - centre) + centre + shift, dtype=np.float32)


def _spread(
    values: NDArray[np.float32] | np.float32, near: NDArray[np.intp], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Lay the values (N,) of the voxels `near` into a volume (Z, Y, X) of zeros."""
    volume = np.zeros(shape, dtype=np.float32)
    volume.ravel()[near] = values
    return volume


def _voxel_mm(shape: tuple[int, int, int]) -> float:
    """Return the longest edge of a voxel."""
    return max(full / part for full, part in zip(TEMPLATE_SHAPE, shape, strict=True))


def _edge_mm(shape: tuple[int, int, int]) -> float:
    """Return the width of partial volume at the lesion's edge."""
    return max(1.5, _voxel_mm(shape))


def _maps(shape: tuple[int, int, int], patient: PhantomPatient) -> TissueMaps:
    """Return the tissue maps that are fine enough for a shape."""
    return tissue_maps(2 if _voxel_mm(shape) > 1.4 else 1, head=patient.population.head)


@lru_cache(maxsize=4)
def _model_points(shape: tuple[int, int, int], head: Path | None) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the flat indices (N,) near the brain and their template points (3, N); fields of view coincide."""
    factors = [full / part for full, part in zip(TEMPLATE_SHAPE, shape, strict=True)]
    affine = np.diag([*factors[::-1], 1.0])
    affine[:3, 3] = np.asarray(TEMPLATE_ORIGIN_MM) + (np.asarray(factors[::-1]) - 1) / 2
    points = Grid(affine=affine, shape=shape).points_mm()
    maps = tissue_maps(2, head=head)
    distance = sample(maps.distance_mm, maps.spacing_mm, points, outside=60.0)
    near = np.flatnonzero(distance < _NEAR_BRAIN_MM)
    return near, np.ascontiguousarray(points[:, near])
