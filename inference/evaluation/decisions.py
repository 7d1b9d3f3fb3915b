"""What acting on the delivered probability would bring: operating points fixed on validation, and net benefit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.answers import best_f1_threshold
from inference.evaluation.bootstrap import Estimate, estimate
from inference.evaluation.resampled import rates

if TYPE_CHECKING:
    from numpy.typing import NDArray

BEST_F1 = "best F1"
SENSITIVE, SPECIFIC = 0.90, 0.90  # targets on validation
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


def operating_thresholds(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], prevalence: float
) -> dict[str, float]:
    """Return named thresholds fixed on validation; positive means probability >= threshold."""
    events, others = np.sort(probabilities[labels]), np.sort(probabilities[~labels])
    missed = int(np.floor((1 - SENSITIVE) * len(events)))  # so many events may lie below
    spared = int(np.ceil(SPECIFIC * len(others)))  # so many others must lie below
    above = others[spared - 1] if spared else 0.0
    return {
        BEST_F1: best_f1_threshold(probabilities, labels, prevalence),
        f"sensitivity {SENSITIVE:.0%}": float(events[missed]),
        f"specificity {SPECIFIC:.0%}": float(np.nextafter(above, np.inf)),
    }


def point_figures(
    name: str,
    threshold: float,
    *,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.bool_],
    counts: NDArray[np.float64],
    prevalence: float,
) -> PointFigures:
    """Return what a threshold reaches on patients it was not fixed on."""
    reached = rates(probabilities >= threshold, labels, counts)
    return PointFigures(
        name=name,
        threshold=threshold,
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
