"""Rounds of training on one network: the order pretext, then recurrence. Plain loops, seeded.

The encoder runs once over all scans of a batch of patients; every window (pretext) and every truncation to the last
1 to 6 scans (recurrence) is then read from the same features by the heads. So one pass of the costly part serves many
examples, and a patient's examples always meet in one batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import OneCycleLR

from inference.evaluation.metrics import auroc
from inference.pretext.order import order_examples
from inference.training.augment import augment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.models import TemporalNetwork
    from inference.training.cohort import Cohort

MAX_POSITIVE_WEIGHT = 5.0
GRADIENT_CLIP = 1.0
SCORED_LENGTHS = (3, 4, 5, 6)  # numbers of scans whose mean validation AUROC decides which weights are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to learn. The encoder learns at `encoder_rate`, the heads at `head_rate`."""

    epochs: int
    encoder_rate: float
    head_rate: float
    batch_patients: int = 16
    weight_decay: float = 1e-2
    patience: int = 3  # epochs without a better validation score before training stops
    max_windows: int = 8  # of one patient and batch, pretext only
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch came to: mean training loss, and the score on the validation patients (0..1)."""

    epoch: int
    loss: float
    validation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sequence of scans, by their places among the scans of a batch, with its target and weight in the loss."""

    places: tuple[int, ...]
    target: float
    weight: float = 1.0


ExamplesOf: TypeAlias = "Callable[[NDArray[np.int64], np.random.Generator], list[Example]]"
Report = Callable[[EpochReport], None]


def pretrain(
    network: TemporalNetwork, train: Cohort, validation: Cohort, schedule: Schedule, report: Report
) -> TemporalNetwork:
    """Teach the order of scans; return the network with the best validation accuracy of any epoch."""

    def examples(batch: NDArray[np.int64], rng: np.random.Generator) -> list[Example]:
        return _order_examples(train, batch, rng, schedule.max_windows)

    lesson = _Lesson(
        patients=np.arange(len(train)),
        features=_encoder(network, train, schedule.seed),
        examples=examples,
        score=lambda: order_accuracy(network, validation, seed=schedule.seed),
        report=report,
    )
    return _learn(network, lesson, schedule)


def finetune(
    network: TemporalNetwork, train: Cohort, validation: Cohort, schedule: Schedule, report: Report
) -> TemporalNetwork:
    """Teach recurrence with a new classifier on all other weights; return the network that validated best."""
    torch.manual_seed(schedule.seed)
    network.reset_classifiers()
    lesson = _Lesson(
        patients=train.labelled(),
        features=_encoder(network, train, schedule.seed),
        examples=_recurrence(train),
        score=lambda: recurrence_auroc(network, validation, encode_cohort(network, validation)),
        report=report,
    )
    return _learn(network, lesson, schedule)


def refine_heads(
    network: TemporalNetwork, train: Cohort, validation: Cohort, schedule: Schedule, report: Report
) -> TemporalNetwork:
    """Go on teaching recurrence to the heads alone: the encoder rests, so its features are computed only once."""
    seen, unseen = encode_cohort(network, train), encode_cohort(network, validation)

    def features(batch: NDArray[np.int64]) -> Tensor:
        return torch.cat([seen[train.first[patient] : train.first[patient + 1]] for patient in batch])

    lesson = _Lesson(
        patients=train.labelled(),
        features=features,
        examples=_recurrence(train),
        score=lambda: recurrence_auroc(network, validation, unseen),
        report=report,
        score_to_beat=recurrence_auroc(network, validation, unseen),
    )
    return _learn(network, lesson, schedule)


def recurrence_auroc(network: TemporalNetwork, cohort: Cohort, features: Tensor) -> float:
    """Return the mean AUROC over the last 3, 4, 5 and 6 scans of a cohort with features (S, D)."""
    known = cohort.labelled()
    areas = []
    for length in SCORED_LENGTHS:
        patients = known[[len(cohort.scans(int(patient))) >= length for patient in known]]
        logits = last_scans_logits(network, cohort, features, patients, length)
        areas.append(auroc(logits.mean(axis=0), cohort.labels[patients] == 1))
    return float(np.nanmean(areas))


def order_accuracy(network: TemporalNetwork, cohort: Cohort, *, seed: int = 0) -> float:
    """Return the share of sequences whose order is told right; chance is one half."""
    rng = np.random.default_rng(seed)
    features = encode_cohort(network, cohort)
    examples = _order_examples(cohort, np.arange(len(cohort)), rng, max_windows=4)
    with torch.no_grad():
        logits = _head(network, features, examples).mean(dim=0)
    return float(((logits > 0) == (_targets(examples) > 0.5)).float().mean())


def encode_cohort(network: TemporalNetwork, cohort: Cohort) -> Tensor:
    """Return the features (S, D) of all scans of a cohort, in evaluation mode."""
    network.eval()
    parts = np.array_split(np.arange(len(cohort.volumes)), max(1, len(cohort.volumes) // 64))
    with torch.no_grad():
        return torch.cat([network.encode(_to_tensor(cohort.volumes[part])) for part in parts])


def last_scans_logits(
    network: TemporalNetwork, cohort: Cohort, features: Tensor, patients: NDArray[np.int64], length: int
) -> NDArray[np.float64]:
    """Return logits (members, patients) from the last `length` scans of each patient, which must have that many."""
    examples = [Example(places=tuple(cohort.scans(int(patient)))[-length:], target=0.0) for patient in patients]
    with torch.no_grad():
        return np.asarray(_head(network, features, examples).numpy(), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Lesson:
    """What is learnt: by whom, features (S, D) and examples of a batch of patients, the score, who is told of it."""

    patients: NDArray[np.int64]
    features: Callable[[NDArray[np.int64]], Tensor]
    examples: ExamplesOf
    score: Callable[[], float]
    report: Report
    score_to_beat: float = -1.0  # of the weights before; they stay if no epoch is better


def _learn(network: TemporalNetwork, lesson: _Lesson, schedule: Schedule) -> TemporalNetwork:
    """Run epochs until the schedule ends or validation no longer improves; end with the best weights, old or new."""
    torch.manual_seed(schedule.seed)
    rng = np.random.default_rng(schedule.seed)
    steps = -(-len(lesson.patients) // schedule.batch_patients)
    optimizer, scheduler = _optimizer(network, schedule, steps=steps)
    best, best_epoch, best_weights = lesson.score_to_beat, -1, copy.deepcopy(network.state_dict())
    for epoch in range(schedule.epochs):
        losses = []
        network.train()
        for batch in _batches(rng.permutation(lesson.patients), schedule.batch_patients):
            loss = _loss(network, lesson.features(batch), lesson.examples(batch, rng))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        network.eval()
        score = lesson.score()
        lesson.report(EpochReport(epoch=epoch, loss=float(np.mean(losses)), validation=score))
        if score > best:
            best, best_epoch, best_weights = score, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= schedule.patience:
            break
    network.load_state_dict(best_weights)
    return network.eval()


def _encoder(network: TemporalNetwork, cohort: Cohort, seed: int) -> Callable[[NDArray[np.int64]], Tensor]:
    """Return what encodes the augmented scans of a batch of patients."""
    generator = torch.Generator().manual_seed(seed)
    return lambda batch: network.encode(_scans(cohort, batch, generator))


def _recurrence(cohort: Cohort) -> ExamplesOf:
    """Return what makes the recurrence examples of a batch; events weigh more, as they are fewer."""
    patients = cohort.labelled()
    positives = max(1, int((cohort.labels[patients] == 1).sum()))
    positive_weight = min(MAX_POSITIVE_WEIGHT, (len(patients) - positives) / positives)
    return lambda batch, _rng: _recurrence_examples(cohort, batch, positive_weight)


def _optimizer(network: TemporalNetwork, schedule: Schedule, *, steps: int) -> tuple[torch.optim.AdamW, OneCycleLR]:
    """Return AdamW with one warm-up and one cosine decay over all epochs."""
    groups = [
        {"params": list(network.encoder.parameters()), "lr": schedule.encoder_rate},
        {"params": list(network.heads.parameters()), "lr": schedule.head_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=schedule.weight_decay)
    rates = [schedule.encoder_rate, schedule.head_rate]
    return optimizer, OneCycleLR(optimizer, max_lr=rates, total_steps=steps * schedule.epochs + 1, pct_start=0.15)


def _batches(patients: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(patients), size):
        yield patients[start : start + size]


def _to_tensor(volumes: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    """Return scans (N, C, Z, Y, X) in 0..1."""
    full = np.float32(255 if volumes.dtype == np.uint8 else 1)
    return torch.from_numpy(np.asarray(volumes, dtype=np.float32) / full)[:, None]


def _scans(cohort: Cohort, batch: Iterable[int], generator: torch.Generator) -> Tensor:
    """Return the augmented scans of a batch of patients, one patient after another."""
    parts = []
    for patient in batch:
        scans = cohort.scans(int(patient))
        parts.append(augment(_to_tensor(cohort.volumes[scans.start : scans.stop]), generator))
    return torch.cat(parts)


def _starts(cohort: Cohort, batch: NDArray[np.int64]) -> Iterator[tuple[range, int]]:
    """Yield each patient's scans and the place of the first of them among the scans of the batch."""
    start = 0
    for patient in batch:
        scans = cohort.scans(int(patient))
        yield scans, start
        start += len(scans)


def _order_examples(
    cohort: Cohort, batch: NDArray[np.int64], rng: np.random.Generator, max_windows: int
) -> list[Example]:
    """Return true and false orders of windows of every patient of a batch."""
    return [
        Example(places=tuple(start + place for place in each.places), target=float(each.in_order))
        for scans, start in _starts(cohort, batch)
        for each in order_examples(cohort.days[scans.start : scans.stop].tolist(), rng, max_windows=max_windows)
    ]


def _recurrence_examples(cohort: Cohort, batch: NDArray[np.int64], positive_weight: float) -> list[Example]:
    """Return every truncation of every patient of a batch to the last 1 to 6 scans, weighted so patients count once."""
    examples = []
    for patient, (scans, start) in zip(batch, _starts(cohort, batch), strict=True):
        places = tuple(range(start, start + len(scans)))
        target = float(cohort.labels[patient] == 1)
        weight = (positive_weight if target else 1.0) / len(scans)
        examples += [Example(places=places[-n:], target=target, weight=weight) for n in range(1, len(scans) + 1)]
    return examples


def _targets(examples: list[Example]) -> Tensor:
    return torch.tensor([each.target for each in examples])


def _head(network: TemporalNetwork, features: Tensor, examples: list[Example]) -> Tensor:
    """Return the first output's logits (members, E) of sequences of scans whose features are (S, D)."""
    lengths = torch.tensor([len(each.places) for each in examples])
    padded = torch.zeros((len(examples), int(lengths.max())), dtype=torch.long)
    for row, each in zip(padded, examples, strict=True):
        row[: len(each.places)] = torch.tensor(each.places)
    return network.head(features[padded], lengths)[..., 0]


def _loss(network: TemporalNetwork, features: Tensor, examples: list[Example]) -> Tensor:
    """Return the members' mean weighted cross-entropy on sequences of scans whose features are (S, D)."""
    logits = _head(network, features, examples)  # (members, E)
    weights = torch.tensor([each.weight for each in examples])
    losses = binary_cross_entropy_with_logits(logits, _targets(examples).expand_as(logits), reduction="none")
    return (losses * weights).sum() / (weights.sum() * len(logits))
