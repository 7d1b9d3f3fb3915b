"""What needs no network: the gap between scans, the number of scans, and how fast bright voxels multiply.

Surveillance gaps and scan counts carry a clinician's suspicion. Where they tell the outcome, a network may have learnt
the clinic's calendar instead of the tumour; both must say nothing on phantoms with independent gaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.answers import Answers, labelled
from inference.evaluation.resampled import recalibrations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from inference.evaluation.bootstrap import Estimate
    from inference.evaluation.predictions import Predictions

GAP, COUNT, VOLUME = "gap only", "scan count only", "lesion-volume rule"
BASELINES = (GAP, COUNT, VOLUME)
LEAK_LOWER, LEAK_AUROC = 0.55, 0.60  # declared before any training


def baseline_answers(fitting: Predictions, target: Predictions) -> dict[str, Answers]:
    """Return each baseline's answers for the target: a logistic regression on one number, fitted elsewhere.

    A missing number (one scan has no gap) counts as the mean of the patients it was fitted on.

    Raises:
        ValueError: if the patients to fit on, or to answer for, are of one class.
    """
    learn, answer = labelled(fitting), labelled(target)
    labels = fitting.labels[learn] == 1
    answers = {}
    for name in BASELINES:
        known, asked = _number(fitting, name)[learn], _number(target, name)[answer]
        answers[name] = Answers(
            name=name,
            logits=_logistic(known, labels, asked)[None],
            scans=np.asarray(target.n_scans[answer]),
            labels=target.labels[answer] == 1,
        )
    return answers


def tells(found: Estimate) -> bool:
    """Return whether a figure that should be 0.5 tells something, in either direction: the rule for leaks."""
    above = found.lower > LEAK_LOWER or found.value > LEAK_AUROC
    below = found.upper < 1 - LEAK_LOWER or found.value < 1 - LEAK_AUROC
    return above or below


def leaks(arms: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Return a warning for gap or count, if it tells the outcome in either direction."""
    warnings = []
    for name in (GAP, COUNT):
        found = arms[name]
        if tells(found):
            warnings.append(
                f"LEAK: {name} reaches AUROC {found.value:.3f} ({found.lower:.3f} to {found.upper:.3f}); expected "
                f"0.5. When scans were made tells the outcome, so no arm's figure here is evidence about images."
            )
    return tuple(warnings)


def _number(predictions: Predictions, name: str) -> NDArray[np.float64]:
    """Return the one number a baseline looks at (P,)."""
    if name == GAP:
        return np.log(np.maximum(predictions.mean_gaps_days, 1.0))
    if name == COUNT:
        return predictions.n_scans.astype(float)
    return predictions.volume_slopes


def _logistic(known: NDArray[np.float64], labels: NDArray[np.bool_], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return logits of a one-number logistic regression, of either sign; all alike where the number never differs."""
    finite = known[np.isfinite(known)]
    if not len(finite) or np.ptp(finite) == 0:
        return np.zeros(len(asked))
    mean, spread = float(finite.mean()), float(finite.std())
    known, asked = (np.nan_to_num((each - mean) / spread) for each in (known, asked))
    slope, intercept = recalibrations(known, labels, np.ones((1, len(known))))
    return np.asarray(slope[0] * asked + intercept[0])
