"""What an arm says of every patient at the final landmark: one row per patient, however many scans there are.

The final landmark is the newest scan. A longitudinal arm answers from all scans it has of a patient (six at most), a
single-scan arm from the newest. Patients whose follow-up ended too early to know are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.bootstrap import Sampling
from inference.evaluation.calibration import fit_platt, platt_probabilities
from inference.evaluation.resampled import rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from inference.bundle_parts import Calibration
    from inference.evaluation.predictions import Predictions

    Calibrate = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]  # (number of scans, logits) -> probabilities

_MOST_THRESHOLDS = 400


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Answers:
    """One arm's logits at the final landmark of N labelled patients, one row per seed, and how many scans were read."""

    name: str
    logits: NDArray[np.float64]  # (seeds, N)
    scans: NDArray[np.int64]  # (N,)
    labels: NDArray[np.bool_]  # (N,)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Return logits averaged over seeds (N,): what is scored."""
        return np.asarray(self.logits.mean(axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What was fixed for an arm on validation patients, before the test: threshold on the mean logit, and scaling."""

    threshold: float
    scaling: Calibration


def labelled(predictions: Predictions) -> NDArray[np.bool_]:
    """Return which patients have a known label.

    Raises:
        ValueError: if events or patients without one are missing.
    """
    rows = np.asarray(predictions.labels >= 0)
    events = int((predictions.labels == 1).sum())
    if not 0 < events < rows.sum():
        raise ValueError(
            f"{predictions.population}: expected patients with and without event, found {events} events in "
            f"{int(rows.sum())} patients whose outcome is known"
        )
    return rows


def final_answers(predictions: Predictions, arm: str) -> Answers:
    """Return an arm's answers from the most scans that it answered for.

    Raises:
        ValueError: if the arm is missing, or answered nothing for a patient whose outcome is known.
    """
    if arm not in predictions.logits:
        raise ValueError(f"{predictions.population}: expected arm {arm!r}, found {sorted(predictions.logits)}")
    rows = labelled(predictions)
    logits = predictions.logits[arm][:, :, rows]  # (seeds, 6, N)
    known = np.asarray(np.isfinite(logits).all(axis=0))
    if not known.any(axis=0).all():
        silent = int((~known.any(axis=0)).sum())
        raise ValueError(f"{predictions.population}: arm {arm!r} says nothing of {silent} patients")
    scans = known.shape[0] - np.argmax(known[::-1], axis=0)  # the longest length answered
    return Answers(
        name=arm,
        logits=np.take_along_axis(logits, (scans - 1)[None, None, :], axis=1)[:, 0],
        scans=scans,
        labels=predictions.labels[rows] == 1,
    )


def fix(validation: Answers, prevalence: float) -> Fixed:
    """Return the threshold of the best F1 at the declared prevalence and the Platt scaling, on validation patients."""
    return Fixed(
        threshold=best_f1_threshold(validation.mean, validation.labels, prevalence),
        scaling=fit_platt(validation.mean, validation.labels),
    )


def best_f1_threshold(scores: NDArray[np.float64], labels: NDArray[np.bool_], prevalence: float) -> float:
    """Return the threshold with the highest F1 at a prevalence; positive means score >= threshold."""
    thresholds = np.unique(scores)
    if len(thresholds) > _MOST_THRESHOLDS:
        thresholds = np.quantile(thresholds, np.linspace(0, 1, _MOST_THRESHOLDS))
    whole = Sampling(resamples=0).counts(len(labels))
    found = rates(scores[:, None] >= thresholds, labels, whole).f1(prevalence)[0]
    return float(thresholds[int(np.nanargmax(found))])


def scaled(answers: Answers, fixed: Fixed) -> NDArray[np.float64]:
    """Return probabilities (N,) by the scaling fixed on validation, alike for every arm."""
    return platt_probabilities(answers.mean, fixed.scaling)


def delivered_probabilities(
    logits: NDArray[np.float64], scans: NDArray[np.int64], calibrate: Calibrate
) -> NDArray[np.float64]:
    """Return the probabilities (..., N) that a report would show: calibrated per number of scans."""
    probabilities = np.full(logits.shape, np.nan)
    for length in np.unique(scans):
        rows = scans == length
        probabilities[..., rows] = calibrate(int(length), logits[..., rows])
    return probabilities
