"""What a batch of patients is asked: sequences of their scans, each with its target and its weight in the loss.

The encoder runs once over all scans of a batch; every window (pretext) and every truncation to the last 1 to 6 scans
(recurrence) is then read from the same features, so one pass of the costly part serves many examples. Of a patient with
more than six scans the newest six are read, as the network was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from inference.pretext.order import order_examples, windows
from inference.training.cohort import MAX_SCANS, UNKNOWN

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


def newest_scans(cohort: Cohort, patient: int) -> range:
    """Return the indices of a patient's newest six scans, or of as many as there are, oldest first."""
    return cohort.scans(patient)[-MAX_SCANS:]


def with_windows(cohort: Cohort, patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of the patients whose order can be asked: two neighbouring scans were acquired on different days."""
    return np.array([each for each in patients if windows(_days(cohort, newest_scans(cohort, int(each))))], np.int64)


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
            for each in order_examples(_days(cohort, scans), rng, max_windows=max_windows)
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
                days = tuple(_days(cohort, scans[first:]))
                places = tuple(range(start + first, start + len(scans)))
                examples.append(Example(places=places, target=target, weight=weight, days=days))
        return examples

    return ask


def single_scans(cohort: Cohort) -> ExamplesOf:
    """Return what asks for each scan's own label, seen alone, where it is known; patients count once."""
    positive_weight = _positive_weight(cohort)

    def ask(batch: NDArray[np.int64], _rng: np.random.Generator) -> list[Example]:
        examples = []
        for patient, scans, start in _in_batch(cohort, batch):
            labels = [cohort.label(patient, day) for day in _days(cohort, scans)]
            known = [place for place, label in enumerate(labels) if label != UNKNOWN]
            for place in known:
                target = float(labels[place])
                weight = (positive_weight if target else 1.0) / len(known)
                examples.append(Example(places=(start + place,), target=target, weight=weight, days=(0,)))
        return examples

    return ask


def _positive_weight(cohort: Cohort) -> float:
    """Return how much more an event counts than none, as it is rarer."""
    known = cohort.labels[cohort.labelled()]
    positives = max(1, int((known == 1).sum()))
    return min(MAX_POSITIVE_WEIGHT, (len(known) - positives) / positives)


def _in_batch(cohort: Cohort, batch: NDArray[np.int64]) -> Iterator[tuple[int, range, int]]:
    """Yield each patient, its newest scans, and the place of the first of them among those of the batch."""
    start = 0
    for patient in batch:
        scans = newest_scans(cohort, int(patient))
        yield int(patient), scans, start
        start += len(scans)


def _days(cohort: Cohort, scans: range) -> list[int]:
    """Return the days of a patient's scans."""
    days: list[int] = cohort.days[scans.start : scans.stop].tolist()
    return days
