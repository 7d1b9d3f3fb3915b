"""One way to ask for an explanation, whatever the method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.bundle_parts import SaliencyMethod as Method
from inference.saliency.gradients import STEPS, integrated_gradients
from inference.saliency.maps import SMOOTHING_VOXELS, flat_brain
from inference.saliency.matching import matched_baseline
from inference.saliency.occlusion import BLOCKS, occlusion
from inference.saliency.question import Question

if TYPE_CHECKING:
    from torch import Tensor

    from inference.saliency.question import Explainable


_DESCRIPTIONS = {
    Method.INTEGRATED_GRADIENTS: f"integrated gradients from a flat brain, {STEPS} steps",
    Method.OCCLUSION: f"occlusion by a flat brain, two grids of {BLOCKS} blocks an axis",
    Method.DIFFERENCE: f"integrated gradients from the scan before, matched in brightness, {STEPS} steps",
}


def describe(method: Method) -> str:
    """Return what a report says of a method's maps."""
    return f"{_DESCRIPTIONS[method]}, Gaussian {SMOOTHING_VOXELS:g} voxel, absolute value"


METHOD = describe(Method.INTEGRATED_GRADIENTS)


def attribute(
    network: Explainable,
    volume: Tensor,
    features: Tensor,
    time_point: int,
    *,
    method: Method = Method.INTEGRATED_GRADIENTS,
    older: Tensor | None = None,
    days: Tensor | None = None,
) -> Tensor:
    """Return signed attributions (C, Z, Y, X) of the first output's mean logit to one scan.

    Args:
        network: in evaluation mode; on the device of the tensors.
        volume: the scan at `time_point`, (C, Z, Y, X).
        features: of all scans of the run, (T, D).
        time_point: which place of `features` the scan fills, from 0.
        method: how.
        older: for `Method.DIFFERENCE`, the scan to compare with, (C, Z, Y, X).
        days: when the scans were acquired, (T,), from any origin; they count only in a network with `time_gap`.

    Raises:
        ValueError: if the method needs an older scan and there is none.
    """
    question = Question(network=network, features=features, time_point=time_point, days=days)
    if method is Method.OCCLUSION:
        return occlusion(question, volume)
    if method is Method.INTEGRATED_GRADIENTS:
        return integrated_gradients(question, volume, flat_brain(volume))
    if older is None:
        raise ValueError("difference saliency: expected an older scan, found none")
    return integrated_gradients(question, volume, matched_baseline(older, volume))
