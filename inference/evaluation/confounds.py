"""Variants of a phantom cohort that tell what order learning feeds on: the lesion, or time-directed nuisance.

    lesion-masked   the lesion of all visits is painted over, alike in all of them: order must come from elsewhere
    lesion-only     everything but the lesion is the same in all visits: order must come from the lesion
    stable          nothing in the head is directed in time: order accuracy must be one half
    same-scanner    all visits as the newest visit's machine and protocol would have seen them

A hole must not tell how large the lesion was: it is the union over the visits, dilated, with one content for all. Nor
must brightness: scans come scaled to their brightest voxel, which is often disease, and are scaled anew without it.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from inference.phantom import Dials, make_patient, model_space_masks, render_model_space
from inference.training.cohort import write_cohort
from inference.training.phantoms import drawn, in_cohort, last_visits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom import PhantomPatient, Visit
    from inference.training.cohort import Cohort, PatientScans

DILATION_VOXELS = 2  # about 8 mm in the small model's space: oedema fades within it
_TOUCHED = 0.05  # share of a voxel that is lesion
_FILL_SIGMA_VOXELS = 3.0
_EMPTY = 1e-6
_DARKEST = 1 / 255  # 0 would mean "not brain", also after rounding to 8 bits
_ROBUST = (1.0, 99.0)  # percentiles of the untouched brain: they become 0 and
_BRIGHT = 0.5  # which leaves room above for disease


class Confound(StrEnum):
    """Which variant of the cohort."""

    FULL = "full"
    LESION_MASKED = "lesion-masked"
    LESION_ONLY = "lesion-only"
    STABLE = "stable"
    SAME_SCANNER = "same-scanner"


def hole_of(masks: NDArray[np.bool_] | NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return (Z, Y, X): where any visit's lesion, masks or shares (T, Z, Y, X), or its dilated surround may lie."""
    union = np.any(np.asarray(masks, dtype=np.float32) > _TOUCHED, axis=0)
    return np.asarray(ndimage.binary_dilation(union, iterations=DILATION_VOXELS), dtype=np.bool_)


def mask_lesion(
    volumes: NDArray[np.float32], masks: NDArray[np.bool_] | NDArray[np.float32], *, seed: int = 0
) -> NDArray[np.float32]:
    """Paint the lesion over in all visits of a patient, with the same brain and the same noise in each of them.

    Args:
        volumes: scans (T, Z, Y, X), 0..1, 0 outside the brain.
        masks: where each visit's lesion is, or its share of each voxel, (T, Z, Y, X).
        seed: of the noise.
    """
    hole = hole_of(masks)
    scaled = _rescale(volumes, hole)
    if not hole.any():
        return scaled
    fill = _fill(scaled, hole, seed)
    return np.where(hole & (volumes > 0), fill, scaled).astype(np.float32)


def keep_lesion(volumes: NDArray[np.float32], masks: NDArray[np.bool_] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Give all visits (T, Z, Y, X) of a patient one brain, their mean; only the lesion and its surround differ."""
    hole = hole_of(masks)
    scaled = _rescale(volumes, hole)
    brain = (volumes > 0).all(axis=0)
    return np.asarray(np.where(hole, scaled, scaled.mean(axis=0)) * brain, dtype=np.float32)


def render_confound_cohort(
    folder: Path,
    seeds: Sequence[int],
    *,
    kind: Confound,
    shape: tuple[int, int, int],
    n_visits: int | None = None,
    workers: int = 2,
    advance: Callable[[], None] = lambda: None,
) -> Cohort:
    """Render a variant of the patients of `seeds` into `folder`; `advance` is called after each patient."""
    draw = partial(confound_patient, kind=Confound(kind), shape=shape, n_visits=n_visits)
    return write_cohort(folder, drawn(draw, seeds, workers=workers, advance=advance), synthetic=True)


def confound_patient(
    seed: int, *, kind: Confound, shape: tuple[int, int, int], n_visits: int | None = None
) -> PatientScans:
    """Render the last scans of one patient of a variant, FLAIR in the model's space, 0..1 as 8 bits."""
    patient = variant(seed, kind, n_visits)
    visits = last_visits(patient)
    volumes = np.stack([render_model_space(patient, visit, shape=shape) for visit in visits])
    if kind in (Confound.LESION_MASKED, Confound.LESION_ONLY):
        masks = np.stack([model_space_masks(patient, visit, shape=shape)["lesion"] for visit in visits])
        masked = kind is Confound.LESION_MASKED
        volumes = mask_lesion(volumes, masks, seed=seed) if masked else keep_lesion(volumes, masks)
    return in_cohort(patient, volumes)


def variant(seed: int, kind: Confound, n_visits: int | None) -> PhantomPatient:
    """Make the patient of a seed as the variant wants it."""
    if kind is Confound.STABLE:
        still = Dials(slope_mean_per_year=0.0, slope_per_z_per_year=0.0, brain_growth_per_year=0.0)
        patient = make_patient(seed, dials=still, n_visits=n_visits)
        return replace(patient, lesion=replace(patient.lesion, cavity_final_fraction=1.0))
    patient = make_patient(seed, n_visits=n_visits)
    if kind is Confound.SAME_SCANNER:
        newest = patient.visits[-1]
        return replace(patient, visits=tuple(_as_seen_by(newest, visit) for visit in patient.visits))
    return patient


def _as_seen_by(like: Visit, visit: Visit) -> Visit:
    """Return a visit on the machine and with the protocol of another; pose, shading and noise stay its own."""
    nuisance = replace(
        visit.nuisance,
        gain=like.nuisance.gain,
        noise_fraction=like.nuisance.noise_fraction,
        thick_slice_mm=like.nuisance.thick_slice_mm,
        volumetric=like.nuisance.volumetric,
    )
    return replace(visit, scanner=like.scanner, nuisance=nuisance)


def _rescale(volumes: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale each scan (T, Z, Y, X) to percentiles of its brain outside the hole: brightness then knows no lesion."""
    scaled = np.zeros_like(volumes)
    for each, into in zip(volumes, scaled, strict=True):
        brain = each > 0
        outside = brain & ~hole
        low, high = np.percentile(each[outside], _ROBUST) if outside.any() else (0.0, 1.0)
        linear = _BRIGHT * (each - low) / max(high - low, _EMPTY)
        into[brain] = np.clip(linear[brain], _DARKEST, 1.0)
    return scaled


def _fill(scaled: NDArray[np.float32], hole: NDArray[np.bool_], seed: int) -> NDArray[np.float32]:
    """Return (Z, Y, X): the local mean of the brain around the hole, over all visits, with noise like that brain's."""
    outside = (scaled > 0) & ~hole
    weight = ndimage.gaussian_filter(outside.sum(axis=0).astype(np.float32), _FILL_SIGMA_VOXELS)
    total = ndimage.gaussian_filter((scaled * outside).sum(axis=0), _FILL_SIGMA_VOXELS)
    everywhere = scaled[outside].mean() if outside.any() else 0.5
    local = np.where(weight > _EMPTY, total / np.maximum(weight, _EMPTY), everywhere)
    grain = np.stack([each - ndimage.gaussian_filter(each, 1.0) for each in scaled])
    near = outside & ndimage.binary_dilation(hole, iterations=2 * DILATION_VOXELS)
    noise_sd = float(grain[near].std()) if near.any() else 0.0
    noise = noise_sd * np.random.default_rng(seed).standard_normal(hole.shape)
    return np.asarray(np.clip(local + noise, _DARKEST, 1.0), dtype=np.float32)
