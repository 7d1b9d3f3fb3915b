"""From a batch's scans to the logits of its examples: the one forward pass that training, scoring and DDP share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from inference.novelty import block_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.models import Network
    from inference.training.cohort import Cohort
    from inference.training.examples import Example


class Reading(nn.Module):
    """Encode scans and read examples from their features; with `resting`, what comes in are features already."""

    def __init__(self, network: Network, *, resting: bool = False) -> None:
        super().__init__()
        self.network = network
        self.resting = resting

    def forward(self, scans: Tensor, places: Tensor, lengths: Tensor, days: Tensor | None) -> Tensor:
        """Return the first output's logits (members, E).

        Args:
            scans: (N, C, Z, Y, X), or features (N, D) where the encoder rests.
            places: (E, T) of each example's scans among the N, padded with 0.
            lengths: (E,), how many of them are real.
            days: (E, T) of the scans, or None.
        """
        features = scans if self.resting else self.network.encode(scans)
        return self.network.head(features[places], lengths, days)[..., 0]


def arrange(examples: Sequence[Example], device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return places (E, T), lengths (E,) and, where all examples have them, days (E, T).

    Raises:
        ValueError: if there is no example.
    """
    if not examples:
        raise ValueError("expected an example or more to be asked, found none")
    lengths = torch.tensor([len(each.places) for each in examples])
    places = torch.zeros((len(examples), int(lengths.max())), dtype=torch.long)
    days = torch.zeros(places.shape)
    for row, each in enumerate(examples):
        places[row, : len(each.places)] = torch.tensor(each.places)
        if each.days is not None:
            days[row, : len(each.days)] = torch.tensor(each.days, dtype=torch.float32)
    dated = all(each.days is not None for each in examples)
    return places.to(device), lengths, days.to(device) if dated else None


def weighted_loss(logits: Tensor, examples: Sequence[Example]) -> Tensor:
    """Return the members' mean weighted cross-entropy of logits (members, E)."""
    targets = torch.tensor([each.target for each in examples], device=logits.device)
    weights = torch.tensor([each.weight for each in examples], device=logits.device)
    losses = binary_cross_entropy_with_logits(logits, targets.expand_as(logits), reduction="none")
    return (losses * weights).sum() / (weights.sum() * len(logits))


def to_tensor(volumes: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    """Return stored scans as (N, C, Z, Y, X) in 0..1."""
    full = np.float32(255 if volumes.dtype == np.uint8 else 1)
    return torch.from_numpy(np.asarray(volumes, dtype=np.float32) / full)[:, None]


def encode_cohort(network: Network, cohort: Cohort) -> Tensor:
    """Return the features (S, D) of all scans of a cohort, on the CPU; the network is left in evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    parts = np.array_split(np.arange(len(cohort.volumes)), max(1, len(cohort.volumes) // 64))
    with torch.no_grad():
        return torch.cat([network.encode(to_tensor(cohort.volumes[part]).to(device)).float().cpu() for part in parts])


def cohort_block_means(cohort: Cohort) -> NDArray[np.float32]:
    """Return the coarse brightness (S, B) of all scans of a cohort."""
    parts = np.array_split(np.arange(len(cohort.volumes)), max(1, len(cohort.volumes) // 64))
    return np.concatenate([block_means(to_tensor(cohort.volumes[part])[:, 0].numpy()) for part in parts])


def read(network: Network, features: Tensor, examples: Sequence[Example]) -> NDArray[np.float64]:
    """Return logits (members, E) of examples whose places are rows of features (S, D)."""
    device = next(network.parameters()).device
    places, lengths, days = arrange(examples, device)
    with torch.no_grad():
        logits = network.eval().head(features.to(device)[places], lengths, days)[..., 0]
    return np.asarray(logits.float().cpu().numpy(), dtype=np.float64)
