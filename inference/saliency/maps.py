"""From attributions to a map that can be shown, and what of a scan is brain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SMOOTHING_VOXELS = 1.0


def brain_of(volume: Tensor) -> Tensor:
    """Return where a scan (C, Z, Y, X) is brain: preprocessing leaves 0 everywhere else."""
    return volume > 0


def flat_brain(volume: Tensor) -> Tensor:
    """Return the scan (C, Z, Y, X) without its content: its mean wherever it is not 0."""
    brain = brain_of(volume)
    return brain * (volume.sum() / brain.sum().clamp(min=1))


def to_map(attributions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn attributions (C, Z, Y, X) into a map (Z, Y, X) in 0..1 whose largest value is 1, or 0 everywhere.

    Neighbours are added up before signs are dropped. Gradients through a stem of stride 2 are grainy; where a network
    has learned nothing they cancel, and where it agrees with itself they stay. Dropping signs first would leave little
    more than a picture of what is bright (measured: the map of shuffled weights then ranks voxels nearly alike).
    """
    sigma = (0.0, SMOOTHING_VOXELS, SMOOTHING_VOXELS, SMOOTHING_VOXELS)
    strength = np.abs(ndimage.gaussian_filter(attributions, sigma)).sum(axis=0)
    highest = float(strength.max())
    return np.asarray(strength / highest if highest > 0 else strength, dtype=np.float32)
