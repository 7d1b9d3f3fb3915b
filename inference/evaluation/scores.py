"""How a network answers on unseen phantoms, per number of scans, beside the best that any reader could do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.bundle import Calibration, OperatingPoint, Score
from inference.evaluation.calibration import calibrate
from inference.evaluation.metrics import auroc, auroc_interval, brier, expected_calibration_error
from inference.phantom import Dials, bayes_ceiling
from inference.training.loops import encode_cohort, last_scans_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.models import TemporalNetwork
    from inference.training.cohort import Cohort

N_SCANS = (1, 2, 3, 4, 5, 6)


def cohort_logits(
    network: TemporalNetwork, cohort: Cohort, lengths: Sequence[int] = N_SCANS
) -> dict[int, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Return, per number of scans, mean logits (N,) and labels (N,) of all labelled patients with that many scans."""
    features = encode_cohort(network, cohort)
    known = cohort.labelled()
    answers = {}
    for length in lengths:
        patients = known[[len(cohort.scans(int(patient))) >= length for patient in known]]
        logits = last_scans_logits(network, cohort, features, patients, length).mean(axis=0)
        answers[length] = (logits, cohort.labels[patients] == 1)
    return answers


def score(logits: NDArray[np.float64], labels: NDArray[np.bool_], calibration: Calibration, *, n_scans: int) -> Score:
    """Return the scores for one number of scans; one row is one patient."""
    probabilities = calibrate(logits, calibration)
    lower, upper = auroc_interval(logits, labels)
    return Score(
        n_scans=n_scans,
        n_patients=len(labels),
        auroc=auroc(logits, labels),
        auroc_lower=lower,
        auroc_upper=upper,
        brier=brier(probabilities, labels),
        ece=expected_calibration_error(probabilities, labels),
        ceiling_auroc=bayes_ceiling(Dials(), n_scans),
    )


def score_cohort(network: TemporalNetwork, cohort: Cohort, calibration: Calibration) -> tuple[Score, ...]:
    """Return the scores for the last 1 to 6 scans of a cohort that the network has never seen."""
    answers = cohort_logits(network, cohort)
    return tuple(score(*answers[n_scans], calibration, n_scans=n_scans) for n_scans in N_SCANS)


def operating_point(
    name: str, threshold: float, logits: NDArray[np.float64], labels: NDArray[np.bool_], calibration: Calibration
) -> OperatingPoint:
    """Return what a threshold on the calibrated probability reaches."""
    positive = calibrate(logits, calibration) >= threshold
    return OperatingPoint(
        name=name,
        threshold=threshold,
        sensitivity=float(positive[labels].mean()),
        specificity=float((~positive[~labels]).mean()),
    )
