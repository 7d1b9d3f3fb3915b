"""The experiment as a folder: every cohort, network and table of answers is made once, on first use, and kept.

    WORK/cohorts/NAME/                     rendered phantoms
    WORK/networks/COHORT/ARM-SEED-RATE.pt  trained networks, with their validation score beside them
    WORK/checkpoints/...                   of a network in training
    WORK/predictions/NAME.npz              what all arms answered about a population

So a run that was stopped goes on where it was, and an evaluation is repeated without a forward pass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Experiment:
    """A preset in a folder. `bar` shows progress over a number of patients, `report` is told of each epoch."""

    preset: Preset
    work: Path
    bar: Callable[[str, int], AbstractContextManager[Callable[[], None]]]
    report: Callable[[str, EpochReport], None]
    session: Session = field(default_factory=Session)

    def cohort(self, group: PhantomGroup) -> Cohort:
        """Return the rendered patients of a group."""
        folder = self.work / "cohorts" / group.name
        if is_written(folder) and len(cohort := open_cohort(folder)) == group.patients:
            return cohort
        shape = configuration(Arm.ORDER, self.preset.effort).input_shape
        drawing = Drawing(shape=shape, dials=group.dials, population=group.population)
        with self.bar(f"rendering {group.name}", group.patients) as advance:
            return render_cohort(folder, group.seeds, drawing, advance=advance)

    def members(self, arm: Arm, train: PhantomGroup, validation: PhantomGroup) -> list[Trained]:
        """Return an arm's networks, one per seed, all with the encoder's rate that validated best with the first."""
        trials = [self.trained(arm, train, validation, seed=0, rate=rate) for rate in self.preset.encoder_rates]
        best = int(np.argmax([each.validation for each in trials]))
        rate = self.preset.encoder_rates[best]
        others = [self.trained(arm, train, validation, seed=seed, rate=rate) for seed in range(1, self.preset.seeds)]
        return [trials[best], *others]

    def trained(self, arm: Arm, train: PhantomGroup, validation: PhantomGroup, *, seed: int, rate: float) -> Trained:
        """Return one network of an arm, trained now or earlier."""
        name = f"{arm}-{seed}-{rate:g}"
        path = self.work / "networks" / train.name / f"{name}.pt"
        effort = replace(self.preset.effort, encoder_rate=rate)
        if path.is_file():
            return _recall(path, arm, effort)
        learn_from, choose_on = self.cohort(train), self.cohort(validation)
        session = self.session_for(f"{train.name}-{name}")
        network = train_arm(
            arm,
            learn_from,
            choose_on,
            patients=in_fold(len(learn_from), seed),
            effort=effort,
            seed=seed,
            session=session,
        )
        network = _as_shipped(network)
        score = recurrence_auroc(network, choose_on, lengths=(1,) if arm is Arm.SINGLE else VALIDATED_LENGTHS)
        return _remember(path, network, score)

    def session_for(self, name: str) -> Session:
        """Return the session of one network: its checkpoints and who is told of its epochs."""
        return replace(
            self.session,
            checkpoints=self.work / "checkpoints" / name,
            report=lambda epoch: self.report(name, epoch),
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
