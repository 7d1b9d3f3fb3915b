"""Axial, coronal and sagittal cuts through the peak of a saliency map, whatever way its slices were acquired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

from sr_templates.drawing import fused, windowed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.results import SaliencyMap

_FIELD_MM = 220.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """How a cut is shown: LPS directions of its columns (to the right) and rows (downward), and the letters there."""

    name: str
    right: tuple[float, float, float]
    down: tuple[float, float, float]
    letters: tuple[str, str]  # at the left edge, at the upper edge


_PLANES = (
    _Plane(name="axial", right=(1, 0, 0), down=(0, 1, 0), letters=("R", "A")),
    _Plane(name="coronal", right=(1, 0, 0), down=(0, 0, -1), letters=("R", "S")),
    _Plane(name="sagittal", right=(0, 1, 0), down=(0, 0, -1), letters=("A", "S")),
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class View:
    """One cut: name, letters (left edge, upper edge) and pixels (H, W, 3) of 1 mm or as asked."""

    name: str
    letters: tuple[str, str]
    pixels: NDArray[np.uint8]


def orthogonal_views(saliency: SaliencyMap, *, threshold: float, size_px: int) -> tuple[View, ...]:
    """Return three cuts through the peak, radiological convention, each `size_px` square over 220 mm."""
    grey = windowed(saliency.anatomy).astype(np.float32)  # (Z, Y, X)
    shape = np.array(saliency.values.shape)
    peak_zyx = np.array(np.unravel_index(int(np.argmax(saliency.values)), saliency.values.shape))
    peak = saliency.affine[:3, :3] @ peak_zyx[::-1] + saliency.affine[:3, 3]
    middle = saliency.affine[:3, :3] @ ((shape[::-1] - 1) / 2) + saliency.affine[:3, 3]
    to_voxels = np.linalg.inv(saliency.affine)
    views = []
    for plane in _PLANES:
        world = _grid(plane, peak, middle, size_px)  # (H, W, 3)
        voxels = world @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        zyx = np.moveaxis(voxels[..., ::-1], -1, 0)  # (3, H, W)
        anatomy = map_coordinates(grey, zyx, order=1, mode="constant", cval=0.0)
        values = map_coordinates(saliency.values, zyx, order=1, mode="constant", cval=0.0)
        pixels = fused(np.clip(anatomy, 0, 255).astype(np.uint8), values, threshold)
        views.append(View(name=plane.name, letters=plane.letters, pixels=pixels))
    return tuple(views)


def _grid(plane: _Plane, peak: NDArray[np.float64], middle: NDArray[np.float64], size_px: int) -> NDArray[np.float64]:
    """Return the LPS millimetres of each pixel of the cut, shape (H, W, 3): through the peak, around the volume."""
    right, down = np.array(plane.right, dtype=float), np.array(plane.down, dtype=float)
    normal = np.cross(right, down)
    centre = middle + normal * float(np.dot(peak - middle, normal))
    offsets = (np.arange(size_px) + 0.5) / size_px * _FIELD_MM - _FIELD_MM / 2  # (N,)
    return np.asarray(centre + offsets[:, None, None] * down + offsets[None, :, None] * right)
