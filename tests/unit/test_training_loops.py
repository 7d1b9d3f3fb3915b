"""Both rounds of training on a few tiny random volumes: they run, learn, and are the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.models import SIZES, TemporalConfig, TemporalNetwork
from inference.training.answers import last_scans_logits, order_accuracy, prefix_labels, recurrence_auroc
from inference.training.arms import Arm, Effort, train_arm
from inference.training.augment import Augmentation, augment
from inference.training.cohort import Cohort
from inference.training.examples import last_scans, order_of_windows, single_scans
from inference.training.fit import EpochReport, Lesson, Schedule, Session, fit
from inference.training.lessons import heads_lesson, order_lesson, recurrence_lesson
from inference.training.reading import encode_cohort
from tests.factories.cohorts import cohort_of

SCANS = np.array([3, 2, 4, 3, 6, 2, 5, 3, 4, 2, 3, 3])
EVERYONE = np.arange(len(SCANS))
SCHEDULE = Schedule(epochs=2, encoder_rate=1e-3, head_rate=1e-2, batch_patients=4)
TINY = TemporalConfig(width=2, input_shape=(16, 16, 16), hidden=8, stem_kernel=3, members=2)


def _network() -> TemporalNetwork:
    torch.manual_seed(0)
    return TemporalNetwork(TINY)


@pytest.fixture
def cohort() -> Cohort:
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


def _recurrence(cohort: Cohort) -> Lesson:
    return recurrence_lesson(cohort, cohort, patients=EVERYONE)


def test_pretraining_lowers_the_loss_and_tells_each_epoch(cohort: Cohort) -> None:
    """Brightness that grows with time is learnt as order."""
    told: list[EpochReport] = []
    schedule = Schedule(epochs=6, encoder_rate=3e-3, head_rate=1e-2, batch_patients=4, patience=6)
    lesson = order_lesson(cohort, cohort, patients=EVERYONE)
    network = fit(_network(), lesson, schedule, Session(report=told.append))
    assert [each.epoch for each in told] == list(range(6))
    assert told[-1].loss < told[0].loss
    assert order_accuracy(network, cohort) == pytest.approx(max(each.validation for each in told))


def test_the_same_seed_gives_the_same_weights(cohort: Cohort) -> None:
    """Training is repeatable on one machine."""
    first = fit(_network(), _recurrence(cohort), SCHEDULE, Session()).state_dict()
    again = fit(_network(), _recurrence(cohort), SCHEDULE, Session()).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_run_that_was_stopped_ends_in_the_same_weights(cohort: Cohort, tmp_path: Path) -> None:
    """After any epoch: what was learnt, drawn and scheduled goes on as if nothing had happened."""
    schedule = replace(SCHEDULE, epochs=3)
    whole = fit(_network(), _recurrence(cohort), schedule, Session()).state_dict()

    class StoppedError(Exception):
        """The power is gone."""

    def stop(report: EpochReport) -> None:
        if report.epoch == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(_network(), _recurrence(cohort), schedule, Session(checkpoints=tmp_path, report=stop))
    told: list[EpochReport] = []
    resumed = fit(_network(), _recurrence(cohort), schedule, Session(checkpoints=tmp_path, report=told.append))
    assert [each.epoch for each in told] == [1, 2]
    assert all(torch.equal(each, whole[name]) for name, each in resumed.state_dict().items())


def test_refining_the_heads_leaves_the_encoder_alone(cohort: Cohort) -> None:
    """Only heads change, and validation never gets worse."""
    network = fit(_network(), _recurrence(cohort), SCHEDULE, Session())
    encoder = {name: each.clone() for name, each in network.encoder.state_dict().items()}
    before = recurrence_auroc(network, cohort)
    network = fit(network, heads_lesson(network, cohort, cohort, patients=EVERYONE), SCHEDULE, Session())
    assert all(torch.equal(each, encoder[name]) for name, each in network.encoder.state_dict().items())
    assert recurrence_auroc(network, cohort) >= before


def test_training_stops_when_validation_no_longer_improves(cohort: Cohort) -> None:
    """With no learning at all, the first epoch stays the best and patience ends the rest."""
    told: list[EpochReport] = []
    schedule = Schedule(epochs=10, encoder_rate=0.0, head_rate=0.0, batch_patients=12, patience=1, weight_decay=0.0)
    network = _network()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 0.0
    fit(network, _recurrence(cohort), schedule, Session(report=told.append))
    assert len(told) == 2


def test_only_the_last_scans_are_read(cohort: Cohort) -> None:
    """A patient's answer from its last two scans does not depend on the older ones."""
    network = _network().eval()
    features = encode_cohort(network, cohort)
    before = last_scans_logits(network, cohort, features)
    features[cohort.scans(2).start] += 100
    after = last_scans_logits(network, cohort, features)
    assert np.array_equal(before[1], after[1], equal_nan=True)
    assert not np.allclose(before[3, 2], after[3, 2])
    assert np.isnan(before[4, 2])


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


def test_a_sham_pretext_shows_the_same_scans_without_their_order(cohort: Cohort) -> None:
    """Same windows, same sequences; the labels are a coin's."""
    true, sham = (order_of_windows(cohort, sham=each)(EVERYONE, np.random.default_rng(3)) for each in (False, True))
    assert len(true) == len(sham)
    assert np.mean([each.target for each in true]) == 0.5
    assert 0.3 < np.mean([each.target == other.target for each, other in zip(true, sham, strict=True)]) < 0.7


def test_a_single_scan_has_its_own_label(cohort: Cohort) -> None:
    """An event 100 days after the newest scan lies within a year of scans up to 265 days older, not of those before."""
    examples = single_scans(cohort)(np.array([7, 3]), np.random.default_rng(0))
    assert [each.target for each in examples] == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    examples = single_scans(cohort)(np.array([5, 9]), np.random.default_rng(0))
    assert all(len(each.places) == 1 for each in examples)
    labels = prefix_labels(cohort)
    assert labels[:, 1].tolist() == [1, 1, -1, -1, -1, -1]


def test_patients_count_once_however_many_scans_they_have(cohort: Cohort) -> None:
    """The weights of a patient's truncations add up to the same for all patients of one outcome."""
    examples = last_scans(cohort)(np.array([0, 4]), np.random.default_rng(0))
    first, second = examples[:3], examples[3:]
    assert sum(each.weight for each in first) == pytest.approx(sum(each.weight for each in second))
    assert [len(each.places) for each in second] == [6, 5, 4, 3, 2, 1]


def test_the_first_patients_of_a_cohort_are_a_cohort(cohort: Cohort) -> None:
    """Scans, days and labels stay together; the censored patient is not labelled."""
    few = cohort.head(3)
    assert (len(few), len(few.volumes), len(few.days)) == (3, 9, 9)
    assert 10 not in cohort.labelled()


def test_geometry_is_the_same_for_all_scans_of_a_patient() -> None:
    """Without scanner effects equal scans stay equal, wherever they are moved."""
    scan = torch.zeros(1, 16, 16, 16)
    scan[:, 4:10, 5:9, 3:7] = 0.5
    how = Augmentation(rotation_deg=5, scale=0.05, gamma=0, shading=0, noise=0, blur_probability=0)
    changed = augment(torch.stack([scan, scan]), torch.Generator().manual_seed(1), how)
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], scan)


def test_scanner_effects_are_each_scan_s_own_and_leave_the_background_black() -> None:
    """Equal scans differ afterwards, though not in where the head is."""
    scan = torch.zeros(1, 16, 16, 16)
    scan[:, 4:10, 5:9, 3:7] = 0.5
    changed = augment(torch.stack([scan, scan]), torch.Generator().manual_seed(1))
    assert not torch.equal(changed[0], changed[1])
    assert torch.equal(changed[0] > 0, changed[1] > 0)
    assert int((changed > 0).sum()) == int((scan > 0).sum()) * 2
