"""What acting on the delivered probability would bring: operating points fixed on validation, and net benefit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.answers import best_f1_threshold
from inference.evaluation.bootstrap import Estimate, estimate
from inference.evaluation.operating import TARGETS, Threshold, choose_threshold
from inference.evaluation.resampled import rates

if TYPE_CHECKING:
    from numpy.typing import NDArray

BEST_F1 = "best F1"
THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 41))  # of the decision curve: 0.02 to 0.80


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFigures:
    """What a threshold on the probability, fixed on validation, reaches; PPV, NPV and F1 at the declared prevalence."""

    name: str
    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCurve:
    """Net benefit per patient of treating those above each threshold, beside treating all; treating none is 0.

    At the event rate of the evaluated patients, for whom the probabilities are calibrated.
    """

    event_rate: float
    thresholds: tuple[float, ...]
    model: tuple[Estimate, ...]
    treat_all: tuple[float, ...]


def validation_thresholds(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], prevalence: float
) -> tuple[Threshold, ...]:
    """Return the thresholds that validation fixes: of the best F1, and of each target of `operating`.

    Raises:
        ValueError: if only one class is there.
    """
    best = Threshold(name=BEST_F1, value=best_f1_threshold(probabilities, labels, prevalence))
    return (best, *(choose_threshold(name, target, probabilities, labels) for name, target in TARGETS.items()))


def point_figures(
    threshold: Threshold,
    *,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.bool_],
    counts: NDArray[np.float64],
    prevalence: float,
) -> PointFigures:
    """Return what a threshold reaches on patients it was not fixed on."""
    reached = rates(probabilities >= threshold.value, labels, counts)
    return PointFigures(
        name=threshold.name,
        threshold=threshold.value,
        sensitivity=estimate(reached.sensitivity),
        specificity=estimate(reached.specificity),
        ppv=estimate(reached.ppv(prevalence)),
        npv=estimate(reached.npv(prevalence)),
        f1=estimate(reached.f1(prevalence)),
    )


def decision_curve(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], counts: NDArray[np.float64]
) -> DecisionCurve:
    """Return net benefit TP / n - FP / n x t / (1 - t) over thresholds t.

    Source: Vickers and Elkin, Decision Curve Analysis, Med Decis Making 2006.
    """
    odds = np.array(THRESHOLDS) / (1 - np.array(THRESHOLDS))
    worth = np.where(labels[:, None], 1.0, -odds)  # (P, thresholds), of treating each patient
    benefit = counts @ np.where(probabilities[:, None] >= np.array(THRESHOLDS), worth, 0.0)
    benefit = benefit / counts.sum(axis=1, keepdims=True)  # (R, thresholds)
    return DecisionCurve(
        event_rate=float(labels.mean()),
        thresholds=THRESHOLDS,
        model=tuple(estimate(each) for each in benefit.T),
        treat_all=tuple(float(each) for each in worth.mean(axis=0)),
    )
