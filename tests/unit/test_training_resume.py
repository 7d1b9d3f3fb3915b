"""A training that was stopped goes on as if nothing had happened, and from no checkpoint but its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision

from inference.models import TemporalNetwork
from inference.training.cohort import Cohort
from inference.training.fit import EpochReport, Session, fit
from inference.training.lessons import order_lesson, recurrence_lesson
from tests.factories.lessons import EVERYONE, SCHEDULE, TINY, brightening, recurrence, tiny_network


@pytest.fixture
def cohort() -> Cohort:
    """Return twelve patients whose scans get brighter with time."""
    return brightening()


def test_a_run_that_was_stopped_ends_in_the_same_weights(cohort: Cohort, tmp_path: Path) -> None:
    """After any epoch: what was learnt, drawn and scheduled goes on as if nothing had happened."""
    schedule = replace(SCHEDULE, epochs=3)
    whole = fit(tiny_network(), recurrence(cohort), schedule, Session()).state_dict()

    class StoppedError(Exception):
        """The power is gone."""

    def stop(report: EpochReport) -> None:
        if report.epoch == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(tiny_network(), recurrence(cohort), schedule, Session(checkpoints=tmp_path, report=stop))
    told: list[EpochReport] = []
    resumed = fit(tiny_network(), recurrence(cohort), schedule, Session(checkpoints=tmp_path, report=told.append))
    assert [each.epoch for each in told] == [1, 2]
    assert all(torch.equal(each, whole[name]) for name, each in resumed.state_dict().items())


@pytest.mark.parametrize("other", [{"epochs": 5}, {"seed": 1}, {"head_rate": 1e-3}])
def test_the_checkpoint_of_another_schedule_is_refused(cohort: Cohort, tmp_path: Path, other: dict[str, Any]) -> None:
    """It would end in weights of that one, or run past the end of its learning rates."""
    session = Session(checkpoints=tmp_path)
    fit(tiny_network(), recurrence(cohort), SCHEDULE, session)
    with pytest.raises(ValueError, match=rf"{tmp_path}: expected the checkpoint of this training.*other schedule;"):
        fit(tiny_network(), recurrence(cohort), replace(SCHEDULE, **other), session)


def test_the_checkpoint_of_another_training_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    """Other patients, another reading of them, other weights to start from, another network: each is named."""
    session = Session(checkpoints=tmp_path)
    fit(tiny_network(), recurrence(cohort), SCHEDULE, session)
    fewer = recurrence_lesson(cohort, cohort, patients=EVERYONE[:6])
    alone = recurrence_lesson(cohort, cohort, patients=EVERYONE, single=True)
    validated = recurrence_lesson(cohort, cohort.head(10), patients=EVERYONE)
    for lesson in (fewer, alone, validated):
        with pytest.raises(ValueError, match="other patients or cohorts;"):
            fit(tiny_network(), lesson, SCHEDULE, session)
    with pytest.raises(ValueError, match="other starting weights;"):
        fit(TemporalNetwork(TINY), recurrence(cohort), SCHEDULE, session)
    with pytest.raises(ValueError, match="other network, starting weights;"):
        fit(TemporalNetwork(replace(TINY, time_gap=True)), recurrence(cohort), SCHEDULE, session)
    (tmp_path / "recurrence.pt").rename(tmp_path / "order.pt")
    with pytest.raises(ValueError, match=r"found order\.pt of one with other lesson"):
        fit(tiny_network(), order_lesson(cohort, cohort, patients=EVERYONE), SCHEDULE, session)


def _scaled(scaler: torch.amp.GradScaler | None) -> Session:
    """Return a session whose losses are scaled, as under 16-mixed on a GPU."""
    precision = MixedPrecision("bf16-mixed", "cpu")
    precision.scaler = scaler
    return Session(fabric=Fabric(accelerator="cpu", devices=1, plugins=precision))


def test_a_scaled_loss_teaches_the_same(cohort: Cohort) -> None:
    """Gradients are clipped at their own size, not at that of the scaled loss."""
    plain = fit(tiny_network(), recurrence(cohort), SCHEDULE, _scaled(None)).state_dict()
    scaled = fit(tiny_network(), recurrence(cohort), SCHEDULE, _scaled(torch.amp.GradScaler("cpu"))).state_dict()
    for name in plain:
        torch.testing.assert_close(scaled[name], plain[name])


def test_a_run_that_was_stopped_goes_on_with_its_scale(cohort: Cohort, tmp_path: Path) -> None:
    """What the scaler had found out is in the checkpoint; one of another precision is refused."""
    scaler, fresh = (torch.amp.GradScaler("cpu", init_scale=2.0**each) for each in (8, 16))
    fit(tiny_network(), recurrence(cohort), SCHEDULE, replace(_scaled(scaler), checkpoints=tmp_path))
    fit(tiny_network(), recurrence(cohort), SCHEDULE, replace(_scaled(fresh), checkpoints=tmp_path))
    assert fresh.state_dict() == scaler.state_dict()
    with pytest.raises(ValueError, match="other precision;"):
        fit(tiny_network(), recurrence(cohort), SCHEDULE, Session(checkpoints=tmp_path))
