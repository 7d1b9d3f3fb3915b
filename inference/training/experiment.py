"""The experiment as a folder: every cohort, network and table of answers is made once, on first use, and kept.

    WORK/experiment.json                   what all of it was made with: another preset is refused
    WORK/cohorts/NAME/                     rendered phantoms
    WORK/networks/COHORT/ARM-SEED-RATE.pt  trained networks, with their validation score beside them
    WORK/checkpoints/...                   of a network in training
    WORK/predictions/NAME.npz              what all arms answered about a population, and which network files did

So a run that was stopped goes on where it was, and an evaluation is repeated without a forward pass.
"""

from __future__ import annotations

import hashlib
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
from inference.phantom.patient import patient_id
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
from inference.training.thick_slices import with_thick_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.models import Network
    from inference.training.arms import Effort
    from inference.training.fit import EpochReport
    from inference.training.presets import PhantomGroup, Preset

_FEW = 32  # training patients: to start a process takes longer than to train on them
FOLDS = 5  # every member leaves out another fifth of the training patients
MAIN_ARMS = (Arm.SINGLE, Arm.SCRATCH, Arm.SHAM, Arm.ORDER, Arm.GAP)
GROWTH_ARMS = (Arm.SCRATCH, Arm.SHAM, Arm.ORDER)
RATE_OF = {Arm.GAP: Arm.ORDER}  # an ablation has no trials of its own: it takes the rate of what it is compared with


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trained:
    """A trained network, what it scored on validation, and the digest of the file that holds it."""

    network: TemporalNetwork
    validation: float
    digest: str


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
        if (found := kept(folder, group.seeds)) is not None:
            return found
        shape = configuration(Arm.ORDER, self.preset.effort).input_shape
        drawing = Drawing(shape=shape, dials=group.dials, population=group.population)
        with self.bar(f"rendering {group.name}", group.patients) as advance:
            return render_cohort(folder, group.seeds, drawing, advance=advance)

    def members(self, arms: Sequence[Arm], train: PhantomGroup, validation: PhantomGroup) -> dict[Arm, list[Trained]]:
        """Return the networks of arms, one per seed, all with the rate that validated best with the arm's first."""
        rates = self._rates([arm for arm in arms if arm not in RATE_OF], train, validation)
        chosen = {
            arm: [_job(arm, train, validation, seed, rates[RATE_OF.get(arm, arm)]) for seed in range(self.preset.seeds)]
            for arm in arms
        }
        self.train_all([job for jobs in chosen.values() for job in jobs])
        return {arm: [self.trained(job) for job in jobs] for arm, jobs in chosen.items()}

    def _rates(self, arms: Sequence[Arm], train: PhantomGroup, validation: PhantomGroup) -> dict[Arm, float]:
        """Return the rate of each arm that validates best with its first seed; one rate alone needs no trial."""
        rates = self.preset.encoder_rates
        if len(rates) == 1:
            return dict.fromkeys(arms, rates[0])
        trials = {arm: [_job(arm, train, validation, 0, rate) for rate in rates] for arm in arms}
        self.train_all([job for jobs in trials.values() for job in jobs])
        return {arm: max(jobs, key=lambda job: self.trained(job).validation).rate for arm, jobs in trials.items()}

    def train_all(self, jobs: Sequence[Job]) -> None:
        """Train the networks that are not there yet, several at once."""
        missing = [job for job in jobs if not self._path(job).is_file()]
        for group in dict.fromkeys(group for job in missing for group in (job.train, job.validation)):
            self.cohort(group)
        if self.workers == 1 or all(job.train.patients <= _FEW for job in missing):
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

    def predictions(
        self, group: PhantomGroup, members: Mapping[Arm, Sequence[Trained]], *, slice_mm: float | None = None
    ) -> Predictions:
        """Return what the members of all arms answer about the patients of a group, with thicker slices if asked.

        A table that is there already counts if the same network files answered about the same patients.
        """
        name = group.name if slice_mm is None else f"{group.name}-slices-{slice_mm:g}mm"
        path = self.work / "predictions" / f"{name}.npz"
        digests = {str(arm): tuple(each.digest for each in of) for arm, of in members.items()}
        if path.is_file():
            table = Predictions.load(path)
            if table.networks == digests and table.patients.tolist() == _names(group.seeds):
                return table
        cohort = self.cohort(group)
        if slice_mm is not None:
            cohort = with_thick_slices(cohort, slice_mm)
        networks: dict[str, list[Network]] = {str(arm): [each.network for each in of] for arm, of in members.items()}
        table = replace(answer(name, cohort, networks), networks=digests)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        table.save(part)
        part.replace(path)
        return table


def kept(folder: Path, seeds: Sequence[int]) -> Cohort | None:
    """Return the cohort of a folder if it holds the phantoms of exactly these seeds, in their order."""
    if not is_written(folder):
        return None
    cohort = open_cohort(folder)
    return cohort if cohort.patients.tolist() == _names(seeds) else None


def _names(seeds: Sequence[int]) -> list[str]:
    return [patient_id(seed) for seed in seeds]


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
    return Trained(network=network, validation=score, digest=_digest(path))


def _recall(path: Path, arm: Arm, effort: Effort) -> Trained:
    """Return a network that was kept."""
    network = TemporalNetwork(configuration(arm, effort))
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    score = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["validation"]
    return Trained(network=network.eval(), validation=float(score), digest=_digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
