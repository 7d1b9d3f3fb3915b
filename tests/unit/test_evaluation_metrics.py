"""Discrimination of one sample and of thousands at once, against hand-worked numbers and an independent library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from inference.evaluation.bootstrap import Sampling
from inference.evaluation.metrics import auroc, expected_calibration_error, roc_curve
from inference.evaluation.resampled import areas, average_precisions, means, rates, recalibrations

ONES = np.ones((1, 4))
SCORES = np.array([0.9, 0.4, 0.4, 0.6])
LABELS = np.array([True, True, False, False])


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return few-valued scores (many ties) and labels of both classes."""
    size = draw(st.integers(4, 40))
    scores = draw(st.lists(st.integers(-5, 5), min_size=size, max_size=size))
    labels = draw(st.lists(st.booleans(), min_size=size - 2, max_size=size - 2))
    return np.array(scores, dtype=float), np.array([True, False, *labels])


@given(scored())
def test_areas_agree_with_an_independent_library_whatever_the_ties(case: tuple[np.ndarray, np.ndarray]) -> None:
    """AUROC, average precision and the ROC curve's own area."""
    scores, labels = case
    ones = np.ones((1, len(labels)))
    assert areas(scores, labels, ones)[0] == pytest.approx(oracle.roc_auc_score(labels, scores))
    assert auroc(scores, labels) == pytest.approx(oracle.roc_auc_score(labels, scores))
    assert average_precisions(scores, labels, ones)[0] == pytest.approx(oracle.average_precision_score(labels, scores))
    false_rate, true_rate = roc_curve(scores, labels)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(oracle.roc_auc_score(labels, scores))


@given(scored(), st.integers(0, 1000))
def test_a_sample_of_counts_is_the_sample_with_its_patients_repeated(
    case: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    """Weights by counts equal repeated rows, for every figure."""
    scores, labels = case
    counts = Sampling(resamples=3, seed=seed).counts(len(labels))
    whole = (areas(scores, labels, counts), average_precisions(scores, labels, counts), means(scores, counts))
    for sample, drawn in enumerate(counts):
        rows = np.repeat(np.arange(len(labels)), drawn.astype(int))
        assert whole[0][sample] == pytest.approx(auroc(scores[rows], labels[rows]), nan_ok=True)
        assert whole[2][sample] == pytest.approx(scores[rows].mean())
        if labels[rows].any():
            expected = oracle.average_precision_score(labels[rows], scores[rows])
            assert whole[1][sample] == pytest.approx(expected)


@given(scored())
def test_auroc_knows_order_only(case: tuple[np.ndarray, np.ndarray]) -> None:
    """A rising map changes nothing; a falling one, or swapped labels, gives 1 - AUROC."""
    scores, labels = case
    area = auroc(scores, labels)
    assert auroc(np.exp(scores / 3) + 7, labels) == pytest.approx(area)
    assert auroc(-scores, labels) == pytest.approx(1 - area)
    assert auroc(scores, ~labels) == pytest.approx(1 - area)


def test_areas_count_pairs_by_hand() -> None:
    """Of four pairs two are right, one is tied, one is wrong; the precision steps are 1/1 and 2/4."""
    assert areas(SCORES, LABELS, ONES)[0] == pytest.approx(2.5 / 4)
    assert average_precisions(SCORES, LABELS, ONES)[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)


def test_a_sample_of_one_class_has_no_area() -> None:
    """It is not a number, without a warning."""
    counts = np.array([[1.0, 1, 1, 1], [2, 2, 0, 0], [0, 0, 2, 2]])
    assert np.isnan(areas(SCORES, LABELS, counts)).tolist() == [False, True, True]
    assert np.isnan(average_precisions(SCORES, LABELS, counts)).tolist() == [False, False, True]


def test_predictive_values_follow_bayes_at_a_declared_prevalence() -> None:
    """Sensitivity 0.8 and specificity 0.9 at 10 %: PPV 8 / 17, NPV 81 / 83, F1 16 / 27."""
    labels = np.repeat([True, False], 10)
    flags = np.concatenate([np.arange(10) < 8, np.arange(10) < 1])
    found = rates(flags, labels, np.ones((1, 20)))
    assert found.sensitivity[0] == pytest.approx(0.8)
    assert found.specificity[0] == pytest.approx(0.9)
    assert found.ppv(0.1)[0] == pytest.approx(0.08 / 0.17)
    assert found.npv(0.1)[0] == pytest.approx(0.81 / 0.83)
    assert found.f1(0.1)[0] == pytest.approx(2 * 0.08 / (2 * 0.08 + 0.09 + 0.02))


@given(scored())
def test_f1_at_the_samples_own_prevalence_is_the_plain_f1(case: tuple[np.ndarray, np.ndarray]) -> None:
    """The declared prevalence is all that sets it apart."""
    scores, labels = case
    found = rates(scores >= 0, labels, np.ones((1, len(labels)))).f1(labels.mean())[0]
    assert found == pytest.approx(oracle.f1_score(labels, scores >= 0, zero_division=0.0))


def test_recalibration_recovers_slope_and_intercept() -> None:
    """Log-odds that were doubled and shifted have slope 0.5 and intercept -0.5; counts act as repeated patients."""
    rng = np.random.default_rng(0)
    log_odds = rng.standard_normal(20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-log_odds))
    slope, intercept = recalibrations(2 * log_odds + 1, labels, np.ones((1, 20_000)))
    assert slope[0] == pytest.approx(0.5, abs=0.03)
    assert intercept[0] == pytest.approx(-0.5, abs=0.05)
    few, known = log_odds[:50], labels[:50]
    counts = Sampling(resamples=1).counts(50)[1:]
    rows = np.repeat(np.arange(50), counts[0].astype(int))
    weighted = recalibrations(few, known, counts)
    repeated = recalibrations(few[rows], known[rows], np.ones((1, len(rows))))
    assert np.allclose(weighted, repeated)


def test_recalibration_of_a_separated_or_one_sided_sample_ends() -> None:
    """Classes apart give a finite steep slope; one class gives none."""
    log_odds, labels = np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True])
    slope, intercept = recalibrations(log_odds, labels, np.array([[1.0, 1, 1, 1], [2, 2, 0, 0]]))
    assert np.isfinite(slope[0])
    assert slope[0] > 1
    assert np.isnan([slope[1], intercept[1]]).all()


def test_calibration_error_uses_as_many_bins_as_asked() -> None:
    """Ten patients in two bins: |0.2 - 0.4| and |0.8 - 0.6| on five each."""
    probabilities = np.repeat([0.2, 0.8], 5)
    labels = np.array([1, 1, 0, 0, 0, 1, 1, 1, 0, 0], dtype=bool)
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(0.2)
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(0.0)
