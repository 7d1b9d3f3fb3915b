"""The patient bootstrap: paired, whole patients, intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from inference.evaluation.bootstrap import Sampling, estimate, holm, p_value
from inference.evaluation.resampled import areas


def test_the_first_row_is_the_data_and_every_sample_is_as_large() -> None:
    """Counts of 50 samples of 20 patients, the same each time."""
    counts = Sampling(resamples=50, seed=3).counts(20)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 20).all()
    assert counts.shape == (51, 20)
    assert (counts == Sampling(resamples=50, seed=3).counts(20)).all()
    assert (counts != Sampling(resamples=50, seed=4).counts(20)).any()


def test_nobody_cannot_be_drawn() -> None:
    """An empty table is refused."""
    with pytest.raises(ValueError, match="at least one patient"):
        Sampling().counts(0)


def test_holm_adjusts_as_worked_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, then never less than the step before: 0.03 x 2, 0.04 x 1."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx((0.06, 0.04, 0.06, 0.06))
    assert holm([0.5, 0.6]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p_values: list[float]) -> None:
    """And stays within Bonferroni."""
    adjusted = np.array(holm(p_values))
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()


def test_a_p_value_agrees_with_its_interval() -> None:
    """5 % where the interval just touches 0, 1 where all differences are 0, never 0."""
    shifted = np.concatenate([[0.0], np.linspace(-0.025, 0.975, 2000)])
    assert p_value(shifted) == pytest.approx(0.05, abs=0.002)
    assert p_value(np.zeros(101)) == 1.0
    assert p_value(np.concatenate([[1.0], np.ones(1999)])) == pytest.approx(2 / 2000)


def test_samples_without_a_figure_are_left_out() -> None:
    """An interval comes from the others; without any it is not a number."""
    found = estimate(np.array([0.5, np.nan, 0.4, 0.6]))
    assert (found.value, found.lower, found.upper) == pytest.approx((0.5, 0.405, 0.595))
    assert np.isnan(estimate(np.array([0.5, np.nan])).lower)


def test_an_estimate_scales_to_an_efficiency() -> None:
    """0.7 (0.6 to 0.8) under a ceiling of 0.9 is 0.5 (0.25 to 0.75)."""
    found = estimate(np.array([0.7, *np.linspace(0.6, 0.8, 1001)])).scaled(origin=0.5, unit=0.4)
    assert (found.value, found.lower, found.upper) == pytest.approx((0.5, 0.2625, 0.7375))


def test_the_spread_agrees_with_delong() -> None:
    """The bootstrap's standard error is that of the closed form, for an area and for a paired difference."""
    rng = np.random.default_rng(1)
    labels = rng.random(600) < 0.3
    first = labels + rng.standard_normal(600)
    second = 0.6 * labels + 0.7 * first + 0.5 * rng.standard_normal(600)
    counts = Sampling(resamples=1500).counts(600)
    one, other = (areas(each, labels, counts)[1:] for each in (first, second))
    covariance = _delong(first, second, labels)
    assert one.std() == pytest.approx(np.sqrt(covariance[0, 0]), rel=0.08)
    paired = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert (one - other).std() == pytest.approx(np.sqrt(paired), rel=0.08)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Of 400 studies of 150 patients, the 95 % interval holds the true area in 91 to 98 %."""
    truth = norm.cdf(1 / np.sqrt(2))
    rng, held = np.random.default_rng(5), 0
    for _ in range(400):
        labels = rng.random(150) < 0.3
        found = estimate(areas(labels + rng.standard_normal(150), labels, Sampling(resamples=200).counts(150)))
        held += found.lower <= truth <= found.upper
    assert 364 <= held <= 392


def _delong(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the covariance of two AUROCs (DeLong, DeLong and Clarke-Pearson 1988)."""
    wins = np.stack([each[labels][:, None] > each[~labels] for each in (first, second)]).astype(float)
    return np.cov(wins.mean(axis=2)) / labels.sum() + np.cov(wins.mean(axis=1)) / (~labels).sum()
