"""Variants of a cohort hide or keep the lesion, and nothing about a hole tells how large it was."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from inference.evaluation.confounds import (
    Confound,
    confound_patient,
    hole_of,
    keep_lesion,
    mask_lesion,
    render_confound_cohort,
    variant,
)
from inference.phantom import make_patient, model_space_masks, render_model_space

SHAPE = (24, 32, 24)
TIMES = 3


def _scans(seed: int = 0, brightness: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy brains (T, Z, Y, X) with a bright ball that grows, each scaled to its own 0..1, and the balls."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(20) - 9.5,) * 3, indexing="ij")
    brain = z**2 + y**2 + x**2 < 9**2
    balls = np.stack([(z - 2) ** 2 + y**2 + x**2 < radius**2 for radius in (1.5, 2.5, 3.5)])
    volumes = 0.5 + 0.05 * rng.standard_normal((TIMES, 20, 20, 20)) + brightness * balls
    low, high = volumes[:, brain].min(axis=1), volumes[:, brain].max(axis=1)
    scaled = (volumes - low[:, None, None, None]) / (high - low)[:, None, None, None]
    return np.where(brain, scaled, 0).astype(np.float32), balls


def test_a_masked_lesion_looks_alike_in_all_visits() -> None:
    """What is painted into the hole is the same at each time, and the hole holds every visit's lesion."""
    volumes, balls = _scans()
    masked, hole = mask_lesion(volumes, balls), hole_of(balls)
    assert all((hole & ball).sum() == ball.sum() for ball in balls)
    for older, newer in pairwise(masked):
        np.testing.assert_array_equal(older[hole], newer[hole])


def test_brightness_outside_the_hole_does_not_tell_the_lesion() -> None:
    """Scans are scaled to their brightest voxel: a brighter lesion darkens the brain, and masking undoes it."""
    faint, balls = _scans(brightness=0.3)
    bright, _ = _scans(brightness=3.0)
    outside = (faint[0] > 0.01) & ~hole_of(balls)
    assert faint[-1][outside].mean() > 1.5 * bright[-1][outside].mean()
    masked = [mask_lesion(volumes, balls)[-1][outside] for volumes in (faint, bright)]
    np.testing.assert_allclose(masked[0], masked[1], atol=0.01)


def test_a_filled_hole_is_as_bright_and_as_grainy_as_the_brain_around_it() -> None:
    """A hole that stood out would still say where the lesion was; that it says nothing of size is tested above."""
    volumes, balls = _scans(brightness=1.0)
    masked, hole = mask_lesion(volumes, balls), hole_of(balls)
    outside = (masked[0] > 0) & ~hole
    assert masked[0][hole].mean() == pytest.approx(masked[0][outside].mean(), abs=0.03)
    assert masked[0][hole].std() == pytest.approx(masked[0][outside].std(), rel=0.4)


def test_without_a_lesion_nothing_is_painted() -> None:
    """A patient whose lesion is smaller than a voxel keeps the brain as it was, but for the scale."""
    volumes, balls = _scans()
    masked = mask_lesion(volumes, np.zeros_like(balls))
    brain = volumes[0] > 0
    assert np.corrcoef(masked[0][brain], volumes[0][brain])[0, 1] > 0.99


def test_a_kept_lesion_is_all_that_differs() -> None:
    """Outside the lesion's surround all visits are one image; inside the lesion grows as before."""
    volumes, balls = _scans(brightness=0.5)
    kept, hole = keep_lesion(volumes, balls), hole_of(balls)
    assert all((older[~hole] == newer[~hole]).all() for older, newer in pairwise(kept))
    middle = kept[:, hole].mean(axis=1)
    assert all(older < newer for older, newer in pairwise(middle))


def test_a_masked_phantom_holds_no_trace_of_growth() -> None:
    """In the region of all lesions a real patient's scans differ before masking and not at all afterwards."""
    patient = make_patient(3, n_visits=3)
    masks = np.stack([model_space_masks(patient, visit, shape=SHAPE)["lesion"] for visit in range(3)])
    volumes = np.stack([render_model_space(patient, visit, shape=SHAPE) for visit in range(3)])
    hole = hole_of(masks) & (volumes > 0).all(axis=0)
    masked = confound_patient(3, kind=Confound.LESION_MASKED, shape=SHAPE, n_visits=3).volumes
    assert hole.any()
    assert np.abs(np.diff(volumes[:, hole], axis=0)).max() > 0.2
    assert not np.diff(masked[:, hole].astype(int), axis=0).any()


def test_stable_patients_show_no_trend_of_the_lesion() -> None:
    """Over many patients the true volume of a stable lesion rises as often as it falls; the usual one mostly rises."""
    rises = {}
    for kind in (Confound.STABLE, Confound.FULL):
        patients = [variant(seed, kind, 6) for seed in range(60)]
        rises[kind] = np.mean([each.visits[-1].log_volume > each.visits[0].log_volume for each in patients])
        if kind is Confound.STABLE:
            assert all(each.lesion.cavity_radius_at(0) == each.lesion.cavity_radius_at(9) for each in patients)
            assert all(each.dials.brain_growth_per_year == 0 for each in patients)
    assert rises[Confound.STABLE] == pytest.approx(0.5, abs=0.17)
    assert rises[Confound.FULL] > rises[Confound.STABLE]


def test_one_scanner_for_all_visits_changes_neither_disease_nor_pose() -> None:
    """Machine and protocol are the newest visit's; noise and head position stay each visit's own."""
    usual, same = variant(5, Confound.FULL, 6), variant(5, Confound.SAME_SCANNER, 6)
    assert len({each.scanner.serial for each in usual.visits}) > 1
    assert {each.scanner.serial for each in same.visits} == {usual.visits[-1].scanner.serial}
    assert len({each.nuisance.thick_slice_mm for each in same.visits}) == 1
    assert [each.log_volume for each in same.visits] == [each.log_volume for each in usual.visits]
    assert len({each.nuisance.noise_seed for each in same.visits}) == 6


def test_a_variant_is_a_cohort_like_any_other(tmp_path) -> None:
    """Dates and outcomes are those of the full cohort; only the images differ."""
    cohorts = {
        kind: render_confound_cohort(tmp_path / kind, [0, 1], kind=kind, shape=(12, 16, 12), n_visits=2, workers=1)
        for kind in (Confound.FULL, Confound.LESION_MASKED)
    }
    full, masked = cohorts[Confound.FULL], cohorts[Confound.LESION_MASKED]
    assert full.volumes.shape == masked.volumes.shape == (4, 12, 16, 12)
    np.testing.assert_array_equal(full.days, masked.days)
    np.testing.assert_array_equal(full.labels, masked.labels)
    assert (full.volumes != masked.volumes).any()
