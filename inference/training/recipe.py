"""The recipe of the bundle that ships: which phantoms, how long, and what is kept apart from what.

Patients of training, validation, calibration and test come from disjoint ranges of seeds, fixed before any training;
demonstrations use seeds below 100000, so that no shipped weight has seen them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.bundle import TrainingRanges
from inference.evaluation.calibration import fit_platt
from inference.evaluation.card import model_card
from inference.evaluation.scores import cohort_logits, operating_point, score_cohort
from inference.models import SIZES, TemporalNetwork, build
from inference.phantom.patient import patient_id
from inference.training.cohort import Cohort, is_written, open_cohort
from inference.training.loops import Report, Schedule, finetune, pretrain, refine_heads
from inference.training.phantoms import render_cohort
from inference.training.release import Release, release, write_card

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = "small"
MEMBERS = 3
VERSION = "0.1.0"
# Percentiles of the gaps, and the slices the phantoms are drawn with; outside of them a run is flagged.
_GAP_PERCENTILES = (0.5, 99.5)
_SLICE_THICKNESS_MM = (1.0, 5.0)
_THRESHOLDS = (("rule-out", 0.15), ("even", 0.30), ("rule-in", 0.50))
_CALIBRATION_LENGTHS = (3, 4, 5, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Patients of one purpose: `patients` seeds from `first_seed` on; `n_visits` None draws 2 to 8."""

    name: str
    first_seed: int
    patients: int
    n_visits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the shipped weights, given the code and its libraries."""

    train: Split
    validation: Split
    calibration: Split
    test: Split
    pretext_patients: int  # of the training split, the first
    pretext: Schedule
    recurrence: Schedule
    heads: Schedule
    seed: int = 0


SHIPPED = Recipe(
    train=Split(name="train", first_seed=100_000, patients=1600),
    validation=Split(name="validation", first_seed=200_000, patients=120),
    calibration=Split(name="calibration", first_seed=300_000, patients=200, n_visits=6),
    test=Split(name="test", first_seed=400_000, patients=300, n_visits=6),
    pretext_patients=1000,
    pretext=Schedule(epochs=1, encoder_rate=1e-3, head_rate=1e-3, batch_patients=4),
    recurrence=Schedule(epochs=1, encoder_rate=1e-3, head_rate=1e-3, batch_patients=4),
    heads=Schedule(epochs=20, encoder_rate=0.0, head_rate=5e-4, patience=6),
)


def render_split(work: Path, split: Split, advance: Callable[[], None]) -> Cohort:
    """Render a split into `work`, or open it if it was rendered before."""
    folder = work / split.name
    seeds = range(split.first_seed, split.first_seed + split.patients)
    if is_written(folder):
        cohort = open_cohort(folder)
        if cohort.patients.tolist() == [patient_id(seed) for seed in seeds]:
            return cohort
    return render_cohort(folder, seeds, shape=SIZES[SIZE].input_shape, n_visits=split.n_visits, advance=advance)


def train(recipe: Recipe, training: Cohort, validation: Cohort, report: Callable[[str], Report]) -> TemporalNetwork:
    """Run all rounds of training; `report` names a round and returns what is told of its epochs."""
    torch.manual_seed(recipe.seed)
    network = build(SIZE, members=MEMBERS)
    few = training.head(recipe.pretext_patients)
    network = pretrain(network, few, validation, recipe.pretext, report("order pretext"))
    network = finetune(network, training, validation, recipe.recurrence, report("recurrence"))
    return refine_heads(network, training, validation, recipe.heads, report("recurrence, heads"))


def publish(
    folder: Path, network: TemporalNetwork, *, training: Cohort, calibration: Cohort, test: Cohort, command: str
) -> str:
    """Calibrate, score on unseen phantoms, and write the bundle with its card; return the digest.

    Weights are rounded to float16 first, so that the scores are those of what ships.
    """
    network = _rounded(network)
    answers = cohort_logits(network, calibration, _CALIBRATION_LENGTHS)
    platt = fit_platt(
        np.concatenate([logits for logits, _ in answers.values()]),
        np.concatenate([labels for _, labels in answers.values()]),
    )
    scores = score_cohort(network, test, platt)
    longest = cohort_logits(network, test, (6,))[6]
    about = Release(
        version=VERSION,
        training_data=(
            f"Synthetic phantoms only: {len(training)} patients, {len(training.volumes)} FLAIR volumes "
            "rendered by inference.phantom"
        ),
        ranges=training_ranges(training),
        calibration=platt,
        scores=scores,
        operating_points=tuple(operating_point(name, at, *longest, platt) for name, at in _THRESHOLDS),
    )
    digest = release(folder, network, about)
    write_card(folder, model_card(about, n_test=len(test), command=command))
    return digest


def training_ranges(cohort: Cohort) -> TrainingRanges:
    """Return what the network saw of gaps, slices and numbers of scans."""
    gaps = np.concatenate(
        [np.diff(cohort.days[scans.start : scans.stop]) for scans in map(cohort.scans, range(len(cohort)))]
    )
    low, high = np.percentile(gaps, _GAP_PERCENTILES)
    return TrainingRanges(
        gap_days=(float(np.floor(low)), float(np.ceil(high))),
        slice_thickness_mm=_SLICE_THICKNESS_MM,
        n_scans=(1, 6),
    )


def _rounded(network: TemporalNetwork) -> TemporalNetwork:
    """Return the network with its weights rounded to float16, in evaluation mode."""
    state = {
        name: each.half().float() if each.is_floating_point() else each for name, each in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network.eval()
