"""What a trained network answers about the patients of a cohort, and the two scores that choose its weights.

Of a patient with more than six scans only the newest six are read: prefixes begin with the oldest of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.metrics import auroc
from inference.evaluation.predictions import LENGTHS
from inference.training.cohort import MAX_SCANS, UNKNOWN
from inference.training.examples import Example, newest_scans, order_of_windows
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
        patients = np.flatnonzero(_n_read(cohort) > max(row, 1))
        if len(patients):
            examples = [_without(cohort, int(patient), row) for patient in patients]
            answers[row, patients] = read(network, features, examples).mean(axis=0)
    return answers


def prefix_labels(cohort: Cohort) -> NDArray[np.int8]:
    """Return (6, P): each prefix's own label, -1 where nobody knows or there is no such prefix."""
    labels = np.full((len(LENGTHS), len(cohort)), -1, dtype=np.int8)
    for patient in range(len(cohort)):
        for place, scan in enumerate(newest_scans(cohort, patient)):
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

    Lengths at which only one outcome was observed are left out. `features` (S, D) spare the encoding where they are
    known.

    Raises:
        ValueError: if no length has patients of both outcomes.
    """
    scored = scored_lengths(cohort, lengths)
    features = encode_cohort(network, cohort) if features is None else features
    logits, labelled = last_scans_logits(network, cohort, features), cohort.labels != UNKNOWN
    areas = []
    for length in scored:
        rows = labelled & (cohort.n_scans() >= length)
        areas.append(auroc(logits[length - 1, rows], cohort.labels[rows] == 1))
    return float(np.mean(areas))


def scored_lengths(cohort: Cohort, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths at which patients of both outcomes have so many scans.

    Raises:
        ValueError: if there are none.
    """
    found = {length: cohort.labels[cohort.n_scans() >= length] for length in lengths}
    scored = tuple(length for length, labels in found.items() if {0, 1} <= set(labels.tolist()))
    if not scored:
        counts = ", ".join(f"{n} scans {(of == 1).sum()} and {(of == 0).sum()}" for n, of in found.items())
        raise ValueError(
            f"recurrence, validation patients: expected some with an event within the horizon and some without, found "
            f"with at least {counts}"
        )
    return scored


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
    everyone = np.arange(len(cohort))
    examples = order_of_windows(cohort, max_windows=4)(everyone, np.random.default_rng(seed))
    newest = np.concatenate([newest_scans(cohort, patient) for patient in range(len(cohort))])
    logits = read(network, encode_cohort(network, cohort)[newest], examples).mean(axis=0)
    whose = np.repeat(everyone, _n_read(cohort))[[each.places[0] for each in examples]]
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


def _n_read(cohort: Cohort) -> NDArray[np.int64]:
    """Return (P,): how many scans of each patient are read."""
    return np.minimum(cohort.n_scans(), MAX_SCANS)


def _without(cohort: Cohort, patient: int, dropped: int) -> Example:
    used = [scan for place, scan in enumerate(newest_scans(cohort, patient)) if place != dropped]
    return Example(places=tuple(used), days=tuple(cohort.days[used].tolist()))


def _example(cohort: Cohort, patient: int, length: int, *, newest: bool) -> Example:
    scans = newest_scans(cohort, patient)
    used = scans[-length:] if newest else scans[:length]
    return Example(places=tuple(used), days=tuple(cohort.days[used.start : used.stop].tolist()))
