"""Render a visit on the scanner's own grid: points -> tissue fractions -> signal -> scanner.

A voxel's point is taken back through the head's pose, through slow growth of the brain and through the patient's
deformation into the template, where tissue and lesion are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom.anatomy import to_template
from inference.phantom.composition import BRAIN, LESION, fractions_at, mix, noise_seed, share, ungrow
from inference.phantom.grid import HEAD_CENTRE_MM, Grid
from inference.phantom.heads import tissue_maps
from inference.phantom.scanner import add_rician_noise, bias_field, rotation_matrix
from inference.phantom.signal import Tissue
from inference.phantom.tissue import TissueMaps, may_reach

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.phantom.patient import PhantomPatient, Visit
    from inference.phantom.population import Population

WHITE_MATTER_LEVEL = 400.0  # stored value of white matter at unit gain


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scene:
    """What a visit's head is made of on a scanner grid, before a sequence turns it into an image.

    `near` (N,) are the flat indices of the voxels that tissue may reach; `points_mm` (3, N) and `fractions` belong to
    those. All other voxels are air.
    """

    visit: Visit
    population: Population
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
    maps = tissue_maps(1, through_plane_mm=thickness, head=patient.population.head)
    return _scene(patient, patient.visits[visit_index], grid, maps, edge_mm=max(1.5, thickness / 2))


def acquire(scene: Scene, role: str, *, volumetric: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Acquire one contrast of a scene.

    Returns:
        The volume (Z, Y, X), about 0 to 4000 without unit, and the affine from (x, y, z) indices to LPS millimetres.

    Raises:
        KeyError: if the role is none of T1, T1c, T2, FLAIR.
    """
    visit, nuisance = scene.visit, scene.visit.nuisance
    shaded = mix(
        scene.fractions,
        scene.population.sequence(role, volumetric=volumetric, field_t=visit.scanner.field_t),
        visit.scanner.field_t,
    )
    shaded *= WHITE_MATTER_LEVEL * nuisance.gain
    shaded *= bias_field(nuisance.bias, scene.points_mm)
    signal = np.zeros(scene.grid.shape, dtype=np.float32)
    signal.ravel()[scene.near] = shaded
    sd = nuisance.noise_fraction * WHITE_MATTER_LEVEL * nuisance.gain
    return add_rician_noise(signal, sd, noise_seed(visit, role)), scene.grid.affine.copy()


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
    scene = _scene(
        patient, patient.visits[visit_index], grid, tissue_maps(1, head=patient.population.head), edge_mm=1.0
    )
    fractions = scene.fractions
    shares = {
        "brain": share(fractions, BRAIN),
        "lesion": share(fractions, LESION),
        "enhancing": fractions[Tissue.ENHANCING],
        "cavity": fractions[Tissue.CAVITY],
    }
    masks = {name: np.zeros(grid.shape, dtype=np.bool_) for name in shares}
    for name, mask in masks.items():
        mask.ravel()[scene.near] = shares[name] > 0.5
    return masks


def _unpose(visit: Visit, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take scanner points (3, N) back to the unmoved head."""
    centre = HEAD_CENTRE_MM[:, None].astype(np.float32)
    shift = np.asarray(visit.nuisance.translation_mm, dtype=np.float32)[:, None]
    turn = rotation_matrix(visit.nuisance.rotation_deg).astype(np.float32)
    return turn.T @ (points_mm - centre - shift) + centre


def _scene(patient: PhantomPatient, visit: Visit, grid: Grid, maps: TissueMaps, *, edge_mm: float) -> Scene:
    """Find what stands at each voxel; interpolate only where tissue can be, first before and then after deformation."""
    scanner_points = grid.points_mm()
    ungrown = ungrow(patient, visit, _unpose(visit, scanner_points))
    reach_mm = patient.anatomy.surface_mm
    near = np.flatnonzero(may_reach(maps, ungrown, reach_mm=reach_mm + patient.anatomy.largest_displacement_mm))
    template_points = to_template(patient.anatomy, ungrown[:, near])
    close = may_reach(maps, template_points, reach_mm=reach_mm)
    near, template_points = near[close], template_points[:, close]
    return Scene(
        visit=visit,
        population=patient.population,
        grid=grid,
        near=near,
        points_mm=scanner_points[:, near],
        fractions=fractions_at(patient, visit, template_points, maps, edge_mm=edge_mm),
    )
