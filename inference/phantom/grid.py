"""Where voxels lie: grids in a scanner's LPS millimetres, and the point that heads turn about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom.scanner import rotation_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD_CENTRE_MM = np.array([0.0, 17.0, 18.0])  # of the template, LPS


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Grid:
    """Where voxels lie: `affine` maps (x, y, z) indices to LPS millimetres in the scanner; `shape` is (Z, Y, X)."""

    affine: NDArray[np.float64]  # (4, 4)
    shape: tuple[int, int, int]

    def points_mm(self) -> NDArray[np.float32]:
        """Return the voxels' centres (3, Z*Y*X) in LPS millimetres."""
        z, y, x = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in self.shape), indexing="ij")
        index = np.stack([x.ravel(), y.ravel(), z.ravel()])
        affine = self.affine.astype(np.float32)
        return np.asarray(affine[:3, :3] @ index + affine[:3, 3:], dtype=np.float32)


def scan_grid(
    *,
    spacing_mm: tuple[float, float, float] = (3.5, 1.0, 1.0),
    shape: tuple[int, int, int] = (44, 224, 192),
    oblique_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """Return an axial grid around the head, tilted about x, y, z. Spacing and shape are (z, y, x)."""
    depth, row, column = spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(oblique_deg) @ np.diag([column, row, depth])
    middle = np.array([(size - 1) / 2 for size in shape[::-1]])
    affine[:3, 3] = HEAD_CENTRE_MM - affine[:3, :3] @ middle
    return Grid(affine=affine, shape=shape)
