"""A cohort as if its slices had been thicker: blurred through-plane on the model's grid, as it is read.

A slice of t mm is a Gaussian along z whose full width at half maximum is t, on top of the slices that the scans came
with. What lies outside the brain stays 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy import ndimage

from inference.phantom.tissue import TEMPLATE_SHAPE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.training.cohort import Cohort

SLICES_MM = (3.0, 5.0, 7.0)
FWHM_PER_SD = 2.3548


class ThickVolumes:
    """Scans (S, Z, Y, X) that are blurred along z when they are read; they may be larger than memory."""

    def __init__(self, volumes: Any, sd_voxels: float) -> None:
        """Keep which scans these are, and how much they are blurred."""
        self._volumes, self._sd = volumes, sd_voxels
        self.shape, self.dtype = volumes.shape, volumes.dtype

    def __len__(self) -> int:
        """Return the number of scans."""
        return int(self.shape[0])

    def __getitem__(self, which: Any) -> NDArray[Any]:
        """Return scans as numpy would, blurred."""
        sharp = np.asarray(self._volumes[which])
        thick = ndimage.gaussian_filter1d(sharp.astype(np.float32), self._sd, axis=-3, mode="nearest")
        if np.issubdtype(self.dtype, np.integer):
            thick = np.rint(thick)
        return np.where(sharp > 0, thick, 0).astype(self.dtype)


def sd_voxels(slice_mm: float, depth: int) -> float:
    """Return the blur's SD in voxels of a grid that is `depth` voxels deep."""
    return slice_mm / FWHM_PER_SD * depth / TEMPLATE_SHAPE[0]


def with_thick_slices(cohort: Cohort, slice_mm: float) -> Cohort:
    """Return the cohort with thicker slices."""
    volumes = ThickVolumes(cohort.volumes, sd_voxels(slice_mm, cohort.volumes.shape[1]))
    return replace(cohort, volumes=cast("NDArray[np.uint8]", volumes))
