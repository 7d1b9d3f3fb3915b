"""The three rounds of training: the order of scans, then recurrence end to end, then recurrence by the heads alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.training.answers import VALIDATED_LENGTHS, order_accuracy, recurrence_auroc
from inference.training.augment import augment
from inference.training.examples import last_scans, order_of_windows, single_scans
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
    """Return the pretext: were these scans shown in the order in which they were acquired? No label is read."""
    return Lesson(
        name="sham-order" if sham else "order",
        patients=patients,
        scans=_augmented(train),
        examples=order_of_windows(train, sham=sham),
        score=lambda network: order_accuracy(network, validation),
    )


def recurrence_lesson(
    train: Cohort, validation: Cohort, *, patients: NDArray[np.int64], single: bool = False
) -> Lesson:
    """Return recurrence within the horizon, end to end; with `single`, from every scan alone with its own label."""
    return Lesson(
        name="recurrence",
        patients=np.intersect1d(patients, train.labelled()),
        scans=_augmented(train),
        examples=_recurrence(train, single=single),
        score=lambda network: recurrence_auroc(network, validation, lengths=_validated(single=single)),
    )


def heads_lesson(
    network: TemporalNetwork,
    train: Cohort,
    validation: Cohort,
    *,
    patients: NDArray[np.int64],
    single: bool = False,
) -> Lesson:
    """Return recurrence for the heads alone: the encoder rests, so features are computed once, without augmentation."""
    seen, unseen = encode_cohort(network, train), encode_cohort(network, validation)
    lengths = _validated(single=single)

    def features(batch: NDArray[np.int64], _generator: torch.Generator) -> Tensor:
        return torch.cat([seen[train.first[patient] : train.first[patient + 1]] for patient in batch])

    return Lesson(
        name="heads",
        patients=np.intersect1d(patients, train.labelled()),
        scans=features,
        examples=_recurrence(train, single=single),
        score=lambda network: recurrence_auroc(network, validation, features=unseen, lengths=lengths),
        resting=True,
        keep_better_start=True,
    )


def _augmented(cohort: Cohort) -> Callable[[NDArray[np.int64], torch.Generator], Tensor]:
    """Return what reads the augmented scans of a batch of patients, one patient after another."""

    def scans(batch: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        each = [cohort.scans(int(patient)) for patient in batch]
        return torch.cat([augment(to_tensor(cohort.volumes[of.start : of.stop]), generator) for of in each])

    return scans


def _recurrence(train: Cohort, *, single: bool) -> ExamplesOf:
    return single_scans(train) if single else last_scans(train)


def _validated(*, single: bool) -> tuple[int, ...]:
    return (1,) if single else VALIDATED_LENGTHS
