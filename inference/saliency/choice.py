"""Which method makes the map of which scan, and how a report tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.bundle_parts import SaliencyMethod
from inference.saliency.attribution import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.bundle_parts import SaliencyEvidence


def method_at(told: SaliencyEvidence | None, place: int) -> SaliencyMethod:
    """Return how the scan at a place of the time line is explained: as the bundle says, else by integrated gradients.

    The oldest scan has none before it to be compared with.
    """
    method = SaliencyMethod.INTEGRATED_GRADIENTS if told is None else told.method
    alone = method is SaliencyMethod.DIFFERENCE and place == 0
    return SaliencyMethod.INTEGRATED_GRADIENTS if alone else method


def methods_told(methods: Sequence[SaliencyMethod], scans: Sequence[int]) -> str | None:
    """Return how the maps of scans were made, None if there are none.

    Args:
        methods: of each map.
        scans: of which scan each is, from 0; they are named, from 1, where not all maps were made alike.
    """
    if not methods:
        return None
    if len(set(methods)) == 1:
        return describe(methods[0])
    numbers = {each: [scan + 1 for scan, own in zip(scans, methods, strict=True) if own is each] for each in methods}
    return "; ".join(
        f"scan{'s' * (len(own) > 1)} {', '.join(map(str, own))}: {describe(method)}" for method, own in numbers.items()
    )
