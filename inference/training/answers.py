"""What a trained network answers about the patients of a cohort, and the two scores that choose its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.metrics import auroc
from inference.evaluation.predictions import LENGTHS
from inference.training.examples import Example, order_of_windows
from inference.training.reading import encode_cohort, read

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from inference.models import Network
    from inference.training.cohort import Cohort

VALIDATED_LENGTHS = (3, 4, 5, 6)  # numbers of scans whose mean validation AUROC chooses the weights of a sequence model


def last_scans_logits(network: Network, cohort: Cohort, features: Tensor) -> NDArray[np.float64]:
    """Return logits (6, P) from each patient's last 1 to 6 scans, members averaged; NaN where it has fewer."""
    return _by_length(network, cohort, features, newest=True)


def prefix_logits(network: Network, cohort: Cohort, features: Tensor) -> NDArray[np.float64]:
    """Return logits (6, P) from each patient's first 1 to 6 scans, members averaged; NaN where it has fewer."""
    return _by_length(network, cohort, features, newest=False)


def one_dropped_logits(network: Network, cohort: Cohort, features: Tensor) -> NDArray[np.float64]:
    """Return logits (6, P) from all of a patient's scans but the first, the second, ...; NaN where too few are left."""
    answers = np.full((len(LENGTHS), len(cohort)), np.nan)
    for row in range(len(LENGTHS)):
        patients = np.flatnonzero(cohort.n_scans() > max(row, 1))
        if len(patients):
            examples = [_without(cohort, int(patient), row) for patient in patients]
            answers[row, patients] = read(network, features, examples).mean(axis=0)
    return answers


def prefix_labels(cohort: Cohort) -> NDArray[np.int8]:
    """Return (6, P): each prefix's own label, -1 where nobody knows or there is no such prefix."""
    labels = np.full((len(LENGTHS), len(cohort)), -1, dtype=np.int8)
    for patient in range(len(cohort)):
        for place, scan in enumerate(cohort.scans(patient)):
            labels[place, patient] = cohort.label(patient, int(cohort.days[scan]))
    return labels


def recurrence_auroc(
    network: Network,
    cohort: Cohort,
    *,
    features: Tensor | None = None,
    lengths: tuple[int, ...] = VALIDATED_LENGTHS,
) -> float:
    """Return the mean AUROC over the last 3, 4, 5 and 6 scans (or other `lengths`) of the labelled patients.

    `features` (S, D) spare the encoding where they are known.
    """
    features = encode_cohort(network, cohort) if features is None else features
    logits, known = last_scans_logits(network, cohort, features), cohort.labels >= 0
    areas = []
    for length in lengths:
        rows = known & np.isfinite(logits[length - 1])
        areas.append(auroc(logits[length - 1, rows], cohort.labels[rows] == 1))
    return float(np.nanmean(areas))


def order_accuracy(network: Network, cohort: Cohort, *, seed: int = 0) -> float:
    """Return the share of sequences whose order is told right; chance is one half."""
    told, _ = _order_told(network, cohort, seed)
    return float(told.mean())


def order_accuracies(network: Network, cohort: Cohort, *, seed: int = 0) -> NDArray[np.float64]:
    """Return each patient's share of sequences whose order is told right, for patients with two scans or more."""
    told, whose = _order_told(network, cohort, seed)
    return np.array([told[whose == patient].mean() for patient in np.unique(whose)])


def _order_told(network: Network, cohort: Cohort, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return for each of a few true and false orders of every patient whether it was told right, and whose it is."""
    ask = order_of_windows(cohort, max_windows=4)
    examples = ask(np.arange(len(cohort)), np.random.default_rng(seed))
    logits = read(network, encode_cohort(network, cohort), examples).mean(axis=0)
    whose = np.searchsorted(cohort.first, [each.places[0] for each in examples], side="right") - 1
    return (logits > 0) == np.array([each.target > 0.5 for each in examples]), whose


def _by_length(network: Network, cohort: Cohort, features: Tensor, *, newest: bool) -> NDArray[np.float64]:
    answers = np.full((len(LENGTHS), len(cohort)), np.nan)
    for row, length in enumerate(LENGTHS):
        patients = np.flatnonzero(cohort.n_scans() >= length)
        if not len(patients):
            continue
        examples = [_example(cohort, int(patient), length, newest=newest) for patient in patients]
        answers[row, patients] = read(network, features, examples).mean(axis=0)
    return answers


def _without(cohort: Cohort, patient: int, dropped: int) -> Example:
    used = [scan for place, scan in enumerate(cohort.scans(patient)) if place != dropped]
    return Example(places=tuple(used), days=tuple(cohort.days[used].tolist()))


def _example(cohort: Cohort, patient: int, length: int, *, newest: bool) -> Example:
    scans = cohort.scans(patient)
    used = scans[-length:] if newest else scans[:length]
    return Example(places=tuple(used), days=tuple(cohort.days[used.start : used.stop].tolist()))
