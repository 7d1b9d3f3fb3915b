"""The patient bootstrap: who is drawn how often, and what a list of resampled figures says.

Theory of operation: a bootstrap sample is a row of counts, how often each patient was drawn. The first row is all ones:
the data as they are. A figure computed for every row at once has its estimate first and its samples after it. Arms are
compared on the same rows, so that differences are paired; patients are drawn whole, never their scans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure on the data with its 95 % percentile interval; NaN where it is not defined."""

    value: float
    lower: float
    upper: float

    def scaled(self, *, origin: float, unit: float) -> Estimate:
        """Return (figure - origin) / unit, for a positive unit."""
        return Estimate(
            value=(self.value - origin) / unit,
            lower=(self.lower - origin) / unit,
            upper=(self.upper - origin) / unit,
        )

    def excludes(self, point: float) -> bool:
        """Say whether the interval lies on one side of a point."""
        return self.lower > point or self.upper < point


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How many samples are drawn, and from which seed: the same patients always give the same samples."""

    resamples: int = RESAMPLES
    seed: int = 0

    def counts(self, patients: int) -> NDArray[np.float64]:
        """Return counts (1 + resamples, patients); row 0 is all ones, every other row sums to the number of patients.

        Raises:
            ValueError: if there is nobody to draw.

        Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13.
        """
        if patients < 1:
            raise ValueError(f"bootstrap: expected at least one patient, found {patients}")
        rng = np.random.default_rng(self.seed)
        drawn = rng.integers(patients, size=(self.resamples, patients))
        drawn += patients * np.arange(self.resamples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=self.resamples * patients)
        return np.concatenate([np.ones((1, patients)), counts.reshape(self.resamples, patients)])


def estimate(figures: NDArray[np.float64]) -> Estimate:
    """Return the estimate of figures (1 + resamples,) over `Sampling.counts`; samples without a figure are left out."""
    samples = figures[1:][np.isfinite(figures[1:])]
    lower, upper = np.percentile(samples, _TAILS) if len(samples) else (np.nan, np.nan)
    return Estimate(value=float(figures[0]), lower=float(lower), upper=float(upper))


def p_value(differences: NDArray[np.float64]) -> float:
    """Return the two-sided bootstrap p-value of no difference; never below 2 / (resamples + 1).

    It inverts the percentile interval: p < 0.05 where the 95 % interval excludes 0.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.4 (the added 1).
    """
    samples = differences[1:][np.isfinite(differences[1:])]
    if not len(samples):
        return float("nan")
    tail = min(np.count_nonzero(samples <= 0), np.count_nonzero(samples >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(samples) + 1)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted so that any false claim among them is as rare as the level says.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand J Statist 1979.
    """
    raw = np.asarray(p_values, dtype=float)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(stepped, 1.0)
    return tuple(float(each) for each in adjusted)
