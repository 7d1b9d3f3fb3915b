"""What abstaining buys: the delivered arm scored on the patients it is surest of, from a tenth of them to all.

Only useful where error falls as coverage falls. The order in which patients are given up comes from an uncertainty
that knows no outcome; by default the spread of probabilities between seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.bootstrap import Estimate, Sampling, estimate
from inference.evaluation.resampled import areas, means

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveragePoint:
    """The surest share of patients; `error` is the share on the wrong side of the threshold fixed on validation."""

    coverage: float
    n_patients: int
    n_events: int
    auroc: Estimate | None  # None where one class is not among them
    error: Estimate
    brier: Estimate


def coverage_curve(
    scores: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    labels: NDArray[np.bool_],
    *,
    uncertainty: NDArray[np.float64],
    threshold: float,
    sampling: Sampling,
) -> tuple[CoveragePoint, ...]:
    """Return figures at each coverage; intervals are over the patients kept, not over who is kept.

    Source: El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification, JMLR 2010.
    """
    surest = np.argsort(uncertainty, kind="stable")
    points = []
    for level in LEVELS:
        rows = surest[: max(1, round(level * len(surest)))]
        kept = labels[rows]
        counts = sampling.counts(len(rows))
        points.append(
            CoveragePoint(
                coverage=level,
                n_patients=len(rows),
                n_events=int(kept.sum()),
                auroc=estimate(areas(scores[rows], kept, counts)) if 0 < kept.sum() < len(kept) else None,
                error=estimate(means(((probabilities[rows] >= threshold) != kept).astype(float), counts)),
                brier=estimate(means((probabilities[rows] - kept) ** 2, counts)),
            )
        )
    return tuple(points)
