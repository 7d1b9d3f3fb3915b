"""Thin a history evenly: which of many days to keep so that they cover all of it. Pure Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

Path: TypeAlias = tuple[int, tuple[int, ...]]  # (sum of the squared gaps, minus the positions, oldest first)


def thin_evenly(
    days: Sequence[date], *, maximum: int, min_gap_days: int = 0, max_gap_days: int | None = None
) -> tuple[int, ...]:
    """Return the positions of the days to keep, oldest first.

    The newest day is always kept. Then, in this order: the oldest day that can be reached, as many days as possible,
    and gaps as equal as possible (the smallest sum of their squares; of equal sums the later days). Every gap between
    days kept is within the limits. Reaching farther back never costs days: of two chains from the newest day, the one
    that reaches farther with fewer steps can step onto the other's days, until it has as many.

    Args:
        days: oldest first; a day may stand twice.
        maximum: how many days are kept at most, at least 1.
        min_gap_days: kept days lie at least this far apart.
        max_gap_days: and at most this far; None: no limit.
    """
    if not days:
        return ()
    newest = len(days) - 1
    paths: dict[int, Path] = {newest: (0, (-newest,))}  # from each day to the newest, with `count` days
    found = {(1, newest): paths[newest]}
    for count in range(2, maximum + 1):
        paths = _one_more(days, paths, min_gap_days, max_gap_days)
        found |= {(count, oldest): path for oldest, path in paths.items()}
    best = min(found, key=lambda each: (each[1], -each[0], found[each]))
    return tuple(-position for position in found[best][1])


def _one_more(
    days: Sequence[date], paths: dict[int, Path], min_gap_days: int, max_gap_days: int | None
) -> dict[int, Path]:
    """Put every older day before the best path that it can stand before."""
    longer: dict[int, Path] = {}
    for oldest, (squares, kept) in paths.items():
        for older in range(oldest):
            gap_days = (days[oldest] - days[older]).days
            if gap_days < min_gap_days or (max_gap_days is not None and gap_days > max_gap_days):
                continue
            path = (squares + gap_days**2, (-older, *kept))
            longer[older] = min(longer.get(older, path), path)
    return longer
