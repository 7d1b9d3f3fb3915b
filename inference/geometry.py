"""Where the planes of a series lie in the patient, and whether they form one volume. Pure numpy; raises with a reason.

Used twice: by the time line on headers alone, to refuse a broken series before any work is done on it, and by the
volume reader on the same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Defect(StrEnum):
    """What keeps a series from being one volume."""

    TOO_FEW = "too-few-slices"
    MISSING_POSITION = "missing-position"
    MIXED_GRID = "mixed-grid"
    MIXED_ORIENTATION = "mixed-orientation"
    DUPLICATE = "duplicate-slices"
    GAP = "slice-gap"
    TILT = "gantry-tilt"


class GeometryError(ValueError):
    """The planes of a series do not form one volume; `defect` says which rule failed, the message where."""

    def __init__(self, defect: Defect, message: str) -> None:
        super().__init__(message)
        self.defect = defect


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One image plane (PS3.3 C.7.6.2): positions in LPS millimetres, spacing as (between rows, between columns)."""

    position_mm: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing_mm: tuple[float, float]
    rows: int
    columns: int
    thickness_mm: float | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stack:
    """Planes in order along their normal. `order[z]` indexes the input; `affine` maps (x, y, z) voxels to LPS mm."""

    order: tuple[int, ...]
    affine: NDArray[np.float64]  # (4, 4)
    shape: tuple[int, int, int]  # (Z, Y, X)
    spacing_mm: tuple[float, float, float]  # (z, y, x)


def stack(planes: Sequence[Plane]) -> Stack:
    """Order planes by position along their common normal."""
    raise NotImplementedError  # written by the volume work
