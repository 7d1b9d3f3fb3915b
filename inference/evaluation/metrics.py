"""Discrimination and calibration of probabilities, in numpy: each figure once, for one set of patients.

The same figures over thousands of bootstrap samples at once are in `resampled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

ECE_BINS = 5  # equal counts, as published


def auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve; ties count one half; NaN if only one class is there.

    Source: Mann-Whitney U over positives x negatives (Hanley and McNeil 1982).
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def roc_curve(
    scores: NDArray[np.float64], labels: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false and true positive rates (G + 1,) as the threshold falls past each of G different scores."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of ties
    hits, alarms = np.cumsum(labels[order])[last], np.cumsum(~labels[order])[last]
    return np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])


def brier(probabilities: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the mean squared distance of probabilities from what happened."""
    return float(np.mean((probabilities - labels) ** 2))


def equal_count_bins(probabilities: NDArray[np.float64], bins: int) -> list[NDArray[np.int64]]:
    """Return the rows of each bin, from the lowest probabilities to the highest; sizes differ by at most one."""
    return [rows for rows in np.array_split(np.argsort(probabilities, kind="stable"), bins) if len(rows)]


def expected_calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], *, bins: int = ECE_BINS
) -> float:
    """Return the mean distance of predicted from observed frequency over bins of equal count."""
    rows_of = equal_count_bins(probabilities, bins)
    gaps = [len(rows) * abs(probabilities[rows].mean() - labels[rows].mean()) for rows in rows_of]
    return float(sum(gaps) / len(labels))
