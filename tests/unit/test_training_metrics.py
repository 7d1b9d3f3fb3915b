"""Discrimination and calibration error, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inference.evaluation.metrics import auroc, brier, expected_calibration_error


def test_auroc_counts_pairs_and_half_of_the_ties() -> None:
    """Of four pairs two are right, one is tied, one is wrong."""
    assert auroc(np.array([0.9, 0.4, 0.4, 0.6]), np.array([True, True, False, False])) == pytest.approx(2.5 / 4)


def test_auroc_of_one_class_is_not_a_number() -> None:
    """There is nothing to discriminate."""
    assert np.isnan(auroc(np.array([0.1, 0.2]), np.array([True, True])))


def test_brier_is_the_mean_squared_distance() -> None:
    """Worked by hand."""
    assert brier(np.array([0.8, 0.3]), np.array([True, False])) == pytest.approx((0.04 + 0.09) / 2)


def test_a_constant_that_matches_the_rate_is_calibrated() -> None:
    """Each bin of a constant forecast is off by how its labels fall; one bin of all would be off by nothing."""
    labels = np.tile([True, False], 50)
    assert expected_calibration_error(np.full(100, 0.5), labels) == pytest.approx(0.0)
    assert expected_calibration_error(np.full(100, 0.9), labels) == pytest.approx(0.4)
