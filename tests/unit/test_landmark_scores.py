"""Landmarks are scored by the year and pooled, and a patient with many rows is one patient still."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inference.bundle_parts import Calibration
from inference.evaluation.bootstrap import Sampling
from inference.evaluation.landmarks import LandmarkAnswers, landmarks_json, landmarks_text, score_landmarks
from inference.models import TemporalConfig, TemporalNetwork
from inference.training.landmark_answers import landmark_answers
from tests.factories.cohorts import cohort_of

TINY = TemporalConfig(width=2, input_shape=(16, 16, 16), hidden=8, stem_kernel=3)
SAMPLING = Sampling(resamples=500)


def answers_of(rows: list[tuple[int, int, float, bool]], patients: int) -> LandmarkAnswers:
    """Return rows of (year, patient, probability, label)."""
    years, whose, probabilities, labels = (np.array(each) for each in zip(*rows, strict=True))
    return LandmarkAnswers(
        n_patients=patients, years=years, whose=whose, probabilities=probabilities, labels=labels.astype(bool)
    )


def test_each_year_is_scored_and_then_all_rows() -> None:
    """By hand: one of two pairs in the first year, the only one in the second, five of eight in all."""
    first = [(1, 0, 0.5, True), (1, 1, 0.4, False), (1, 2, 0.6, False)]
    second = [(2, 1, 0.3, True), (2, 2, 0.2, False)]
    third = [(3, 2, 0.1, False)]
    found = score_landmarks(answers_of([*first, *second, *third], 3), SAMPLING)
    assert [(each.year, each.n_patients, each.n_rows, each.n_events) for each in found] == [
        (1, 3, 3, 1),
        (2, 2, 2, 1),
        (3, 1, 1, 0),
        (None, 3, 6, 2),
    ]
    assert [each.auroc.value for each in found] == pytest.approx([1 / 2, 1, np.nan, 5 / 8], nan_ok=True)
    assert found[0].auprc.value == pytest.approx(1 / 2)
    assert json.loads(landmarks_json(found))[2]["auroc"] == {"value": None, "lower": None, "upper": None}
    assert "| 3 | 1 | 1 | 0 | - | - |" in landmarks_text(found)


def test_rows_of_a_patient_are_drawn_together() -> None:
    """A year in which every patient stands twice tells no more than one in which it stands once."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2 == 0
    scores = labels + rng.standard_normal(40) * 1.5
    once = [(1, patient, scores[patient], labels[patient]) for patient in range(40)]
    twice = [*once, *((2, *row[1:]) for row in once)]
    alone = score_landmarks(answers_of(once, 40), SAMPLING)[-1].auroc
    pooled = score_landmarks(answers_of(twice, 40), SAMPLING)[-1].auroc
    assert (pooled.value, pooled.lower, pooled.upper) == pytest.approx((alone.value, alone.lower, alone.upper))


def test_a_network_answers_at_every_landmark_whose_label_is_known() -> None:
    """From the scans up to there, whatever follows: what a later scan shows changes no earlier row."""
    rng = np.random.default_rng(0)
    days = [[-800, -600, -400, -100, 0], [-700, -300, 0]]
    volumes = rng.integers(1, 255, (8, 16, 16, 16)).astype(np.uint8)
    network = TemporalNetwork(TINY)
    calibration = Calibration(slope=2.0, intercept=0.5)
    found = landmark_answers(network, cohort_of(volumes, days, [1, 0]), calibration)
    assert found is not None
    assert list(zip(found.years.tolist(), found.whose.tolist(), found.labels.tolist(), strict=True)) == [
        (1, 0, False),
        (2, 0, True),
        (3, 0, True),
        (2, 1, False),
    ]
    changed = volumes.copy()
    changed[4] = 0
    again = landmark_answers(network, cohort_of(changed, days, [1, 0]), calibration)
    assert again is not None
    assert np.array_equal(again.probabilities[0], found.probabilities[0])
    assert ((found.probabilities > 0) & (found.probabilities < 1)).all()
    assert landmark_answers(network, cohort_of(volumes[:2], [[0], [0]], [1, 0]), calibration) is None
