"""Both rounds of training on a few tiny random volumes: they run, learn, and are the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.models import TemporalConfig, TemporalNetwork
from inference.training.augment import augment
from inference.training.cohort import Cohort
from inference.training.loops import (
    EpochReport,
    Schedule,
    encode_cohort,
    finetune,
    last_scans_logits,
    order_accuracy,
    pretrain,
    recurrence_auroc,
    refine_heads,
)
from tests.factories.cohorts import cohort_of

SCANS = np.array([3, 2, 4, 3, 6, 2, 5, 3, 4, 2, 3, 3])
SCHEDULE = Schedule(epochs=2, encoder_rate=1e-3, head_rate=1e-2, batch_patients=4)


def _network() -> TemporalNetwork:
    torch.manual_seed(0)
    return TemporalNetwork(TemporalConfig(width=2, input_shape=(16, 16, 16), hidden=8, stem_kernel=3, members=2))


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


def test_pretraining_lowers_the_loss_and_tells_each_epoch(cohort: Cohort) -> None:
    """Brightness that grows with time is learnt as order."""
    told: list[EpochReport] = []
    schedule = Schedule(epochs=6, encoder_rate=3e-3, head_rate=1e-2, batch_patients=4, patience=6)
    network = pretrain(_network(), cohort, cohort, schedule, told.append)
    assert [each.epoch for each in told] == list(range(6))
    assert told[-1].loss < told[0].loss
    assert order_accuracy(network, cohort) == pytest.approx(max(each.validation for each in told))


def test_the_same_seed_gives_the_same_weights(cohort: Cohort) -> None:
    """Training is repeatable on one machine."""
    first = finetune(_network(), cohort, cohort, SCHEDULE, lambda _: None).state_dict()
    again = finetune(_network(), cohort, cohort, SCHEDULE, lambda _: None).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_refining_the_heads_leaves_the_encoder_alone(cohort: Cohort) -> None:
    """Only heads change, and validation never gets worse."""
    network = finetune(_network(), cohort, cohort, SCHEDULE, lambda _: None)
    encoder = {name: each.clone() for name, each in network.encoder.state_dict().items()}
    before = recurrence_auroc(network, cohort, encode_cohort(network, cohort))
    network = refine_heads(network, cohort, cohort, SCHEDULE, lambda _: None)
    assert all(torch.equal(each, encoder[name]) for name, each in network.encoder.state_dict().items())
    assert recurrence_auroc(network, cohort, encode_cohort(network, cohort)) >= before


def test_training_stops_when_validation_no_longer_improves(cohort: Cohort) -> None:
    """With no learning at all, the first epoch stays the best and patience ends the rest."""
    told: list[EpochReport] = []
    schedule = Schedule(epochs=10, encoder_rate=0.0, head_rate=0.0, batch_patients=12, patience=1, weight_decay=0.0)
    network = _network()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 0.0
    finetune(network, cohort, cohort, schedule, told.append)
    assert len(told) == 2


def test_only_the_last_scans_are_read(cohort: Cohort) -> None:
    """A patient's answer from its last two scans does not depend on the older ones."""
    network = _network().eval()
    features = encode_cohort(network, cohort)
    patients = np.array([2])
    before = last_scans_logits(network, cohort, features, patients, 2)
    features[cohort.scans(2).start] += 100
    assert np.array_equal(before, last_scans_logits(network, cohort, features, patients, 2))
    assert not np.allclose(before, last_scans_logits(network, cohort, features, patients, 4))


def test_the_first_patients_of_a_cohort_are_a_cohort(cohort: Cohort) -> None:
    """Scans, days and labels stay together; the censored patient is not labelled."""
    few = cohort.head(3)
    assert (len(few), len(few.volumes), len(few.days)) == (3, 9, 9)
    assert 10 not in cohort.labelled()


def test_augmentation_is_the_same_for_all_scans_of_a_patient() -> None:
    """Equal scans stay equal, and the background stays black."""
    scan = torch.zeros(1, 16, 16, 16)
    scan[:, 4:10, 5:9, 3:7] = 0.5
    changed = augment(torch.stack([scan, scan]), torch.Generator().manual_seed(1))
    assert torch.equal(changed[0], changed[1])
    assert int((changed > 0).sum()) == int((scan > 0).sum()) * 2
