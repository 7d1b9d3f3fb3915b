"""Order verification: was this sequence of scans shown in the order in which it was acquired?

Every contiguous window of 2 to 6 scans gives one true and one false order, so that chance is exactly one half; among
the false ones are full reversals and swaps of two neighbours, the easiest and the hardest. Windows in which two scans
share a day have no order and are skipped. Patients are split before windows are made.

Source: Misra et al., Shuffle and Learn, 2016; Tak et al., NEJM AI 2025 (binary order verification). Windows, balance
and the treatment of ties are ours, because the published code and text differ on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

MIN_LENGTH = 2
MAX_LENGTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderExample:
    """Scans of one patient in the order in which they are shown; indices into the patient's scans, oldest = 0."""

    places: tuple[int, ...]
    in_order: bool


def windows(days: Sequence[int]) -> list[range]:
    """Return all contiguous windows of 2 to 6 scans without two scans on one day; `days` is ascending."""
    return [
        range(start, start + length)
        for length in range(MIN_LENGTH, min(MAX_LENGTH, len(days)) + 1)
        for start in range(len(days) - length + 1)
        if all(older < newer for older, newer in pairwise(days[start : start + length]))
    ]


def misorder(window: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Return the window in a wrong order: reversed, with two neighbours swapped, or shuffled, a third each."""
    kind = int(rng.integers(3))
    if kind == 0:
        return tuple(reversed(window))
    if kind == 1:
        return _swap_neighbours(window, rng)
    shuffled = tuple(window[place] for place in rng.permutation(len(window)))
    return shuffled if shuffled != tuple(window) else _swap_neighbours(window, rng)


def _swap_neighbours(window: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Return the window with two neighbours swapped."""
    place = int(rng.integers(len(window) - 1))
    return (*window[:place], window[place + 1], window[place], *window[place + 2 :])


def order_examples(days: Sequence[int], rng: np.random.Generator, *, max_windows: int) -> list[OrderExample]:
    """Return one true and one false order for each of at most `max_windows` windows, drawn at random."""
    found = windows(days)
    drawn = rng.permutation(len(found))[:max_windows]
    return [
        example
        for window in (found[number] for number in drawn)
        for example in (
            OrderExample(places=tuple(window), in_order=True),
            OrderExample(places=misorder(window, rng), in_order=False),
        )
    ]
