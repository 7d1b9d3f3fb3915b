"""Calibration with its null distribution, operating points, net benefit and abstention."""

from __future__ import annotations

import numpy as np
import pytest

from inference.evaluation.bootstrap import Sampling
from inference.evaluation.confound_figures import counted
from inference.evaluation.coverage import coverage_curve
from inference.evaluation.decisions import BEST_F1, decision_curve, point_figures, validation_thresholds
from inference.evaluation.operating import Threshold
from inference.evaluation.reliability import calibration_error, reliability, wilson

SAMPLING = Sampling(resamples=200)


def simulated(patients: int, *, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and outcomes; calibrated where sharpness is 1, too sure above."""
    rng = np.random.default_rng(seed)
    log_odds = rng.standard_normal(patients) - 0.8
    labels = rng.random(patients) < 1 / (1 + np.exp(-log_odds))
    return 1 / (1 + np.exp(-sharpness * log_odds)), labels


def test_a_calibrated_model_has_slope_one_and_an_error_that_chance_explains() -> None:
    """Intervals hold 1 and 0; the ECE lies within its null distribution."""
    probabilities, labels = simulated(800)
    found = reliability(probabilities, labels, SAMPLING.counts(800), seed=0)
    assert found.slope.lower < 1 < found.slope.upper
    assert found.intercept.lower < 0 < found.intercept.upper
    assert not found.excess.excludes(0)
    assert [error.bins for error in found.errors] == [5, 10]
    assert all(error.p > 0.05 and error.null_mean > 0 for error in found.errors)
    assert sum(each.n_patients for each in found.bins) == 800


def test_a_model_too_sure_of_itself_is_caught() -> None:
    """Slope about 1 / 3, ECE beyond chance."""
    probabilities, labels = simulated(800, sharpness=3)
    found = reliability(probabilities, labels, SAMPLING.counts(800), seed=0)
    assert found.slope.value == pytest.approx(1 / 3, abs=0.08)
    assert found.slope.upper < 1
    assert all(error.value > error.null_upper and error.p < 0.05 for error in found.errors)


def test_the_null_distribution_is_right_on_its_own_patients() -> None:
    """Of 200 calibrated models about 1 in 20 exceeds the 95th percentile: between 2 and 20."""
    beyond = 0
    for seed in range(200):
        probabilities, labels = simulated(150, seed=seed)
        beyond += calibration_error(probabilities, labels, bins=5, draws=200, seed=seed).p < 0.05
    assert 2 <= beyond <= 20


def test_probabilities_of_nought_and_one_still_have_log_odds() -> None:
    """A saturated model is scored, not refused."""
    probabilities, labels = np.array([0.0, 1.0, 0.0, 1.0, 0.5]), np.array([False, True, True, False, True])
    found = reliability(probabilities, labels, SAMPLING.counts(5), seed=0)
    assert np.isfinite(found.slope.value)


def test_wilson_is_as_published() -> None:
    """7 of 10: 0.397 to 0.892; none of 10 starts at 0 and ends at 0.278."""
    found = wilson(7, 10)
    assert (found.value, found.lower, found.upper) == pytest.approx((0.7, 0.3968, 0.8922), abs=1e-4)
    assert (wilson(0, 10).lower, wilson(0, 10).upper) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert np.isnan(wilson(0, 0).value)


def test_a_confound_test_says_whether_it_came_out_as_expected() -> None:
    """58 % right with the lesion masked is not one half."""
    assert counted("pretext", "lesion masked", right=58, n=100, expected=(0.45, 0.55)).as_expected is False
    assert counted("pretext", "lesion masked", right=50, n=100, expected=(0.45, 0.55)).as_expected is True
    assert counted("pretext", "full image", right=70, n=100).as_expected is None


def test_thresholds_meet_their_targets_on_the_patients_they_are_fixed_on() -> None:
    """At least 95 % sensitivity, at least 95 % specificity, and no threshold with a better F1."""
    probabilities, labels = simulated(400)
    counts = SAMPLING.counts(400)
    found = {
        each.name: point_figures(each, probabilities=probabilities, labels=labels, counts=counts, prevalence=0.3)
        for each in validation_thresholds(probabilities, labels, 0.3)
    }
    assert found["rule-out"].sensitivity.value >= 0.95
    assert found["rule-in"].specificity.value >= 0.95
    assert found["rule-out"].specificity.value > 0.1
    assert found["rule-in"].sensitivity.value > 0.1
    assert all(found[BEST_F1].f1.value >= each.f1.value for each in found.values())


def test_predictive_values_move_with_the_declared_prevalence_only() -> None:
    """Halving the prevalence lowers PPV and raises NPV; sensitivity stays."""
    probabilities, labels = simulated(400)
    rare, common = (
        point_figures(
            Threshold(name="x", value=0.4),
            probabilities=probabilities,
            labels=labels,
            counts=SAMPLING.counts(400),
            prevalence=prevalence,
        )
        for prevalence in (0.1, 0.5)
    )
    assert rare.ppv.value < common.ppv.value
    assert rare.npv.value > common.npv.value
    assert rare.sensitivity == common.sensitivity


def test_net_benefit_is_worked_by_hand() -> None:
    """At a threshold of 0.2 a false alarm costs a quarter: of 4 patients 1 hit and 1 alarm give (1 - 0.25) / 4."""
    probabilities, labels = np.array([0.9, 0.5, 0.1, 0.05]), np.array([True, False, False, True])
    curve = decision_curve(probabilities, labels, SAMPLING.counts(4))
    at = curve.thresholds.index(0.2)
    assert curve.model[at].value == pytest.approx((1 - 0.25) / 4)
    assert curve.treat_all[at] == pytest.approx((2 - 2 * 0.25) / 4)


def test_a_calibrated_model_never_does_worse_than_both_simple_policies() -> None:
    """Up to noise, its net benefit lies above treating all and treating none at every threshold."""
    probabilities, labels = simulated(4000)
    curve = decision_curve(probabilities, labels, Sampling(resamples=20).counts(4000))
    for model, treat_all in zip(curve.model, curve.treat_all, strict=True):
        assert model.value > max(treat_all, 0.0) - 0.01


def test_giving_up_the_unsure_lowers_the_error_and_giving_up_at_random_does_not() -> None:
    """Coverage runs from a tenth to all; the last point is everyone."""
    probabilities, labels = simulated(1500)
    sure = -np.abs(probabilities - 0.5)
    blind = np.random.default_rng(0).random(1500)
    known, random = (
        coverage_curve(
            probabilities, probabilities, labels, uncertainty=each, threshold=0.5, sampling=Sampling(resamples=100)
        )
        for each in (sure, blind)
    )
    assert [point.coverage for point in known][::9] == [0.1, 1.0]
    assert known[-1].n_patients == 1500
    assert known[4].error.upper < known[-1].error.lower
    assert random[4].error.lower < random[-1].error.value < random[4].error.upper
    assert known[-1].error.value == random[-1].error.value
