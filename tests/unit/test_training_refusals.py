"""What nobody can learn from, or be chosen by, is refused in plain words; what is harmless is avoided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.models import TemporalNetwork
from inference.training.answers import (
    last_scans_logits,
    recurrence_auroc,
)
from inference.training.cohort import Cohort
from inference.training.fit import Schedule, Session, fit
from inference.training.lessons import heads_lesson, order_lesson, recurrence_lesson
from inference.training.reading import encode_cohort
from tests.factories.lessons import EVERYONE, SCHEDULE, TINY, brightening, cohort_of_noise, recurrence, tiny_network


@pytest.fixture
def cohort() -> Cohort:
    """Return twelve patients whose scans get brighter with time."""
    return brightening()


def test_a_score_that_is_no_number_ends_the_training(cohort: Cohort) -> None:
    """It is never better than another, so the weights of the start would pass for trained ones."""
    lesson = replace(recurrence(cohort), score=lambda _: float("nan"))
    with pytest.raises(ValueError, match="recurrence, epoch 1: expected a finite validation score, found nan"):
        fit(tiny_network(), lesson, SCHEDULE, Session())


def test_a_loss_that_is_no_number_ends_the_training(cohort: Cohort) -> None:
    """Weights that are no numbers answer nothing."""
    lesson = recurrence(cohort)
    lesson = replace(lesson, scans=lambda batch, generator: recurrence(cohort).scans(batch, generator) * float("nan"))
    with pytest.raises(ValueError, match="recurrence, epoch 1: expected a finite training loss, found nan"):
        fit(tiny_network(), lesson, SCHEDULE, Session())


def test_weights_that_are_no_numbers_end_the_training(cohort: Cohort) -> None:
    """The last step of all can ruin them, after a loss that was finite; their guesses are half right."""
    ruinous = Schedule(epochs=1, encoder_rate=1e-3, head_rate=float("inf"), batch_patients=len(EVERYONE))
    with pytest.raises(ValueError, match="order, epoch 1: expected a finite norm of the weights, found nan"):
        fit(tiny_network(), order_lesson(cohort, cohort, patients=EVERYONE), ruinous, Session())


def test_validation_without_both_outcomes_is_refused_before_training(cohort: Cohort) -> None:
    """Patients of two scans answer nothing about three to six; the message counts what there is."""
    with pytest.raises(ValueError, match=r"validation patients: .* found with at least 3 scans 0 and 0, 4 scans"):
        recurrence_lesson(cohort, cohort_of_noise([2] * 8), patients=EVERYONE)
    network = tiny_network()
    few = cohort_of_noise([2, 3, 3, 4], [1, 1, 0, 0])
    logits = last_scans_logits(network, few, encode_cohort(network, few))[2]
    assert recurrence_auroc(network, few) == float(logits[1] > logits[2]) / 2 + float(logits[1] > logits[3]) / 2


def test_order_without_scans_of_different_days_is_refused_before_training(cohort: Cohort) -> None:
    """Nothing can be asked of single scans."""
    with pytest.raises(ValueError, match=r"order, validation patients: .* found 4 without"):
        order_lesson(cohort, cohort_of_noise([1] * 4), patients=EVERYONE)
    with pytest.raises(ValueError, match=r"order, training patients: .* found 2 without"):
        order_lesson(cohort_of_noise([1, 1, 3]), cohort, patients=np.arange(2))


@pytest.mark.parametrize(
    ("labels", "found"),
    [([0, 0, 0], "0 with, 3 without and 0 of"), ([1, 1, -1], "2 with, 0 without and 1 of"), ([-1] * 3, "0 with, 0 ")],
)
def test_one_outcome_teaches_nothing_and_is_refused(cohort: Cohort, labels: list[int], found: str) -> None:
    """No event, nothing but events, nobody labelled: each round says what it found."""
    train, patients = cohort_of_noise([3, 4, 3], labels), np.arange(3)
    with pytest.raises(ValueError, match=found):
        recurrence_lesson(train, cohort, patients=patients)
    with pytest.raises(ValueError, match=found):
        heads_lesson(tiny_network(), train, cohort, patients=patients)


def test_a_last_batch_of_one_scan_joins_the_one_before(cohort: Cohort) -> None:
    """Batch normalisation cannot learn from one scan; batches that are all of one are refused."""
    train, standardised = cohort_of_noise([1, 1, 1, 1, 1]), TemporalNetwork(replace(TINY, standardise=True))
    lesson = recurrence_lesson(train, cohort, patients=np.arange(5))
    fit(standardised, lesson, replace(SCHEDULE, batch_patients=2), Session())
    with pytest.raises(ValueError, match="expected two scans or more in every batch"):
        fit(standardised, lesson, replace(SCHEDULE, batch_patients=1), Session())


def test_the_order_pretext_learns_from_patients_with_an_order_only(cohort: Cohort) -> None:
    """Single scans are left out, so no batch is without a question."""
    train = cohort_of_noise([1, 3, 1, 2])
    assert order_lesson(train, cohort, patients=np.arange(4)).patients.tolist() == [1, 3]
