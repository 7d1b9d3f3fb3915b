"""What another scan adds: the same patients, anchor and label, with only the last k of their six scans shown.

Everyone on the curve has six scans, so k changes nothing but what is shown; who has many scans plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.arms import efficiency
from inference.evaluation.bootstrap import Estimate, Sampling, estimate
from inference.evaluation.metrics import brier, expected_calibration_error
from inference.evaluation.predictions import LENGTHS
from inference.evaluation.resampled import areas, average_precisions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from inference.evaluation.answers import Calibrate
    from inference.evaluation.predictions import Predictions

_FEWEST = 10  # patients of either class, for a curve to be drawn
_LATE, _EARLY = 6, 4  # whether the curve flattens is the difference of these two


@dataclass(frozen=True, slots=True, kw_only=True)
class KPoint:
    """One arm with the last `n_scans` scans; Brier and ECE (5 bins) only for the delivered arm, as a report has it."""

    n_scans: int
    auroc: Estimate
    auprc: Estimate
    ceiling: float | None
    efficiency: Estimate | None
    brier: float | None = None
    ece: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KCurve:
    """The curve of every arm over the same patients, and the paired AUROC with 6 scans minus that with 4."""

    n_patients: int
    n_events: int
    points: Mapping[str, tuple[KPoint, ...]]
    late_gain: Mapping[str, Estimate]


def k_curve(
    predictions: Predictions,
    *,
    delivered: str,
    calibrate: Calibrate,
    ceilings: Mapping[int, float] | None,
    sampling: Sampling,
) -> KCurve | None:
    """Return the curve over patients with six scans and a known outcome; None where they are too few."""
    rows = (predictions.labels >= 0) & (predictions.n_scans >= max(LENGTHS))
    labels = predictions.labels[rows] == 1
    if min(labels.sum(), (~labels).sum()) < _FEWEST:
        return None
    counts = sampling.counts(len(labels))
    points, gains = {}, {}
    for arm, logits in predictions.logits.items():
        means = logits[:, :, rows].mean(axis=0)  # (6, N)
        samples = {k: areas(means[k - 1], labels, counts) for k in LENGTHS if np.isfinite(means[k - 1]).all()}
        shown = calibrate if arm == delivered else None
        points[arm] = tuple(
            _point(k, means[k - 1], labels, area=estimate(samples[k]), counts=counts, ceilings=ceilings, shown=shown)
            for k in samples
        )
        if {_EARLY, _LATE} <= set(samples):
            gains[arm] = estimate(samples[_LATE] - samples[_EARLY])
    return KCurve(n_patients=len(labels), n_events=int(labels.sum()), points=points, late_gain=gains)


def _point(
    n_scans: int,
    logits: NDArray[np.float64],
    labels: NDArray[np.bool_],
    *,
    area: Estimate,
    counts: NDArray[np.float64],
    ceilings: Mapping[int, float] | None,
    shown: Calibrate | None,
) -> KPoint:
    ceiling = None if ceilings is None else ceilings.get(n_scans)
    probabilities = None if shown is None else shown(n_scans, logits)
    return KPoint(
        n_scans=n_scans,
        auroc=area,
        auprc=estimate(average_precisions(logits, labels, counts)),
        ceiling=ceiling,
        efficiency=efficiency(area, ceiling),
        brier=None if probabilities is None else brier(probabilities, labels),
        ece=None if probabilities is None else expected_calibration_error(probabilities, labels),
    )
