"""Integrated gradients: they add up, they depend on the weights, and the map is fit to be shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.models import TemporalConfig, TemporalNetwork
from inference.saliency import attribute, flat_brain, to_map

LENGTHS = torch.tensor([3])


def _network(seed: int) -> TemporalNetwork:
    torch.manual_seed(seed)
    config = TemporalConfig(width=2, input_shape=(16, 16, 16), hidden=8, stem_kernel=3, members=2, residual=True)
    return TemporalNetwork(config).eval()


def _logit(network: TemporalNetwork, volumes: torch.Tensor) -> float:
    with torch.no_grad():
        return float(network(volumes[None], LENGTHS))


def test_attributions_add_up_to_the_change_of_the_logit() -> None:
    """Completeness: their sum is the logit of the scan minus that of a flat brain in its place."""
    network, volumes = _network(0), torch.rand(3, 1, 16, 16, 16)
    with torch.no_grad():
        features = network.encode(volumes)
    attributions = attribute(network, volumes[1], features, 1)
    flat = volumes.clone()
    flat[1] = flat_brain(volumes[1])
    change = _logit(network, volumes) - _logit(network, flat)
    assert attributions.shape == (1, 16, 16, 16)
    assert float(attributions.sum()) == pytest.approx(change, rel=0.1, abs=1e-3)


def test_other_weights_give_another_map() -> None:
    """A map that did not depend on the weights would be a picture of the scan only."""
    volume = torch.rand(1, 16, 16, 16)
    maps = []
    for seed in (0, 1):
        network = _network(seed)
        with torch.no_grad():
            features = network.encode(volume[None])
        maps.append(to_map(attribute(network, volume, features, 0).numpy()))
    assert abs(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]) < 0.9


def test_a_map_lies_between_zero_and_one() -> None:
    """The strongest voxel is 1, signs are dropped."""
    attributions = np.zeros((1, 9, 9, 9), dtype=np.float32)
    attributions[0, 2, 3, 4] = -5.0
    found = to_map(attributions)
    assert found.shape == (9, 9, 9)
    assert (found.min(), found.max()) == (pytest.approx(0, abs=1e-6), 1.0)
    assert np.unravel_index(found.argmax(), found.shape) == (2, 3, 4)


def test_nothing_attributed_is_an_empty_map() -> None:
    """No division by zero."""
    assert not to_map(np.zeros((1, 4, 4, 4), dtype=np.float32)).any()
