"""Whether the delivered probabilities mean what they say, and how much error chance alone would show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.bootstrap import Estimate, estimate
from inference.evaluation.metrics import equal_count_bins, expected_calibration_error
from inference.evaluation.resampled import means, recalibrations

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = (5, 10)
_EDGE = 1e-6  # probabilities this close to 0 or 1 are taken as this close, so that log-odds exist


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationError:
    """ECE beside what a perfectly calibrated model would show on as many patients (`null_*`) and how often (`p`)."""

    bins: int
    value: float
    null_mean: float
    null_upper: float  # 95th percentile
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Patients of similar probability: what was predicted on average and how often the event came."""

    n_patients: int
    predicted: float
    observed: Estimate  # Wilson's interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Calibration of the delivered arm at the final landmark.

    `slope` and `intercept` are of the logistic regression of outcome on predicted log-odds; `excess` is the mean
    prediction minus the event rate.
    """

    slope: Estimate
    intercept: Estimate
    excess: Estimate
    brier: Estimate
    errors: tuple[CalibrationError, ...]
    bins: tuple[ReliabilityBin, ...]


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], counts: NDArray[np.float64], *, seed: int
) -> Reliability:
    """Return all figures of calibration; counts are those of the patient bootstrap."""
    inside = np.clip(probabilities, _EDGE, 1 - _EDGE)
    slope, intercept = recalibrations(np.log(inside / (1 - inside)), labels, counts)
    return Reliability(
        slope=estimate(slope),
        intercept=estimate(intercept),
        excess=estimate(means(probabilities - labels, counts)),
        brier=estimate(means((probabilities - labels) ** 2, counts)),
        errors=tuple(
            calibration_error(probabilities, labels, bins=bins, draws=len(counts) - 1, seed=seed) for bins in BINS
        ),
        bins=tuple(_bin(probabilities[rows], labels[rows]) for rows in equal_count_bins(probabilities, BINS[-1])),
    )


def calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], *, bins: int, draws: int, seed: int
) -> CalibrationError:
    """Return the ECE and its null distribution: outcomes drawn from the very probabilities, so calibration is perfect.

    Source: Vaicenavicius et al., AISTATS 2019 (consistency resampling after Broecker and Smith 2007).
    """
    rng = np.random.default_rng(seed)
    sorted_rows = equal_count_bins(probabilities, bins)
    ordered = probabilities[np.concatenate(sorted_rows)]
    starts = np.cumsum([0, *(len(rows) for rows in sorted_rows[:-1])])
    drawn = rng.random((max(draws, 1), len(ordered))) < ordered
    null = np.abs(np.add.reduceat(ordered - drawn, starts, axis=1)).sum(axis=1) / len(ordered)
    value = expected_calibration_error(probabilities, labels, bins=bins)
    return CalibrationError(
        bins=bins,
        value=value,
        null_mean=float(null.mean()),
        null_upper=float(np.percentile(null, 95)),
        p=float((np.count_nonzero(null >= value) + 1) / (len(null) + 1)),
    )


def wilson(successes: int, trials: int) -> Estimate:
    """Return a proportion with Wilson's 95 % score interval; NaN without trials.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    if trials == 0:
        return Estimate(value=float("nan"), lower=float("nan"), upper=float("nan"))
    z, share = 1.959963984540054, successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return Estimate(value=share, lower=float(max(0.0, middle - half)), upper=float(min(1.0, middle + half)))


def _bin(probabilities: NDArray[np.float64], labels: NDArray[np.bool_]) -> ReliabilityBin:
    return ReliabilityBin(
        n_patients=len(labels),
        predicted=float(probabilities.mean()),
        observed=wilson(int(labels.sum()), len(labels)),
    )
