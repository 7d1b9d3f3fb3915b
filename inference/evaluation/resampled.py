"""Figures of thousands of bootstrap samples at once, each sample a row of counts (see `bootstrap`).

Patients are put in order once for all samples: 2,000 samples of 700 patients take some ten milliseconds a figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEWTON_STEPS = 25
_RIDGE = 1e-9  # keeps the step finite in a sample whose classes are separate


def areas(scores: NDArray[np.float64], labels: NDArray[np.bool_], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under the ROC curve (R,) for counts (R, P); ties count one half; NaN with one class.

    Source: Mann-Whitney U with case weights: over all pairs of a positive and a negative, the share that is in order.
    """
    events, others = scores[labels][:, None], scores[~labels]
    wins = (events > others) + 0.5 * (events == others)  # (positives, negatives)
    drawn_events, drawn_others = counts[:, labels], counts[:, ~labels]
    pairs = drawn_events.sum(axis=1) * drawn_others.sum(axis=1)
    return _ratio(((drawn_events @ wins) * drawn_others).sum(axis=1), pairs)


def average_precisions(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the average precision (R,): the sum over falling thresholds of the gain in recall times the precision.

    The step-wise area under the precision-recall curve, without interpolation. A useless score reaches the event rate.

    Source: Davis and Goadrich, ICML 2006 (why not to interpolate linearly).
    """
    order = np.argsort(-scores, kind="stable")
    drawn = counts[:, order]
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of tied scores
    found = np.cumsum(np.where(labels[order], drawn, 0.0), axis=1)[:, last]
    precision = _ratio(found, np.cumsum(drawn, axis=1)[:, last])
    hits = np.diff(found, axis=1, prepend=0.0)
    return _ratio(np.where(hits > 0, hits * precision, 0.0).sum(axis=1), found[:, -1])


def means(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean (R, ...) of values (P, ...) over each sample; NaN where nobody was drawn."""
    totals = counts.sum(axis=1)
    return _ratio(counts @ values, totals.reshape(-1, *([1] * (values.ndim - 1))))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rates:
    """Sensitivity and specificity (R, ...) of a yes/no answer, and what follows from them at a declared prevalence."""

    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]

    def ppv(self, prevalence: float) -> NDArray[np.float64]:
        """Return the share of events among the positives of a population with this prevalence (Bayes' rule)."""
        hits, alarms = self.sensitivity * prevalence, (1 - self.specificity) * (1 - prevalence)
        return _ratio(hits, hits + alarms)

    def npv(self, prevalence: float) -> NDArray[np.float64]:
        """Return the share without event among the negatives of a population with this prevalence (Bayes' rule)."""
        spared, missed = self.specificity * (1 - prevalence), (1 - self.sensitivity) * prevalence
        return _ratio(spared, spared + missed)

    def f1(self, prevalence: float) -> NDArray[np.float64]:
        """Return F1 at this prevalence: 2 TP / (2 TP + FP + FN), each per patient of that population.

        Source: van Rijsbergen, Information Retrieval, 1979. F1 moves with prevalence, hence the declared one.
        """
        hits, alarms = self.sensitivity * prevalence, (1 - self.specificity) * (1 - prevalence)
        return _ratio(2 * hits, hits + alarms + prevalence)


def rates(flags: NDArray[np.bool_], labels: NDArray[np.bool_], counts: NDArray[np.float64]) -> Rates:
    """Return the rates of flags (P, ...), true where the answer is yes."""
    return Rates(
        sensitivity=means(flags[labels].astype(float), counts[:, labels]),
        specificity=means((~flags[~labels]).astype(float), counts[:, ~labels]),
    )


def recalibrations(
    log_odds: NDArray[np.float64], labels: NDArray[np.bool_], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and intercept (R,) of the logistic regression of labels on predicted log-odds, by Newton's method.

    Slope 1 and intercept 0 are perfect; a slope below 1 is too sure of itself. NaN where a sample has one class.

    Source: Cox, Two Further Applications of a Model for Binary Regression, Biometrika 1958; Van Calster et al., BMC
    Medicine 2019.
    """
    slope, intercept = np.ones(len(counts)), np.zeros(len(counts))
    usable = (counts @ labels > 0) & (counts @ ~labels > 0)
    for _ in range(_NEWTON_STEPS):
        fitted = 0.5 * (1 + np.tanh(0.5 * (slope[:, None] * log_odds + intercept[:, None])))  # (R, P)
        misfit, bend = counts * (labels - fitted), counts * fitted * (1 - fitted)
        curve_ss, curve_si, curve_ii = bend @ log_odds**2 + _RIDGE, bend @ log_odds, bend.sum(axis=1) + _RIDGE
        push_s, push_i = misfit @ log_odds, misfit.sum(axis=1)
        determinant = curve_ss * curve_ii - curve_si**2
        step_s = (curve_ii * push_s - curve_si * push_i) / determinant
        step_i = (curve_ss * push_i - curve_si * push_s) / determinant
        short = np.minimum(1.0, 2.0 / np.maximum(np.maximum(abs(step_s), abs(step_i)), 1e-12))  # no overshoot
        slope, intercept = slope + short * step_s, intercept + short * step_i
        if max(abs(step_s[usable]).max(initial=0.0), abs(step_i[usable]).max(initial=0.0)) < 1e-8:
            break
    return np.where(usable, slope, np.nan), np.where(usable, intercept, np.nan)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, NaN where the whole is nothing."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    ratio = np.full(shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
