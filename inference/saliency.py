"""Which voxels of a scan move the answer: integrated gradients of the primary logit, one time point at a time.

The scan is faded in from a flat brain of the same mean, in steps, while the features of all other scans stay as they
are; gradients along the way, times the difference, share the change of the logit out over the voxels (completeness).
Signs are dropped: a reader wants to know where the model looked. The map is smoothed, because gradients through a stem
of stride 2 are grainy.

Source: Sundararajan et al., Axiomatic Attribution for Deep Networks, 2017 (arXiv 1703.01365), midpoint rule. The paper
of the temporal network names no saliency method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from inference.models import TemporalNetwork

STEPS = 8
SMOOTHING_VOXELS = 1.0
METHOD = f"integrated gradients from a flat brain, {STEPS} steps, absolute value, Gaussian {SMOOTHING_VOXELS:g} voxel"


def attribute(network: TemporalNetwork, volume: Tensor, features: Tensor, time_point: int) -> Tensor:
    """Return signed attributions (C, Z, Y, X) of the first output's mean logit to one scan.

    Args:
        network: in evaluation mode; on the device of the tensors.
        volume: the scan at `time_point`, (C, Z, Y, X).
        features: of all scans of the run, (T, D).
        time_point: which place of `features` the scan fills, from 0.
    """
    lengths = torch.tensor([features.shape[0]])
    flat = flat_brain(volume)
    total = torch.zeros_like(volume)
    for step in range(STEPS):
        faded = (flat + (volume - flat) * ((step + 0.5) / STEPS)).requires_grad_()
        with torch.enable_grad():
            encoded = network.encode(faded[None])[0].to(features.dtype)
            places = [encoded if place == time_point else each for place, each in enumerate(features)]
            logit = network.head(torch.stack(places)[None], lengths)[:, 0, 0].mean()
            (gradient,) = torch.autograd.grad(logit, faded)
        total += gradient
    return (volume - flat) * total / STEPS


def flat_brain(volume: Tensor) -> Tensor:
    """Return the scan (C, Z, Y, X) without its content: its mean wherever it is not 0."""
    brain = volume > 0
    return brain * (volume.sum() / brain.sum().clamp(min=1))


def to_map(attributions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn attributions (C, Z, Y, X) into a map (Z, Y, X) in 0..1 whose largest value is 1, or 0 everywhere."""
    strength = ndimage.gaussian_filter(np.abs(attributions).sum(axis=0), SMOOTHING_VOXELS)
    highest = float(strength.max())
    return np.asarray(strength / highest if highest > 0 else strength, dtype=np.float32)
