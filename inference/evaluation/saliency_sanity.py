"""Does a map depend on what the network has learned? The model-randomisation test.

A map that stays the same when the weights are destroyed is a picture of the scan. Weights are destroyed by shuffling
the values of each tensor: nothing that was learned remains, but every layer keeps the scale of its weights, so that the
signal neither dies nor explodes on its way, which alone would change a map.

Source: Adebayo et al., Sanity Checks for Saliency Maps, 2018 (arXiv 1810.03292); they draw new weights instead.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from scipy.stats import rankdata

from inference.saliency import Explainable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch.nn import Parameter

MAX_RANK_CORRELATION = 0.5  # fixed before anything was measured


class Trained(Explainable, Protocol):
    """An explainable network whose weights can be reached, in the order from its input to its output."""

    def parameters(self) -> Iterator[Parameter]:
        """Yield the weights."""


TrainedT = TypeVar("TrainedT", bound=Trained)


def randomised(network: TrainedT, *, seed: int, share: float = 1.0) -> TrainedT:
    """Return a copy of which a share of the weight tensors, from the output on, are shuffled.

    Less than all of them is a stage of the cascading test.
    """
    shuffled = copy.deepcopy(network)
    tensors = list(shuffled.parameters())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors[len(tensors) - math.ceil(share * len(tensors)) :]:
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            tensor.copy_(tensor.flatten()[order].view_as(tensor))
    return shuffled


def rank_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return Spearman's correlation of two lists of values (N,); 0 if one of them is the same everywhere."""
    ranks = [rankdata(each) - (len(each) + 1) / 2 for each in (first, second)]
    norm = math.sqrt(float((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / norm if norm > 0 else 0.0


def depends_on_weights(correlation: float) -> bool:
    """Return whether a map's rank correlation with its randomised twin is low enough to speak of the network."""
    return abs(correlation) <= MAX_RANK_CORRELATION
