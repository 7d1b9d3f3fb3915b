"""Platt scaling: one slope and one intercept from logits to probabilities, fitted on patients kept for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.bundle import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEWTON_STEPS = 50
_RIDGE = 1e-6  # keeps the step finite where the logits separate the classes


def calibrate(logits: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return calibrated probabilities of logits."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * (calibration.slope * logits + calibration.intercept))))


def fit_platt(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> Calibration:
    """Fit by maximum likelihood (Newton's method) to Platt's softened targets.

    Raises:
        ValueError: if only one class is there.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        raise ValueError(f"calibration: expected both classes, found {positives} events in {len(labels)} patients")
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([logits, np.ones(len(logits))])  # (N, 2)
    weights = np.array([1.0, 0.0])
    for _ in range(_NEWTON_STEPS):
        probabilities = calibrate(logits, Calibration(slope=weights[0], intercept=weights[1]))
        curvature = design.T @ (design * (probabilities * (1 - probabilities))[:, None]) + _RIDGE * np.eye(2)
        weights = weights - np.linalg.solve(curvature, design.T @ (probabilities - targets))
    return Calibration(slope=float(weights[0]), intercept=float(weights[1]))
