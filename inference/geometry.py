"""Where the planes of a series lie in the patient, and whether they form one volume. Pure numpy; raises with a reason.

Used twice: by the time line on headers alone, to refuse a broken series before any work is done on it, and by the
volume reader on the same values.

Slices are ordered by position along the normal `row direction x column direction`, never by InstanceNumber. So voxel
axes (x, y, z) are always a right-handed system, whichever way the scanner numbered its slices.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Brain protocols have 18 slices and more; what has fewer than 8 on one grid is a localizer or the rest of a series.
MIN_SLICES = 8
# Direction cosines: 1e-3 rad moves a point 15 cm away by 0.15 mm; scanners write at least 5 digits.
COSINE_TOLERANCE = 1e-3
# Pixel spacing: 1e-3 mm over 256 columns is a quarter of a millimetre.
SPACING_TOLERANCE_MM = 1e-3
# Two planes nearer than this share a position: no MR slice is that thin.
DUPLICATE_TOLERANCE_MM = 0.01
# A step between neighbours may differ from the usual one by 5 % (but by rounding to 0.05 mm at least).
STEP_TOLERANCE = 0.05
STEP_TOLERANCE_MM = 0.05
# In-plane drift of the slice origins over the whole stack: half a voxel of the 1 mm template.
TILT_TOLERANCE_MM = 0.5


class Defect(StrEnum):
    """What keeps a series from being one volume."""

    TOO_FEW = "too-few-slices"
    MISSING_POSITION = "missing-position"
    MIXED_GRID = "mixed-grid"
    MIXED_ORIENTATION = "mixed-orientation"
    DUPLICATE = "duplicate-slices"
    GAP = "slice-gap"
    TILT = "gantry-tilt"
    MOSAIC = "mosaic"


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
    """Planes in order along their normal. `order[z]` indexes the input; `affine` maps (x, y, z) voxels to LPS mm.

    The affine's columns are orthogonal and right-handed: along a row, along a column, along the normal.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]  # (4, 4)
    shape: tuple[int, int, int]  # (Z, Y, X)
    spacing_mm: tuple[float, float, float]  # (z, y, x)


def stack(planes: Sequence[Plane]) -> Stack:
    """Order planes by position along their common normal; the order they are given in does not matter.

    Raises:
        GeometryError: if they do not form one volume of parallel, evenly spaced, distinct slices on one grid.

    Source: PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).
    """
    for number, plane in enumerate(planes):
        _check_plane(plane, number)
    if planes:
        _check_orientation(planes)  # first: it tells most about a three-plane localizer
        _check_grid(planes)
    if len(planes) < MIN_SLICES:
        raise GeometryError(Defect.TOO_FEW, f"expected at least {MIN_SLICES} slices, found {len(planes)}")
    directions = _directions(planes)  # (3, 3), rows: along a row, along a column, normal
    positions = np.array([plane.position_mm for plane in planes], dtype=np.float64)  # (N, 3)
    depth_mm = positions @ directions[2]
    order = np.argsort(depth_mm, kind="stable")
    _check_duplicates(depth_mm[order])
    _check_tilt(positions[order], directions[2])
    _check_steps(np.diff(depth_mm[order]))
    return _assemble(planes, order, directions, positions)


def _assemble(
    planes: Sequence[Plane], order: NDArray[np.intp], directions: NDArray[np.float64], positions: NDArray[np.float64]
) -> Stack:
    """Build the stack of planes that passed every check."""
    first = planes[int(order[0])]
    length_mm = float((positions[order[-1]] - positions[order[0]]) @ directions[2])
    step_mm = length_mm / (len(planes) - 1)
    between_rows_mm, between_columns_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * between_columns_mm
    affine[:3, 1] = directions[1] * between_rows_mm
    affine[:3, 2] = directions[2] * step_mm
    affine[:3, 3] = positions[order[0]]
    return Stack(
        order=tuple(int(index) for index in order),
        affine=affine,
        shape=(len(planes), first.rows, first.columns),
        spacing_mm=(step_mm, between_rows_mm, between_columns_mm),
    )


def _check_plane(plane: Plane, number: int) -> None:
    """Refuse a plane whose numbers are not finite, not positive or not orthonormal."""
    values = (*plane.position_mm, *plane.orientation, *plane.spacing_mm)
    if not np.all(np.isfinite(values)):
        raise GeometryError(Defect.MISSING_POSITION, f"plane {number}: position, orientation or spacing is not finite")
    if min(*plane.spacing_mm, plane.rows, plane.columns) <= 0:
        message = (
            f"plane {number}: expected positive spacing and size, found spacing {plane.spacing_mm} mm, "
            f"{plane.rows} rows, {plane.columns} columns"
        )
        raise GeometryError(Defect.MISSING_POSITION, message)
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    gram = (float(row @ row), float(column @ column), float(row @ column))
    if not np.allclose(gram, (1.0, 1.0, 0.0), atol=2 * COSINE_TOLERANCE):
        message = (
            f"plane {number}: expected orthogonal unit direction cosines, found squared lengths {gram[0]:.4f} and "
            f"{gram[1]:.4f}, dot product {gram[2]:.4f}"
        )
        raise GeometryError(Defect.MISSING_POSITION, message)


def _check_grid(planes: Sequence[Plane]) -> None:
    """Refuse planes of different matrix or pixel spacing."""
    sizes = sorted({(plane.rows, plane.columns) for plane in planes})
    if len(sizes) > 1:
        found = ", ".join(f"{rows}x{columns}" for rows, columns in sizes)
        raise GeometryError(Defect.MIXED_GRID, f"expected one matrix (rows x columns), found {found}")
    spacings = np.array([plane.spacing_mm for plane in planes])  # (N, 2)
    spread = np.ptp(spacings, axis=0)
    if spread.max() > SPACING_TOLERANCE_MM:
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        message = (
            f"expected one pixel spacing (tolerance {SPACING_TOLERANCE_MM} mm), found {low[0]:.4f} to {high[0]:.4f} mm "
            f"between rows and {low[1]:.4f} to {high[1]:.4f} mm between columns"
        )
        raise GeometryError(Defect.MIXED_GRID, message)


def _check_orientation(planes: Sequence[Plane]) -> None:
    """Refuse planes that are not parallel, or turned within their plane."""
    cosines = np.array([plane.orientation for plane in planes])  # (N, 6)
    reference = np.array(min(plane.orientation for plane in planes))
    off = np.abs(cosines - reference).max(axis=1)
    others = int(np.count_nonzero(off > COSINE_TOLERANCE))
    if others:
        message = (
            f"expected one orientation (tolerance {COSINE_TOLERANCE} per direction cosine), found {others} of "
            f"{len(planes)} planes turned by up to {_angle_deg(cosines, reference):.2f} degrees"
        )
        raise GeometryError(Defect.MIXED_ORIENTATION, message)


def _angle_deg(cosines: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the largest angle in degrees between any row or column direction and the reference's."""
    dots = np.concatenate([cosines[:, :3] @ reference[:3], cosines[:, 3:] @ reference[3:]])
    return float(np.degrees(np.arccos(np.clip(dots.min(), -1.0, 1.0))))


def _directions(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """Return exactly orthonormal directions (3, 3) that do not depend on the order of the planes."""
    cosines = np.array(min(plane.orientation for plane in planes), dtype=np.float64)
    row = cosines[:3] / np.linalg.norm(cosines[:3])
    column = cosines[3:] - (cosines[3:] @ row) * row
    column /= np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)])


def _check_duplicates(depth_mm: NDArray[np.float64]) -> None:
    """Refuse more than one slice per position: repetitions, echoes, diffusion weights or a series sent twice."""
    group = np.concatenate([[0], np.cumsum(np.diff(depth_mm) > DUPLICATE_TOLERANCE_MM)])
    counts = Counter(group.tolist())
    per_position = sorted(set(counts.values()))
    if per_position != [1]:
        found = str(per_position[0]) if len(per_position) == 1 else f"{per_position[0]} to {per_position[-1]}"
        message = (
            f"expected one slice per position, found {len(depth_mm)} slices at {len(counts)} positions ({found} each)"
        )
        raise GeometryError(Defect.DUPLICATE, message)


def _check_tilt(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Refuse slices whose origins leave the line along the normal: a sheared volume."""
    offsets = positions - positions[0]
    depth_mm = offsets @ normal
    drift_mm = np.linalg.norm(offsets - np.outer(depth_mm, normal), axis=1)
    worst = int(np.argmax(drift_mm))
    if drift_mm[worst] > TILT_TOLERANCE_MM:
        angle = np.degrees(np.arctan2(drift_mm[worst], depth_mm[worst]))
        message = (
            f"expected slice origins on the normal (tolerance {TILT_TOLERANCE_MM} mm), found slice {worst} "
            f"{drift_mm[worst]:.2f} mm beside it ({angle:.1f} degrees of tilt)"
        )
        raise GeometryError(Defect.TILT, message)


def _check_steps(steps_mm: NDArray[np.float64]) -> None:
    """Refuse uneven spacing, as it is where a slice is missing."""
    usual_mm = float(np.median(steps_mm))
    tolerance_mm = max(STEP_TOLERANCE * usual_mm, STEP_TOLERANCE_MM)
    off_mm = np.abs(steps_mm - usual_mm)
    worst = int(np.argmax(off_mm))
    if off_mm[worst] > tolerance_mm:
        uneven = int(np.count_nonzero(off_mm > tolerance_mm))
        message = (
            f"expected steps of {usual_mm:.3f} mm (tolerance {tolerance_mm:.3f} mm), found {steps_mm[worst]:.3f} mm "
            f"between slices {worst} and {worst + 1}; {uneven} of {len(steps_mm)} steps are off"
        )
        raise GeometryError(Defect.GAP, message)
