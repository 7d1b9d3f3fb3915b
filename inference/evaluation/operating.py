"""Operating points: a threshold chosen for a target on calibration patients, and what it reached on unseen ones.

A single threshold of 0.5 serves nobody: who wants to leave a visit out needs few missed recurrences, who wants to act
needs few false alarms. What a positive or negative answer means depends on how common the event is, so that predictive
values are told only for a prevalence that is declared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from inference.bundle_parts import OperatingPoint, PredictiveValues, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGETS: Final = {
    "rule-out": Target(measure="sensitivity", at_least=0.95),
    "rule-in": Target(measure="specificity", at_least=0.95),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A threshold on the calibrated probability, with a name and what it was chosen for."""

    name: str
    value: float
    target: Target | None = None


def choose_threshold(
    name: str, target: Target, probabilities: NDArray[np.float64], labels: NDArray[np.bool_]
) -> Threshold:
    """Return the threshold that reaches the target on calibration patients and costs the other measure least.

    Positive is a probability at or above the threshold; one row is one patient.

    Raises:
        ValueError: if only one class is there.
    """
    _need_both(name, labels)
    if target.measure == "sensitivity":
        events = np.sort(probabilities[labels])[::-1]
        needed = int(np.ceil(target.at_least * len(events) - 1e-9))
        value = float(events[needed - 1])
    else:
        others = np.sort(probabilities[~labels])
        needed = int(np.ceil(target.at_least * len(others) - 1e-9))
        value = float(np.nextafter(others[needed - 1], np.inf))
    return Threshold(name=name, value=min(value, 1.0), target=target)


def reached(
    threshold: Threshold,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.bool_],
    *,
    prevalence: float | None = None,
) -> OperatingPoint:
    """Return what a threshold reaches on unseen patients, one row each; predictive values at a declared prevalence.

    Raises:
        ValueError: if only one class is there.
    """
    _need_both(threshold.name, labels)
    positive = probabilities >= threshold.value
    sensitivity, specificity = float(positive[labels].mean()), float((~positive[~labels]).mean())
    return OperatingPoint(
        name=threshold.name,
        threshold=threshold.value,
        sensitivity=sensitivity,
        specificity=specificity,
        target=threshold.target,
        n_patients=len(labels),
        predictive_values=None if prevalence is None else _predictive(sensitivity, specificity, prevalence),
    )


def _predictive(sensitivity: float, specificity: float, prevalence: float) -> PredictiveValues:
    """Return positive and negative predictive value by Bayes' rule."""
    hits, alarms = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    misses, clear = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return PredictiveValues(
        prevalence=prevalence,
        ppv=hits / (hits + alarms) if hits + alarms else None,
        npv=clear / (clear + misses) if clear + misses else None,
    )


def _need_both(name: str, labels: NDArray[np.bool_]) -> None:
    events = int(labels.sum())
    if not 0 < events < len(labels):
        raise ValueError(f"operating point {name!r}: expected both classes, found {events} events in {len(labels)}")
