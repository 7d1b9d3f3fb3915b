"""Integrated gradients: a scan is faded in from a baseline, and every voxel is given its share of the change.

Gradients along the way, times the difference, share the change of the logit out over the voxels (completeness).

Source: Sundararajan et al., Axiomatic Attribution for Deep Networks, 2017 (arXiv 1703.01365), midpoint rule. The paper
of the temporal network names no saliency method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from inference.saliency.question import Question

STEPS = 8


def integrated_gradients(question: Question, volume: Tensor, baseline: Tensor) -> Tensor:
    """Return attributions (C, Z, Y, X) that add up to the logit of `volume` minus that of `baseline`."""
    total = torch.zeros_like(volume)
    for step in range(STEPS):
        faded = (baseline + (volume - baseline) * ((step + 0.5) / STEPS)).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(question.logits(faded[None]).sum(), faded)
        total += gradient
    return (volume - baseline) * total / STEPS
