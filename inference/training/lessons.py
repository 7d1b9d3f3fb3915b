"""The three rounds of training: the order of scans, then recurrence end to end, then recurrence by the heads alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.training.answers import VALIDATED_LENGTHS, order_accuracy, recurrence_auroc, scored_lengths
from inference.training.augment import augment
from inference.training.checkpoint import cohort_digest
from inference.training.examples import last_scans, newest_scans, order_of_windows, single_scans, with_windows
from inference.training.fit import Lesson
from inference.training.reading import encode_cohort, to_tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from inference.models import TemporalNetwork
    from inference.training.cohort import Cohort
    from inference.training.examples import ExamplesOf


def order_lesson(train: Cohort, validation: Cohort, *, patients: NDArray[np.int64], sham: bool = False) -> Lesson:
    """Return the pretext: were these scans shown in the order in which they were acquired? No label is read.

    A sham keeps its last epoch: to choose one by the true order would teach it some.

    Raises:
        ValueError: if nobody, of the patients or of validation, has scans of different days.
    """
    _ordered(validation, np.arange(len(validation)), "validation")
    return Lesson(
        name="sham-order" if sham else "order",
        patients=_ordered(train, patients, "training"),
        scans=_augmented(train),
        examples=order_of_windows(train, sham=sham),
        score=lambda network: order_accuracy(network, validation),
        keep_last=sham,
        fewest_scans=2,
        material=_material(train, validation),
    )


def recurrence_lesson(
    train: Cohort, validation: Cohort, *, patients: NDArray[np.int64], single: bool = False
) -> Lesson:
    """Return recurrence within the horizon, end to end; with `single`, from every scan alone with its own label.

    Raises:
        ValueError: if the patients, or those of validation, are not of both outcomes.
    """
    learners = _of_both_outcomes(train, patients)
    scored_lengths(validation, _validated(single=single))
    return Lesson(
        name="recurrence",
        patients=learners,
        scans=_augmented(train),
        examples=_recurrence(train, single=single),
        score=lambda network: recurrence_auroc(network, validation, lengths=_validated(single=single)),
        fewest_scans=int(train.n_scans()[learners].min()),
        material=_material(train, validation, single=single),
    )


def heads_lesson(
    network: TemporalNetwork,
    train: Cohort,
    validation: Cohort,
    *,
    patients: NDArray[np.int64],
    single: bool = False,
) -> Lesson:
    """Return recurrence for the heads alone: the encoder rests, so features are computed once, without augmentation.

    Raises:
        ValueError: if the patients, or those of validation, are not of both outcomes.
    """
    learners = _of_both_outcomes(train, patients)
    scored_lengths(validation, _validated(single=single))
    seen, unseen = encode_cohort(network, train), encode_cohort(network, validation)
    lengths = _validated(single=single)

    def features(batch: NDArray[np.int64], _generator: torch.Generator) -> Tensor:
        return torch.cat([seen[of.start : of.stop] for of in (newest_scans(train, int(each)) for each in batch)])

    return Lesson(
        name="heads",
        patients=learners,
        scans=features,
        examples=_recurrence(train, single=single),
        score=lambda network: recurrence_auroc(network, validation, features=unseen, lengths=lengths),
        resting=True,
        keep_better_start=True,
        material=_material(train, validation, single=single),
    )


def _augmented(cohort: Cohort) -> Callable[[NDArray[np.int64], torch.Generator], Tensor]:
    """Return what reads the augmented scans of a batch of patients, one patient after another."""

    def scans(batch: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        each = [newest_scans(cohort, int(patient)) for patient in batch]
        return torch.cat([augment(to_tensor(cohort.volumes[of.start : of.stop]), generator) for of in each])

    return scans


def _recurrence(train: Cohort, *, single: bool) -> ExamplesOf:
    return single_scans(train) if single else last_scans(train)


def _validated(*, single: bool) -> tuple[int, ...]:
    return (1,) if single else VALIDATED_LENGTHS


def _ordered(cohort: Cohort, patients: NDArray[np.int64], purpose: str) -> NDArray[np.int64]:
    """Return the patients whose order can be asked, if there are any."""
    asked = with_windows(cohort, patients)
    if not len(asked):
        raise ValueError(
            f"order, {purpose} patients: expected some with scans of two different days or more, "
            f"found {len(patients)} without"
        )
    return asked


def _of_both_outcomes(train: Cohort, patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the patients whose label is known, if some had an event and some had none."""
    labelled = np.intersect1d(patients, train.labelled())
    events = int((train.labels[labelled] == 1).sum())
    if not 0 < events < len(labelled):
        raise ValueError(
            f"recurrence, training patients: expected some with an event within the horizon and some without, found "
            f"{events} with, {len(labelled) - events} without and {len(patients) - len(labelled)} of unknown outcome"
        )
    return labelled


def _material(train: Cohort, validation: Cohort, *, single: bool = False) -> str:
    """Return what tells these cohorts and this way to read them from others."""
    return f"{cohort_digest(train)} {cohort_digest(validation)} {'single scans' if single else 'sequences'}"
