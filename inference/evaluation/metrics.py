"""Discrimination and calibration of probabilities, in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000  # as published
ECE_BINS = 5  # equal counts, as published


def auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve; ties count one half; NaN if only one class is there."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auroc_interval(scores: NDArray[np.float64], labels: NDArray[np.bool_], *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUROC. Rows must be patients, one row each."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(labels), size=(RESAMPLES, len(labels)))
    areas = np.array([auroc(scores[rows], labels[rows]) for rows in drawn])
    lower, upper = np.nanpercentile(areas, [2.5, 97.5])
    return float(lower), float(upper)


def brier(probabilities: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the mean squared distance of probabilities from what happened."""
    return float(np.mean((probabilities - labels) ** 2))


def expected_calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the mean distance of predicted from observed frequency over 5 bins of equal count."""
    bins = np.array_split(np.argsort(probabilities, kind="stable"), ECE_BINS)
    gaps = [len(rows) * abs(probabilities[rows].mean() - labels[rows].mean()) for rows in bins if len(rows)]
    return float(sum(gaps) / len(labels))
