"""The one training loop, on Lightning Fabric: one CPU, one GPU or several, without other code.

An epoch is decided by (seed, epoch) alone: which patients meet in which batch, how they are changed, which examples are
asked. So a run that was stopped after any epoch goes on from its checkpoint to the same weights as one that was not: to
the bit on a CPU; on a GPU up to the order of its sums, as 3-D pooling has no deterministic gradient there. With several
devices each takes every n-th batch, and all end with the same weights and running statistics. The weights of the epoch
that validated best are kept.
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

from inference.training.checkpoint import check, keep, recall, weights_digest
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

    `scans` returns what is read of a batch of patients: augmented scans, or features of an encoder that rests. Every
    one of `patients` gives at least one example, so that on several devices no step is left out by one of them.
    """

    name: str
    patients: NDArray[np.int64]
    scans: Callable[[NDArray[np.int64], torch.Generator], Tensor]  # (N, C, Z, Y, X), or (N, D) where `resting`
    examples: ExamplesOf
    score: Callable[[TemporalNetwork], float]
    resting: bool = False
    keep_better_start: bool = False  # the weights before stay if no epoch is better
    keep_last: bool = False  # the last epoch's weights, whatever they score
    fewest_scans: int = 1  # of any of the patients
    material: str = ""  # tells what is read and asked from anything else, for the checkpoint


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Session:
    """Where training runs, where it can be resumed from, and who is told of each epoch."""

    fabric: Fabric = field(default_factory=lambda: Fabric(accelerator="cpu", devices=1))
    checkpoints: Path | None = None
    report: Callable[[EpochReport], None] = lambda _: None


def fit(network: TemporalNetwork, lesson: Lesson, schedule: Schedule, session: Session) -> TemporalNetwork:
    """Run epochs until the schedule ends or validation no longer improves; return the network with its best weights.

    Raises:
        ValueError: if a batch would hold too little, the checkpoint is of another training, or training diverges.
    """
    _check_batches(lesson, schedule)
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
        self.training = {
            "lesson": lesson.name,
            "patients or cohorts": f"{lesson.material} {lesson.patients.tolist()}",
            "schedule": repr(schedule),
            "network": repr(network.config),
            "starting weights": weights_digest(self.best_weights),
            "precision": str(session.fabric.strategy.precision.precision),
            "number of devices": str(session.fabric.world_size),
        }

    @property
    def done(self) -> bool:
        """Return whether the schedule has ended, or patience has."""
        return self.epoch >= self.schedule.epochs or self.epoch - self.best_epoch > self.schedule.patience

    def learn_epoch(self) -> None:
        """Learn from every patient once, score, tell, and keep the weights if they are the best so far."""
        fabric, name = self.session.fabric, self.lesson.name
        loss = self._mean([self._step(batch, *each) for batch, each in self._seeded_batches()])
        self._finite(float(nn.utils.get_total_norm(list(self.network.parameters()))), "norm of the weights")
        self._share_statistics()
        score = self._score()
        self.session.report(EpochReport(lesson=name, epoch=self.epoch, loss=loss, validation=score))
        fabric.log_dict({f"{name}/loss": loss, f"{name}/validation": score}, step=self.epoch)
        if self.lesson.keep_last or score > self.best:
            self.best, self.best_epoch = score, self.epoch
            self.best_weights = copy.deepcopy(self.network.state_dict())
        self.epoch += 1

    def _mean(self, losses: list[float]) -> float:
        """Return the mean loss over the batches of all devices."""
        fabric = self.session.fabric
        mean: Tensor = fabric.all_reduce(torch.tensor(np.mean(losses), device=fabric.device))  # type: ignore[assignment]  # a tensor in, a tensor out
        return self._finite(float(mean), "training loss")

    def _score(self) -> float:
        """Return the network's validation score, as the first device found it."""
        return self._finite(float(self.session.fabric.broadcast(self.lesson.score(self.network))), "validation score")

    def _finite(self, number: float, of: str) -> float:
        """Return the number unless training went wrong: NaN is never better, and would pass for no improvement."""
        if not np.isfinite(number):
            where = f"{self.lesson.name}, epoch {self.epoch + 1}"
            raise ValueError(f"{where}: expected a finite {of}, found {number}; learning rates may be too high")
        return number

    def _share_statistics(self) -> None:
        """Give all devices the first one's running means and variances: each has seen other batches."""
        fabric = self.session.fabric
        if fabric.world_size == 1:
            return
        shared = fabric.broadcast({name: each.cpu() for name, each in self.network.named_buffers()})
        for name, each in self.network.named_buffers():
            each.copy_(shared[name])

    def _seeded_batches(self) -> Iterator[tuple[NDArray[np.int64], tuple[np.random.Generator, torch.Generator]]]:
        """Yield this epoch's batches with what draws their examples and changes: by seed and epoch alone."""
        own = self.schedule.seed * 1_000_003 + self.epoch * 101 + self.session.fabric.global_rank
        rng, generator = np.random.default_rng(own), torch.Generator().manual_seed(own)
        torch.manual_seed(own)  # dropout
        self.module.train()
        for batch in self._batches(self.epoch):
            yield batch, (rng, generator)

    def _step(self, batch: NDArray[np.int64], rng: np.random.Generator, generator: torch.Generator) -> float:
        """Learn from one batch of patients; return its loss."""
        fabric = self.session.fabric
        scans, examples = self.lesson.scans(batch, generator), self.lesson.examples(batch, rng)
        places, lengths, days = arrange(examples, fabric.device)
        loss = weighted_loss(self.module(scans.to(fabric.device), places, lengths, days), examples)
        self.stepper.zero_grad()
        fabric.backward(loss)
        # What is not finite is a scaler's to skip under 16-mixed, and shows in the epoch's weights elsewhere.
        fabric.clip_gradients(self.module, self.stepper, max_norm=GRADIENT_CLIP, error_if_nonfinite=False)
        self.stepper.step()
        self.scheduler.step()
        return float(loss.detach())

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return this device's batches of an epoch; every device has as many, the first ones twice if need be.

        A last batch of one patient joins the one before: the statistics of a single scan mean nothing.
        """
        fabric, size = self.session.fabric, self.schedule.batch_patients
        order = np.random.default_rng([self.schedule.seed, epoch]).permutation(self.lesson.patients)
        cut = [order[start : start + size] for start in range(0, len(order), size)]
        if len(cut) > 1 and len(cut[-1]) == 1 < size:
            cut[-2:] = [np.concatenate(cut[-2:])]
        last = -(-len(cut) // fabric.world_size) * fabric.world_size
        return [cut[number % len(cut)] for number in range(fabric.global_rank, last, fabric.world_size)]

    def resume(self) -> None:
        """Go on after the last epoch that was kept; without one, take the start's score as the one to beat if asked."""
        fabric, path = self.session.fabric, self._checkpoint
        kept = fabric.broadcast(recall(path) if path is not None and fabric.is_global_zero else None)
        if path is None or kept is None:
            if self.lesson.keep_better_start:
                self.best = self._score()
            return
        check(kept, training=self.training, path=path)
        self.network.load_state_dict(kept["network"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.scheduler.load_state_dict(kept["scheduler"])
        fabric.strategy.precision.load_state_dict(kept["precision"])
        self.epoch, self.best, self.best_epoch = kept["epoch"], kept["best"], kept["best_epoch"]
        self.best_weights = kept["best_weights"]

    def save(self) -> None:
        """Keep the state after an epoch."""
        fabric, path = self.session.fabric, self._checkpoint
        if path is None or not fabric.is_global_zero:
            return
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "precision": fabric.strategy.precision.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }
        keep(path, state, training=self.training)

    @property
    def _checkpoint(self) -> Path | None:
        folder = self.session.checkpoints
        return None if folder is None else folder / f"{self.lesson.name}.pt"


def _check_batches(lesson: Lesson, schedule: Schedule) -> None:
    """Refuse batches of a single scan: batch normalisation cannot learn from one."""
    together = min(schedule.batch_patients, len(lesson.patients))
    if not together:
        raise ValueError(f"{lesson.name}: expected patients to learn from, found none")
    if not lesson.resting and together * lesson.fewest_scans < 2:
        raise ValueError(f"{lesson.name}: expected two scans or more in every batch, found patients of one scan alone")


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
