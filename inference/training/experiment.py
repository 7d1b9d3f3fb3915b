"""The experiment as a folder: every cohort, network and table of answers is made once, on first use, and kept.

    WORK/cohorts/NAME/                     rendered phantoms
    WORK/networks/COHORT/ARM-SEED-RATE.pt  trained networks, with their validation score beside them
    WORK/checkpoints/...                   of a network in training
    WORK/predictions/NAME.npz              what all arms answered about a population

So a run that was stopped goes on where it was, and an evaluation is repeated without a forward pass.
"""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning_fabric import Fabric

from inference.evaluation.predictions import LENGTHS, Predictions
from inference.models.temporal import TemporalNetwork
from inference.training.answers import (
    VALIDATED_LENGTHS,
    last_scans_logits,
    prefix_labels,
    prefix_logits,
    recurrence_auroc,
)
from inference.training.arms import Arm, configuration, train_arm
from inference.training.cohort import Cohort, is_written, open_cohort
from inference.training.fit import Session
from inference.training.measures import mean_gaps_days, volume_slopes
from inference.training.phantoms import Drawing, render_cohort
from inference.training.reading import encode_cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.models import Network
    from inference.training.arms import Effort
    from inference.training.fit import EpochReport
    from inference.training.presets import PhantomGroup, Preset

FOLDS = 5  # every member leaves out another fifth of the training patients
MAIN_ARMS = (Arm.SINGLE, Arm.SCRATCH, Arm.SHAM, Arm.ORDER, Arm.GAP)
GROWTH_ARMS = (Arm.SCRATCH, Arm.SHAM, Arm.ORDER)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trained:
    """A trained network and what it scored on validation."""

    network: TemporalNetwork
    validation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One network to be trained: an arm on one group of patients, validated on another."""

    arm: Arm
    train: PhantomGroup
    validation: PhantomGroup
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Return what its files are called."""
        return f"{self.arm}-{self.seed}-{self.rate:g}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Experiment:
    """A preset in a folder. `bar` shows progress over a number of patients, `report` is told of each epoch.

    On CPUs, networks train side by side, one thread each: that wastes no time on small tensors, and a network's bits
    do not depend on the number of cores.
    """

    preset: Preset
    work: Path
    bar: Callable[[str, int], AbstractContextManager[Callable[[], None]]]
    report: Callable[[str, EpochReport], None]
    accelerator: str = "cpu"
    workers: int = 1

    def cohort(self, group: PhantomGroup) -> Cohort:
        """Return the rendered patients of a group."""
        folder = self.work / "cohorts" / group.name
        if is_written(folder) and len(cohort := open_cohort(folder)) == group.patients:
            return cohort
        shape = configuration(Arm.ORDER, self.preset.effort).input_shape
        drawing = Drawing(shape=shape, dials=group.dials, population=group.population)
        with self.bar(f"rendering {group.name}", group.patients) as advance:
            return render_cohort(folder, group.seeds, drawing, advance=advance)

    def members(self, arms: Sequence[Arm], train: PhantomGroup, validation: PhantomGroup) -> dict[Arm, list[Trained]]:
        """Return the networks of arms, one per seed, all with the rate that validated best with the arm's first."""
        rates = self.preset.encoder_rates
        trials = {arm: [_job(arm, train, validation, 0, rate) for rate in rates] for arm in arms}
        self.train_all([job for jobs in trials.values() for job in jobs])
        best = {arm: max(jobs, key=lambda job: self.trained(job).validation) for arm, jobs in trials.items()}
        chosen = {
            arm: [job, *(replace(job, seed=seed) for seed in range(1, self.preset.seeds))] for arm, job in best.items()
        }
        self.train_all([job for jobs in chosen.values() for job in jobs])
        return {arm: [self.trained(job) for job in jobs] for arm, jobs in chosen.items()}

    def train_all(self, jobs: Sequence[Job]) -> None:
        """Train the networks that are not there yet, several at once."""
        missing = [job for job in jobs if not self._path(job).is_file()]
        for group in dict.fromkeys(group for job in missing for group in (job.train, job.validation)):
            self.cohort(group)
        if self.workers == 1:
            for job in missing:
                self.trained(job)
            return
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, mp_context=spawn, initializer=_one_thread) as pool:
            for _ in pool.map(partial(_train, self), missing):
                pass

    def trained(self, job: Job) -> Trained:
        """Return a network, trained now or earlier."""
        path, effort = self._path(job), replace(self.preset.effort, encoder_rate=job.rate)
        if path.is_file():
            return _recall(path, job.arm, effort)
        train, validation = self.cohort(job.train), self.cohort(job.validation)
        network = train_arm(
            job.arm,
            train,
            validation,
            patients=in_fold(len(train), job.seed),
            effort=effort,
            seed=job.seed,
            session=self.session_for(f"{job.train.name}-{job.name}"),
        )
        network = _as_shipped(network)
        score = recurrence_auroc(network, validation, lengths=(1,) if job.arm is Arm.SINGLE else VALIDATED_LENGTHS)
        return _remember(path, network, score)

    def _path(self, job: Job) -> Path:
        return self.work / "networks" / job.train.name / f"{job.name}.pt"

    def session_for(self, name: str) -> Session:
        """Return the session of one network: its device, its checkpoints, and who is told of its epochs."""
        cpu = self.accelerator == "cpu"
        fabric = Fabric(accelerator=self.accelerator, devices=1, precision="32-true" if cpu else "bf16-mixed")
        return Session(
            fabric=fabric,
            checkpoints=self.work / "checkpoints" / name,
            report=partial(self.report, name),
        )

    def predictions(self, group: PhantomGroup, members: Mapping[Arm, Sequence[Trained]]) -> Predictions:
        """Return what the members of all arms answer about the patients of a group."""
        path = self.work / "predictions" / f"{group.name}.npz"
        if path.is_file():
            return Predictions.load(path)
        table = answer(
            group.name, self.cohort(group), {arm: [each.network for each in of] for arm, of in members.items()}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        table.save(path)
        return table


def _job(arm: Arm, train: PhantomGroup, validation: PhantomGroup, seed: int, rate: float) -> Job:
    return Job(arm=arm, train=train, validation=validation, seed=seed, rate=rate)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(experiment: Experiment, job: Job) -> None:
    """Train in a process of its own; the network stays on disk."""
    experiment.trained(job)


def in_fold(patients: int, seed: int) -> NDArray[np.int64]:
    """Return the training patients of a member: all but those of the fold that its seed leaves out."""
    return np.flatnonzero(np.arange(patients) % FOLDS != seed % FOLDS)


def answer(population: str, cohort: Cohort, arms: Mapping[str, Sequence[Network]]) -> Predictions:
    """Return what networks answer about all patients of a cohort; a single-scan network answers from one scan only."""
    logits: dict[str, NDArray[np.float64]] = {}
    prefixes: dict[str, NDArray[np.float64]] = {}
    for arm, networks in arms.items():
        features = [encode_cohort(network, cohort) for network in networks]
        pairs = list(zip(networks, features, strict=True))
        logits[arm] = np.stack([last_scans_logits(network, cohort, each) for network, each in pairs])
        prefixes[arm] = np.stack([prefix_logits(network, cohort, each) for network, each in pairs])
        if arm == Arm.SINGLE:
            logits[arm][:, 1:] = prefixes[arm][:, 1:] = np.nan
    return Predictions(
        population=population,
        patients=cohort.patients,
        labels=cohort.labels,
        sites=cohort.sites,
        sexes=cohort.sexes,
        ages_years=cohort.ages_years,
        n_scans=np.minimum(cohort.n_scans(), LENGTHS[-1]),
        mean_gaps_days=mean_gaps_days(cohort),
        volume_slopes=volume_slopes(cohort),
        logits=logits,
        prefix_logits=prefixes,
        prefix_labels=prefix_labels(cohort),
    )


def _as_shipped(network: TemporalNetwork) -> TemporalNetwork:
    """Round weights to float16, as a bundle holds them, so that every figure is one of what ships."""
    state = network.state_dict()
    network.load_state_dict(
        {name: each.half().float() if each.is_floating_point() else each for name, each in state.items()}
    )
    return network.eval()


def _remember(path: Path, network: TemporalNetwork, score: float) -> Trained:
    """Keep a trained network; its score is written last, whole files only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps({"validation": score}), encoding="utf-8")
    part = path.with_suffix(".part")
    torch.save(network.state_dict(), part)
    part.replace(path)
    return Trained(network=network, validation=score)


def _recall(path: Path, arm: Arm, effort: Effort) -> Trained:
    """Return a network that was kept."""
    network = TemporalNetwork(configuration(arm, effort))
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    score = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["validation"]
    return Trained(network=network.eval(), validation=float(score))
