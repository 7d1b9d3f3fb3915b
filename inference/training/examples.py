"""What a batch of patients is asked: sequences of their scans, each with its target and its weight in the loss.

The encoder runs once over all scans of a batch; every window (pretext) and every truncation to the last 1 to 6 scans
(recurrence) is then read from the same features, so one pass of the costly part serves many examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from inference.pretext.order import order_examples
from inference.training.cohort import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.training.cohort import Cohort

MAX_POSITIVE_WEIGHT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sequence of scans, by their places among the scans of a batch, and when they were acquired."""

    places: tuple[int, ...]
    target: float = 0.0
    weight: float = 1.0
    days: tuple[int, ...] | None = None  # None: the network must not see when


ExamplesOf: TypeAlias = "Callable[[NDArray[np.int64], np.random.Generator], list[Example]]"


def order_of_windows(cohort: Cohort, *, max_windows: int = 8, sham: bool = False) -> ExamplesOf:
    """Return what asks a batch for the order of windows of every patient's scans that precede the event.

    All scans of a cohort do: a table leaves out the others. With `sham` every target is a coin's: same scans, same
    updates, nothing to learn.
    """

    def ask(batch: NDArray[np.int64], rng: np.random.Generator) -> list[Example]:
        return [
            Example(
                places=tuple(start + place for place in each.places),
                target=float(rng.integers(2)) if sham else float(each.in_order),
            )
            for _, scans, start in _in_batch(cohort, batch)
            for each in order_examples(cohort.days[scans.start : scans.stop].tolist(), rng, max_windows=max_windows)
        ]

    return ask


def last_scans(cohort: Cohort) -> ExamplesOf:
    """Return what asks for the label at the newest scan, from each patient's last 1 to 6 scans; patients count once."""
    positive_weight = _positive_weight(cohort)

    def ask(batch: NDArray[np.int64], _rng: np.random.Generator) -> list[Example]:
        examples = []
        for patient, scans, start in _in_batch(cohort, batch):
            target = float(cohort.labels[patient] == 1)
            weight = (positive_weight if target else 1.0) / len(scans)
            for first in range(len(scans)):
                days = tuple(cohort.days[scans.start + first : scans.stop].tolist())
                places = tuple(range(start + first, start + len(scans)))
                examples.append(Example(places=places, target=target, weight=weight, days=days))
        return examples

    return ask


def single_scans(cohort: Cohort) -> ExamplesOf:
    """Return what asks for each scan's own label, seen alone; scans whose label nobody knows are left out."""
    positive_weight = _positive_weight(cohort)

    def ask(batch: NDArray[np.int64], _rng: np.random.Generator) -> list[Example]:
        examples = []
        for patient, scans, start in _in_batch(cohort, batch):
            for place, scan in enumerate(scans):
                label = cohort.label(patient, int(cohort.days[scan]))
                if label != UNKNOWN:
                    weight = (positive_weight if label else 1.0) / len(scans)
                    examples.append(Example(places=(start + place,), target=float(label), weight=weight, days=(0,)))
        return examples

    return ask


def _positive_weight(cohort: Cohort) -> float:
    """Return how much more an event counts than none, as it is rarer."""
    known = cohort.labels[cohort.labelled()]
    positives = max(1, int((known == 1).sum()))
    return min(MAX_POSITIVE_WEIGHT, (len(known) - positives) / positives)


def _in_batch(cohort: Cohort, batch: NDArray[np.int64]) -> Iterator[tuple[int, range, int]]:
    """Yield each patient, its scans, and the place of the first of them among the scans of the batch."""
    start = 0
    for patient in batch:
        scans = cohort.scans(int(patient))
        yield int(patient), scans, start
        start += len(scans)
