"""Both rounds of training on a few tiny random volumes: they run, learn, and are the same each time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from inference.training.answers import (
    last_scans_logits,
    one_dropped_logits,
    order_accuracies,
    order_accuracy,
    prefix_labels,
    prefix_logits,
    recurrence_auroc,
)
from inference.training.augment import Augmentation, augment
from inference.training.cohort import Cohort
from inference.training.examples import last_scans, order_of_windows, single_scans
from inference.training.fit import EpochReport, Schedule, Session, fit
from inference.training.lessons import heads_lesson, order_lesson, recurrence_lesson
from inference.training.reading import encode_cohort
from tests.factories.lessons import EVERYONE, SCHEDULE, brightening, cohort_of_noise, recurrence, tiny_network


@pytest.fixture
def cohort() -> Cohort:
    """Return twelve patients whose scans get brighter with time."""
    return brightening()


def test_pretraining_lowers_the_loss_and_tells_each_epoch(cohort: Cohort) -> None:
    """Brightness that grows with time is learnt as order."""
    told: list[EpochReport] = []
    schedule = Schedule(epochs=6, encoder_rate=3e-3, head_rate=1e-2, batch_patients=4, patience=6)
    lesson = order_lesson(cohort, cohort, patients=EVERYONE)
    network = fit(tiny_network(), lesson, schedule, Session(report=told.append))
    assert [each.epoch for each in told] == list(range(6))
    assert told[-1].loss < told[0].loss
    assert order_accuracy(network, cohort) == pytest.approx(max(each.validation for each in told))


def test_the_same_seed_gives_the_same_weights(cohort: Cohort) -> None:
    """Training is repeatable on one machine."""
    first = fit(tiny_network(), recurrence(cohort), SCHEDULE, Session()).state_dict()
    again = fit(tiny_network(), recurrence(cohort), SCHEDULE, Session()).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_refining_the_heads_leaves_the_encoder_alone(cohort: Cohort) -> None:
    """Only heads change, and validation never gets worse."""
    network = fit(tiny_network(), recurrence(cohort), SCHEDULE, Session())
    encoder = {name: each.clone() for name, each in network.encoder.state_dict().items()}
    before = recurrence_auroc(network, cohort)
    network = fit(network, heads_lesson(network, cohort, cohort, patients=EVERYONE), SCHEDULE, Session())
    assert all(torch.equal(each, encoder[name]) for name, each in network.encoder.state_dict().items())
    assert recurrence_auroc(network, cohort) >= before


def test_training_stops_when_validation_no_longer_improves(cohort: Cohort) -> None:
    """With no learning at all, the first epoch stays the best and patience ends the rest."""
    told: list[EpochReport] = []
    schedule = Schedule(epochs=10, encoder_rate=0.0, head_rate=0.0, batch_patients=12, patience=1, weight_decay=0.0)
    network = tiny_network()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 0.0
    fit(network, recurrence(cohort), schedule, Session(report=told.append))
    assert len(told) == 2


def test_only_the_last_scans_are_read(cohort: Cohort) -> None:
    """A patient's answer from its last two scans does not depend on the older ones."""
    network = tiny_network().eval()
    features = encode_cohort(network, cohort)
    before = last_scans_logits(network, cohort, features)
    features[cohort.scans(2).start] += 100
    after = last_scans_logits(network, cohort, features)
    assert np.array_equal(before[1], after[1], equal_nan=True)
    assert not np.allclose(before[3, 2], after[3, 2])
    assert np.isnan(before[4, 2])


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


def test_patients_count_once_however_many_of_their_single_scans_are_labelled() -> None:
    """A scan 400 days before a censored end is known to be free, a later one is not; an event is not known early."""
    cohort = cohort_of_noise([6, 6], [0, 1])
    cohort.follow_up_days[0] = 365 - 200  # the three oldest of the first patient's scans are known, and the fourth
    examples = single_scans(cohort)(np.arange(2), np.random.default_rng(0))
    first, second = ([each for each in examples if (each.places[0] < 6) is wanted] for wanted in (True, False))
    assert len(first) == 4
    assert len(second) == 6
    assert sum(each.weight for each in first) == pytest.approx(1.0)


def test_of_more_than_six_scans_the_newest_six_are_read() -> None:
    """A patient with eight scans trains and answers as the same patient cut to the newest six."""
    long, network = cohort_of_noise([3, 8, 4, 7]), tiny_network().eval()
    rows = np.array([*range(3), *range(5, 11), *range(11, 15), *range(16, 22)])
    cut = replace(long, volumes=long.volumes[rows], days=long.days[rows], first=np.array([0, 3, 9, 13, 19]))
    everyone, rng = np.arange(4), np.random.default_rng
    for asked in (order_of_windows, last_scans, single_scans):
        assert asked(long)(everyone, rng(1)) == asked(cut)(everyone, rng(1))
    assert np.array_equal(prefix_labels(long), prefix_labels(cut))
    seen, part = encode_cohort(network, long), encode_cohort(network, cut)
    for answers in (last_scans_logits, prefix_logits, one_dropped_logits):
        np.testing.assert_allclose(answers(network, long, seen), answers(network, cut, part), rtol=1e-4)
    assert np.array_equal(order_accuracies(network, long), order_accuracies(network, cut))
    for teach in (recurrence_lesson, order_lesson, partial(heads_lesson, network)):
        first, second = (
            teach(each, each, patients=everyone).scans(everyone, torch.Generator().manual_seed(0))
            for each in (long, cut)
        )
        torch.testing.assert_close(first, second)


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
