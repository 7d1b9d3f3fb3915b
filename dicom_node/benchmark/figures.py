"""Figures of several rounds: the median, the smallest and the largest, and how ours stands to a peer's."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ItemT = TypeVar("ItemT")


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return median, smallest and largest."""
    found = list(values)
    return {"median": round(median(found), 4), "min": round(min(found), 4), "max": round(max(found), 4)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return our median over theirs; None where one of them is missing or nothing."""
    if not ours or not theirs or not median(theirs):
        return None
    return round(median(ours) / median(theirs), 3)


def there_and_back(items: Sequence[ItemT], number: int) -> list[ItemT]:
    """Return the order of a round: A B C, then C B A, so that what drifts meets all alike."""
    return list(items) if number % 2 == 0 else list(reversed(items))


def told(found: Mapping[str, float] | None, digits: int = 0) -> str:
    """Return a spread in a cell of a table."""
    if found is None:
        return "-"
    return f"{found['median']:.{digits}f} [{found['min']:.{digits}f}-{found['max']:.{digits}f}]"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write figures with every round.

    Raises:
        OSError: if the disk says no.
    """
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
