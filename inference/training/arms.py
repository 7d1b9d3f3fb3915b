"""The arms of the experiment: five ways to one question, with the same scans, updates and tuning trials each.

    single    every scan alone, with its own label
    scratch   the patient's last 1 to 6 scans, from random weights
    sham      as `order`, but the order labels of the pretext are a coin's
    order     order verification first, then recurrence: the published recipe
    order+gap as `order`, and recurrence also reads when the scans were acquired (an ablation; off in the published one)

Every arm sees, in all its rounds, the patients whose label is known and whose scans have an order. One without a
pretext trains on recurrence for the epochs that the others spend on the pretext, and none of these ends early: so the
updates of encoder and heads together are as many in every arm. Only the last round, the heads alone, stops when
validation no longer improves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import torch

from inference.models import SIZES
from inference.models.temporal import TemporalNetwork
from inference.training.examples import with_windows
from inference.training.fit import Schedule, Session, fit
from inference.training.lessons import heads_lesson, order_lesson, recurrence_lesson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inference.models import TemporalConfig
    from inference.training.cohort import Cohort


class Arm(StrEnum):
    """A way to train."""

    SINGLE = "single"
    SCRATCH = "scratch"
    SHAM = "sham"
    ORDER = "order"
    GAP = "order+gap"


WITH_PRETEXT = (Arm.SHAM, Arm.ORDER, Arm.GAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much every arm may train, and how fast; only the encoder's rate is tuned."""

    pretext_epochs: int = 1
    recurrence_epochs: int = 1
    heads_epochs: int = 20
    encoder_rate: float = 1e-3
    head_rate: float = 1e-3
    heads_rate: float = 5e-4
    layer_decay: float = 1.0
    batch_patients: int = 4
    size: str = "small"
    width: int | None = None  # None: that of the size


def train_arm(
    arm: Arm,
    train: Cohort,
    validation: Cohort,
    *,
    patients: NDArray[np.int64],
    effort: Effort,
    seed: int,
    session: Session,
) -> TemporalNetwork:
    """Train one network of an arm on `patients` of the training cohort; equal arguments give equal weights on a CPU.

    Raises:
        ValueError: if the patients, or those of validation, are not of both outcomes, or their scans have no order.
    """
    single, pretext = arm is Arm.SINGLE, arm in WITH_PRETEXT
    torch.manual_seed(seed)
    network = TemporalNetwork(configuration(arm, effort))
    schedule = order_schedule(effort, seed=seed)
    epochs = effort.recurrence_epochs
    recurrence = recurrence_lesson(train, validation, patients=with_windows(train, patients), single=single)
    patients = recurrence.patients
    if pretext and effort.pretext_epochs:
        network = fit(
            network, order_lesson(train, validation, patients=patients, sham=arm is Arm.SHAM), schedule, session
        )
        torch.manual_seed(seed)
        network.reset_classifiers()
    else:
        epochs += effort.pretext_epochs
    network = fit(network, recurrence, replace(schedule, epochs=epochs, patience=epochs), session)
    lesson = heads_lesson(network, train, validation, patients=patients, single=single)
    last = replace(schedule, epochs=effort.heads_epochs, encoder_rate=0.0, head_rate=effort.heads_rate, patience=6)
    return fit(network, lesson, last, session)


def order_schedule(effort: Effort, *, seed: int) -> Schedule:
    """Return the schedule of the pretext, without an early end; recurrence differs from it in its epochs only."""
    return Schedule(
        epochs=effort.pretext_epochs,
        encoder_rate=effort.encoder_rate,
        head_rate=effort.head_rate,
        layer_decay=effort.layer_decay,
        batch_patients=effort.batch_patients,
        patience=effort.pretext_epochs,
        seed=seed,
    )


def configuration(arm: Arm, effort: Effort) -> TemporalConfig:
    """Return the shapes of an arm's network."""
    size = SIZES[effort.size]
    return replace(size, width=effort.width or size.width, time_gap=arm is Arm.GAP)
