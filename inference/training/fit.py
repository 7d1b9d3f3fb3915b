"""The one training loop, on Lightning Fabric: one CPU, one GPU or several, without other code.

An epoch is decided by (seed, epoch) alone: which patients meet in which batch, how they are changed, which examples are
asked. So a run that was stopped after any epoch goes on from its checkpoint to the same weights as one that was not.
With several devices each takes every n-th batch. The weights of the epoch that validated best are kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from inference.training.reading import Reading, arrange, weighted_loss

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.models import TemporalNetwork
    from inference.training.examples import ExamplesOf

GRADIENT_CLIP = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to learn.

    The heads learn at `head_rate`; the encoder's last stage at `encoder_rate`, each stage before it `layer_decay` times
    slower than the next.
    """

    epochs: int
    encoder_rate: float
    head_rate: float
    layer_decay: float = 1.0
    batch_patients: int = 16
    weight_decay: float = 1e-2
    patience: int = 3  # epochs without a better validation score before training stops
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch came to: mean training loss, and the score on the validation patients (0..1)."""

    lesson: str
    epoch: int
    loss: float
    validation: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Lesson:
    """What is learnt, from whom, and which score on other patients chooses the weights.

    `scans` returns what is read of a batch of patients: augmented scans, or features of an encoder that rests.
    """

    name: str
    patients: NDArray[np.int64]
    scans: Callable[[NDArray[np.int64], torch.Generator], Tensor]  # (N, C, Z, Y, X), or (N, D) where `resting`
    examples: ExamplesOf
    score: Callable[[TemporalNetwork], float]
    resting: bool = False
    keep_better_start: bool = False  # the weights before stay if no epoch is better


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Session:
    """Where training runs, where it can be resumed from, and who is told of each epoch."""

    fabric: Fabric = field(default_factory=lambda: Fabric(accelerator="cpu", devices=1))
    checkpoints: Path | None = None
    report: Callable[[EpochReport], None] = lambda _: None


def fit(network: TemporalNetwork, lesson: Lesson, schedule: Schedule, session: Session) -> TemporalNetwork:
    """Run epochs until the schedule ends or validation no longer improves; return the network with its best weights."""
    network = network.to(session.fabric.device)
    network.encoder.requires_grad_(not lesson.resting)
    learner = _Learner(network=network, lesson=lesson, schedule=schedule, session=session)
    learner.resume()
    while not learner.done:
        learner.learn_epoch()
        learner.save()
    network.load_state_dict(learner.best_weights)
    network.encoder.requires_grad_(requires_grad=True)
    return network.eval()


class _Learner:
    """A network in the middle of a lesson: everything that a checkpoint must hold."""

    def __init__(self, *, network: TemporalNetwork, lesson: Lesson, schedule: Schedule, session: Session) -> None:
        self.network, self.lesson, self.schedule, self.session = network, lesson, schedule, session
        self.optimizer = _optimizer(network, schedule)
        self.scheduler = _one_cycle(self.optimizer, schedule, steps=len(self._batches(0)))
        self.module, self.stepper = session.fabric.setup(Reading(network, resting=lesson.resting), self.optimizer)
        self.epoch, self.best, self.best_epoch = 0, -1.0, -1
        self.best_weights = copy.deepcopy(network.state_dict())

    @property
    def done(self) -> bool:
        """Return whether the schedule has ended, or patience has."""
        return self.epoch >= self.schedule.epochs or self.epoch - self.best_epoch > self.schedule.patience

    def learn_epoch(self) -> None:
        """Learn from every patient once, score, tell, and keep the weights if they are the best so far."""
        fabric, name = self.session.fabric, self.lesson.name
        loss = float(np.mean([self._step(batch, *each) for batch, each in self._seeded_batches()]))
        score = float(fabric.broadcast(self.lesson.score(self.network)))
        self.session.report(EpochReport(lesson=name, epoch=self.epoch, loss=loss, validation=score))
        fabric.log_dict({f"{name}/loss": loss, f"{name}/validation": score}, step=self.epoch)
        if score > self.best:
            self.best, self.best_epoch = score, self.epoch
            self.best_weights = copy.deepcopy(self.network.state_dict())
        self.epoch += 1

    def _seeded_batches(self) -> Iterator[tuple[NDArray[np.int64], tuple[np.random.Generator, torch.Generator]]]:
        """Yield this epoch's batches with what draws their examples and changes: by seed and epoch alone."""
        own = self.schedule.seed * 1_000_003 + self.epoch * 101 + self.session.fabric.global_rank
        rng, generator = np.random.default_rng(own), torch.Generator().manual_seed(own)
        torch.manual_seed(own)  # dropout
        self.module.train()
        for batch in self._batches(self.epoch):
            yield batch, (rng, generator)

    def _step(self, batch: NDArray[np.int64], rng: np.random.Generator, generator: torch.Generator) -> float:
        """Learn from one batch of patients; return its loss, 0 where nothing could be asked."""
        device = self.session.fabric.device
        scans, examples = self.lesson.scans(batch, generator), self.lesson.examples(batch, rng)
        loss = torch.zeros(())
        if examples:
            places, lengths, days = arrange(examples, device)
            loss = weighted_loss(self.module(scans.to(device), places, lengths, days), examples)
            self.stepper.zero_grad()
            self.session.fabric.backward(loss)
            nn.utils.clip_grad_norm_(self.module.parameters(), GRADIENT_CLIP)
            self.stepper.step()
        self.scheduler.step()
        return float(loss.detach())

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return this device's batches of an epoch; every device has as many, the first ones twice if need be."""
        fabric, size = self.session.fabric, self.schedule.batch_patients
        order = np.random.default_rng([self.schedule.seed, epoch]).permutation(self.lesson.patients)
        cut = [order[start : start + size] for start in range(0, len(order), size)]
        last = -(-len(cut) // fabric.world_size) * fabric.world_size
        return [cut[number % len(cut)] for number in range(fabric.global_rank, last, fabric.world_size)]

    def resume(self) -> None:
        """Go on after the last epoch that was kept; without one, take the start's score as the one to beat if asked."""
        path = self._checkpoint
        if path is None or not path.is_file():
            if self.lesson.keep_better_start:
                self.best = self.lesson.score(self.network)
            return
        kept = torch.load(path, map_location=self.session.fabric.device, weights_only=True)
        self.network.load_state_dict(kept["network"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.scheduler.load_state_dict(kept["scheduler"])
        self.epoch, self.best, self.best_epoch = kept["epoch"], kept["best"], kept["best_epoch"]
        self.best_weights = kept["best_weights"]

    def save(self) -> None:
        """Keep the state after an epoch: whole under its name, or not at all."""
        path = self._checkpoint
        if path is None or not self.session.fabric.is_global_zero:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }
        part = path.with_suffix(".part")
        torch.save(content, part)
        part.replace(path)

    @property
    def _checkpoint(self) -> Path | None:
        folder = self.session.checkpoints
        return None if folder is None else folder / f"{self.lesson.name}.pt"


def _optimizer(network: TemporalNetwork, schedule: Schedule) -> torch.optim.AdamW:
    """Return AdamW with a rate for each stage of the encoder and one for the heads."""
    groups = [
        {"params": list(stage.parameters()), "lr": schedule.encoder_rate * schedule.layer_decay**depth}
        for depth, stage in enumerate(reversed(network.stages()))
    ]
    return torch.optim.AdamW(
        [*groups, {"params": list(network.heads.parameters()), "lr": schedule.head_rate}],
        weight_decay=schedule.weight_decay,
    )


def _one_cycle(optimizer: torch.optim.AdamW, schedule: Schedule, *, steps: int) -> OneCycleLR:
    """Return one warm-up and one cosine decay over all epochs."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=steps * schedule.epochs + 1, pct_start=0.15)
