"""Novelty: an ordinary scan lies near 1 and within the limit, a strange one does not, whatever the width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.evaluation.novelty import FOLDS, fit_novelty, shrunk_covariance
from inference.novelty import FeatureDistribution, KnownScans

PATIENTS, SCANS, MEMBERS, WIDTH = 60, 5, 3, 8


def scans(seed: int, patients: int = PATIENTS) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated features (S, M x D) of patients' scans, of very unequal scale, and whose they are."""
    mixing = np.random.default_rng(99).standard_normal((MEMBERS * WIDTH, MEMBERS * WIDTH))
    rng = np.random.default_rng(seed)
    of_patient = np.repeat(rng.standard_normal((patients, MEMBERS * WIDTH)), SCANS, axis=0)
    raw = of_patient + 0.5 * rng.standard_normal(of_patient.shape)
    features = (raw @ mixing) * np.logspace(-2, 2, MEMBERS * WIDTH) + 3
    return features.astype(np.float32), np.repeat([f"P{number:03d}" for number in range(patients)], SCANS)


def test_new_ordinary_scans_lie_near_one_and_strange_ones_beyond_the_limit() -> None:
    """The limit lets nearly all unseen patients pass and stops what is shifted, scaled or mixed up."""
    found = fit_novelty(*scans(0), encoders=MEMBERS)
    new, _ = scans(1)
    ordinary = found.known.features.distances(new)
    assert 0.8 < np.median(ordinary) < 1.3
    assert np.mean(ordinary > found.novelty.limit) < 0.03
    rng = np.random.default_rng(2)
    for strange in (new * 4, np.zeros_like(new[:1]) - 40, rng.permuted(new, axis=1)):
        assert np.mean(found.known.features.distances(strange) > found.novelty.limit) > 0.9


def test_the_limit_is_of_distances_without_the_scan_s_own_patient() -> None:
    """Scans lie nearer to a fit that has seen them: such a limit would stop too many."""
    features, patients = scans(3, patients=20)
    found = fit_novelty(features, patients, encoders=MEMBERS, quantile=0.9)
    seen = np.quantile(found.known.features.distances(features), 0.9)
    assert found.novelty.limit > 1.05 * seen
    assert (found.novelty.n_patients, found.novelty.n_scans) == (20, 20 * SCANS)
    assert FOLDS < 20


def test_a_feature_that_never_changes_is_no_reason_to_fail() -> None:
    """A dead unit has no scatter; what lights it up is strange."""
    features, patients = scans(4)
    features[:, 5] = 0
    found = fit_novelty(features, patients, encoders=MEMBERS)
    lit = features[:1].copy()
    lit[:, 5] = 1e4
    assert np.isfinite(found.known.features.distances(features)).all()
    assert found.known.features.distances(lit)[0] > found.novelty.limit


def test_few_scans_and_many_features_still_give_a_covariance() -> None:
    """Shrinkage keeps it positive, and leaves it alone where there is plenty."""
    rng = np.random.default_rng(5)
    few = rng.standard_normal((10, 40))
    assert np.linalg.eigvalsh(shrunk_covariance(few - few.mean(axis=0))).min() > 0.1
    plenty = rng.standard_normal((50_000, 3)) * [1, 2, 3]
    assert np.diag(shrunk_covariance(plenty)) == pytest.approx([1, 4, 9], rel=0.05)


def test_the_file_gives_back_the_same_distances(tmp_path: Path) -> None:
    """What a bundle holds is what was fitted, in a file that says nothing of when it was written."""
    features, patients = scans(6)
    found = fit_novelty(features, patients, encoders=MEMBERS)
    for name in ("a.npz", "b.npz"):
        found.known.save(tmp_path / name)
    again = KnownScans.load(tmp_path / "a.npz")
    assert np.array_equal(again.features.distances(features), found.known.features.distances(features))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_cannot_be_fitted_is_refused() -> None:
    """Too few patients, features of another width, or what is no number."""
    features, patients = scans(7)
    with pytest.raises(ValueError, match="at least 10"):
        fit_novelty(features[:20], patients[:20], encoders=MEMBERS)
    with pytest.raises(ValueError, match="for 5 encoders"):
        fit_novelty(features, patients, encoders=5)
    features[3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_novelty(features, patients, encoders=MEMBERS)


@pytest.mark.parametrize(
    ("mean", "whitening"),
    [((2, 4), (2, 4, 3)), ((8,), (8, 8)), ((2, 4), (1, 4, 4))],
)
def test_arrays_that_do_not_belong_together_are_refused(mean: tuple[int, ...], whitening: tuple[int, ...]) -> None:
    """Before a distance is computed from them."""
    with pytest.raises(ValueError, match="feature distribution: expected"):
        FeatureDistribution(mean=np.zeros(mean, np.float32), whitening=np.zeros(whitening, np.float32))
