"""Between the template's grid and the model's: the whole field of view stretched to the network's input size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def stretch(array: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """Average an array (Z, Y, X) over the equal boxes that the new grid's voxels are; sums run in double precision."""
    values = np.asarray(array, dtype=np.float64)
    for axis, size in enumerate(shape):
        values = _average_boxes(values, axis, size)
    return values.astype(np.float32)


def _average_boxes(values: NDArray[np.float64], axis: int, size: int) -> NDArray[np.float64]:
    """Average along one axis over `size` boxes of equal, possibly fractional width."""
    lined = np.moveaxis(values, axis, 0)
    before = np.zeros((lined.shape[0] + 1, *lined.shape[1:]))  # running sum in front of each voxel
    np.cumsum(lined, axis=0, out=before[1:])
    edges = np.linspace(0.0, lined.shape[0], size + 1)
    whole = np.minimum(edges.astype(np.intp), lined.shape[0] - 1)
    fraction = (edges - whole).reshape(-1, *(1 for _ in lined.shape[1:]))
    at_edges = before[whole] + fraction * lined[whole]
    return np.moveaxis(np.diff(at_edges, axis=0) * (size / lined.shape[0]), 0, axis)


def stretched_affine(
    affine: NDArray[np.float64], old_shape: Sequence[int], new_shape: Sequence[int]
) -> NDArray[np.float64]:
    """Return the affine of the stretched grid: same field of view, both shapes as (Z, Y, X)."""
    scale = np.array(old_shape[::-1]) / np.array(new_shape[::-1])  # (x, y, z)
    to_old = np.diag([*scale, 1.0])
    to_old[:3, 3] = (scale - 1.0) / 2.0  # the outer edges of both grids coincide
    return np.asarray(affine @ to_old)


def normalise(array: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale an array (Z, Y, X) to 0..1 by its smallest and largest value in the brain; 0 outside.

    Source: published loader, per-volume min-max.
    """
    low, high = float(array[brain].min()), float(array[brain].max())
    scale = 1.0 / (high - low) if high > low else 0.0
    scaled = (array - np.float32(low)) * np.float32(scale)
    return np.where(brain, np.clip(scaled, 0.0, 1.0), 0.0).astype(np.float32)
