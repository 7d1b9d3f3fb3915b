"""What a test trains in a second: a tiny network, few patients, a short schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.models import TemporalConfig, TemporalNetwork
from inference.training.fit import Lesson, Schedule
from inference.training.lessons import recurrence_lesson
from tests.factories.cohorts import cohort_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.training.cohort import Cohort

SCANS = np.array([3, 2, 4, 3, 6, 2, 5, 3, 4, 2, 3, 3])
EVERYONE = np.arange(len(SCANS))
SCHEDULE = Schedule(epochs=2, encoder_rate=1e-3, head_rate=1e-2, batch_patients=4)
TINY = TemporalConfig(width=2, input_shape=(16, 16, 16), hidden=8, stem_kernel=3, members=2)


def tiny_network() -> TemporalNetwork:
    """Return a network that is the same each time."""
    torch.manual_seed(0)
    return TemporalNetwork(TINY)


def brightening() -> Cohort:
    """Return twelve patients whose scans get brighter with time, faster in those with an event; one is censored."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 6, dtype=np.int8)
    volumes, days = [], []
    for label, count in zip(labels, SCANS, strict=True):
        levels = 60 + np.arange(count) * (25 if label else 2)
        volumes.append(levels[:, None, None, None] + rng.integers(0, 20, (count, 16, 16, 16)))
        days.append(range(-100 * (int(count) - 1), 1, 100))
    labels[-2] = -1
    return cohort_of(np.concatenate(volumes).astype(np.uint8), days, labels.tolist())


def cohort_of_noise(counts: Sequence[int], labels: Sequence[int] | None = None) -> Cohort:
    """Return patients with so many scans of noise, 100 days apart; unless told, every other one has an event."""
    volumes = np.random.default_rng(0).integers(1, 255, (sum(counts), 16, 16, 16)).astype(np.uint8)
    days = [range(-100 * (count - 1), 1, 100) for count in counts]
    return cohort_of(volumes, days, labels or [number % 2 for number in range(len(counts))])


def recurrence(cohort: Cohort) -> Lesson:
    """Return recurrence, learnt from and chosen on all patients of a cohort."""
    return recurrence_lesson(cohort, cohort, patients=EVERYONE)
