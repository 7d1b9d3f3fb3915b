"""The arms of the experiment differ in what they are named after, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from inference.models import SIZES
from inference.training.arms import Arm, Effort, train_arm
from inference.training.cohort import Cohort
from inference.training.examples import order_of_windows
from inference.training.fit import EpochReport, Session, fit
from inference.training.lessons import order_lesson
from tests.factories.lessons import EVERYONE, SCHEDULE, TINY, brightening, cohort_of_noise, tiny_network


@pytest.fixture
def cohort() -> Cohort:
    """Return twelve patients whose scans get brighter with time."""
    return brightening()


@pytest.mark.parametrize("arm", Arm)
def test_every_arm_trains_one_network(cohort: Cohort, arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms without a pretext spend its epochs on recurrence, so that all see as many updates."""
    monkeypatch.setitem(SIZES, "tiny", TINY)
    told: list[EpochReport] = []
    effort = Effort(size="tiny", heads_epochs=1)
    session = Session(report=told.append)
    network = train_arm(arm, cohort, cohort, patients=EVERYONE[:8], effort=effort, seed=1, session=session)
    assert not network.training
    assert len([each for each in told if each.lesson != "heads"]) == 2


def test_every_arm_makes_as_many_costly_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder and heads learn as often in all arms, also where some patients have no label or no order."""
    monkeypatch.setitem(SIZES, "tiny", TINY)
    cohort = cohort_of_noise([3, 4, 3, 6, 2, 3, 1, 3, 3], [0, 1, 0, 1, 0, 1, 1, -1, -1])
    effort = Effort(size="tiny", encoder_rate=0.0, head_rate=0.0, heads_epochs=1, recurrence_epochs=5, batch_patients=2)
    train = partial(train_arm, patients=np.arange(9), effort=effort, seed=1, session=Session())
    counted = {arm: _encoder_updates(partial(train, arm, cohort, cohort)) for arm in Arm}
    assert counted == dict.fromkeys(Arm, 3 * 6)


def _encoder_updates(train: Callable[[], object]) -> int:
    """Return how many optimiser steps had a gradient for the encoder."""
    steps: list[bool] = []

    def count(optimizer: Optimizer, _args: object, _options: object) -> None:
        steps.append(any(each.grad is not None for each in optimizer.param_groups[0]["params"]))

    handle = register_optimizer_step_post_hook(count)
    train()
    handle.remove()
    return sum(steps)


def test_a_sham_pretext_shows_the_same_scans_without_their_order(cohort: Cohort) -> None:
    """Same windows, same sequences; the labels are a coin's."""
    true, sham = (order_of_windows(cohort, sham=each)(EVERYONE, np.random.default_rng(3)) for each in (False, True))
    assert len(true) == len(sham)
    assert np.mean([each.target for each in true]) == 0.5
    assert 0.3 < np.mean([each.target == other.target for each, other in zip(true, sham, strict=True)]) < 0.7


def test_a_sham_pretext_keeps_its_last_epoch(cohort: Cohort) -> None:
    """To choose an epoch by the true order would teach the control what it must not know."""
    kept: list[dict[str, torch.Tensor]] = []
    network = tiny_network()

    def keep(_: EpochReport) -> None:
        kept.append({name: each.clone() for name, each in network.state_dict().items()})

    scores = iter([0.9, 0.5, 0.4])
    lesson = order_lesson(cohort, cohort, patients=EVERYONE, sham=True)
    schedule = replace(SCHEDULE, epochs=3, patience=1)
    fit(network, replace(lesson, score=lambda _: next(scores)), schedule, Session(report=keep))
    assert len(kept) == 3
    assert all(torch.equal(each, kept[-1][name]) for name, each in network.state_dict().items())
    assert not order_lesson(cohort, cohort, patients=EVERYONE).keep_last
