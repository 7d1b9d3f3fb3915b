"""Rendered cohorts repeat from their seeds, and a release states its scores on phantoms it has never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from inference.bundle import load
from inference.models import SIZES, build
from inference.phantom import make_patient, render_model_space
from inference.training.cohort import PatientScans, open_cohort, write_cohort
from inference.training.phantoms import render_cohort
from inference.training.recipe import SHIPPED, Split, publish, render_split
from tests.factories.cohorts import cohort_of

SHAPE = (12, 16, 12)


def test_a_cohort_is_the_phantoms_of_its_seeds(tmp_path: Path) -> None:
    """Volumes, days and labels are the generator's; only the newest six of many visits are kept."""
    told: list[None] = []
    cohort = render_cohort(tmp_path, [5, 6], shape=SHAPE, n_visits=7, workers=1, advance=lambda: told.append(None))
    patient = make_patient(6, n_visits=7)
    assert (len(cohort), cohort.volumes.shape, len(told)) == (2, (12, *SHAPE), 2)
    newest = np.rint(render_model_space(patient, 6, shape=SHAPE) * 255)
    assert np.array_equal(cohort.volumes[11], newest.astype(np.uint8))
    assert cohort.days[6:].tolist() == list(patient.history.visit_days[1:])
    assert cohort.labels[1] == (-1 if patient.label is None else patient.label)
    assert np.array_equal(open_cohort(tmp_path).volumes, cohort.volumes)


def test_the_splits_of_the_recipe_share_no_patient() -> None:
    """Training, validation, calibration, test, and the seeds below 100000 that demonstrations use."""
    splits = (SHIPPED.train, SHIPPED.validation, SHIPPED.calibration, SHIPPED.test)
    seeds = [seed for each in splits for seed in range(each.first_seed, each.first_seed + each.patients)]
    assert len(seeds) == len(set(seeds))
    assert min(seeds) >= 100_000


def test_a_rendered_split_is_not_rendered_again(tmp_path: Path) -> None:
    """The folder of an earlier run is opened if it holds the same patients."""
    volumes = np.zeros((3, *SIZES["small"].input_shape), dtype=np.uint8)
    drawn = PatientScans(
        patient="PHANTOM-100000", volumes=volumes, days=(-200, -100, 0), event_day=None, follow_up_day=9
    )
    write_cohort(tmp_path / "train", [drawn])
    told: list[None] = []
    cohort = render_split(tmp_path, Split(name="train", first_seed=100_000, patients=1), lambda: told.append(None))
    assert (len(cohort), told) == (1, [])


def test_a_release_states_what_it_scores(tmp_path: Path) -> None:
    """Six rows from one to six scans with their ceiling, a calibration, ranges of gaps, and a card that says so."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 255, (60, *SIZES["small"].input_shape), dtype=np.uint8)
    cohort = cohort_of(volumes, [range(-600, 1, 120)] * 10, [0, 1] * 5)
    network = build("small", members=2)
    publish(tmp_path, network, training=cohort, calibration=cohort, test=cohort, command="the command")
    bundle = load(tmp_path)
    assert [each.n_scans for each in bundle.metadata.scores] == [1, 2, 3, 4, 5, 6]
    ceilings = [each.ceiling_auroc or 0.0 for each in bundle.metadata.scores]
    assert ceilings == sorted(ceilings)
    assert bundle.metadata.training_ranges.gap_days == (120, 120)
    card = (tmp_path / "docs/README.md").read_text()
    assert "the command" in card
    assert "not for patients" in card
    assert card.count("| 10 |") == 6
