"""Occlusion and difference saliency find what moves the answer, in networks whose answer is known by construction."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from inference.models import TemporalConfig, TemporalNetwork
from inference.saliency import Method, attribute, change_image, describe, flat_brain, matched_baseline

SHAPE = (12, 16, 12)


@dataclass
class Sum:
    """Answers the sum of one box of the newest scan, through the two calls that an explanation may make."""

    box: tuple[slice, ...] = (slice(4, 8), slice(4, 8), slice(4, 8))
    encoded: list[int] = field(default_factory=list)

    def encode(self, volumes: torch.Tensor) -> torch.Tensor:
        """Return features (N, 1)."""
        self.encoded.append(len(volumes))
        return volumes[:, :, *self.box].sum(dim=(2, 3, 4))

    def head(self, features: torch.Tensor, lengths: torch.Tensor, days: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits (1, B, 1)."""
        assert (lengths == features.shape[1]).all()
        return features[None, :, -1]


def _brain(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    volume = torch.zeros(1, *SHAPE)
    volume[:, 1:11, 1:15, 1:11] = 0.3 + 0.1 * torch.rand(1, 10, 14, 10)
    return volume


def _lesion(volume: torch.Tensor, add: float = 0.5) -> torch.Tensor:
    changed = volume.clone()
    changed[:, 5:7, 5:7, 5:7] += add
    return changed


@pytest.mark.parametrize("method", list(Method))
def test_what_the_answer_depends_on_is_what_is_marked(method: Method) -> None:
    """A bright spot inside the box that the network sums has the peak; outside the box nothing is marked for it."""
    network, older = Sum(), _brain()
    newer = _lesion(older)
    features = network.encode(torch.stack([older, newer]))
    found = attribute(network, newer, features, 1, method=method, older=older).abs()[0]
    z, y, x = (int(each) for each in torch.unravel_index(found.argmax(), found.shape))
    assert min(z, y, x) >= 4
    assert max(z, y, x) < 8
    assert float(found[:3].max()) < 0.05 * float(found.max())


def test_occlusion_tells_how_far_the_logit_falls() -> None:
    """Every block of eight voxels gives its part of the sum to each of them; the signs are kept."""
    network, newer = Sum(), _lesion(_brain())
    features = network.encode(newer[None])
    found = attribute(network, newer, features, 0, method=Method.OCCLUSION)
    change = (newer - flat_brain(newer))[:, *network.box].sum()
    assert float(found.sum()) / 8 == pytest.approx(float(change), rel=1e-3)
    assert float(found[:, 5:7, 5:7, 5:7].min()) > 0


def test_only_the_occluded_scan_is_encoded_again() -> None:
    """Batches hold variants of one scan; the others' features are taken as they are."""
    network = Sum()
    line = torch.stack([_brain(seed) for seed in range(3)])
    features = network.encode(line)
    network.encoded.clear()
    attribute(network, line[2], features, 2, method=Method.OCCLUSION)
    blocks = 6 * 8 * 6 + 5 * 7 * 5  # of eight voxels: a grid over everything, and one shifted by a voxel
    assert sum(network.encoded) == 1 + blocks
    assert max(network.encoded) > 1


def test_difference_adds_up_to_what_the_change_did_to_the_answer() -> None:
    """Completeness along the path from the older scan to the newer one, in a real network."""
    torch.manual_seed(0)
    config = TemporalConfig(width=2, input_shape=(16, 16, 16), hidden=8, stem_kernel=3, members=2, residual=True)
    network = TemporalNetwork(config).eval()
    volumes = torch.rand(3, 1, 16, 16, 16)
    with torch.no_grad():
        features = network.encode(volumes)
        found = attribute(network, volumes[2], features, 2, method=Method.DIFFERENCE, older=volumes[1])
        before = volumes.clone()
        before[2] = matched_baseline(volumes[1], volumes[2])
        lengths = torch.tensor([3])
        change = float(network(volumes[None], lengths) - network(before[None], lengths))
    assert float(found.sum()) == pytest.approx(change, rel=0.1, abs=1e-3)


def test_a_scan_without_change_has_no_difference() -> None:
    """The same scan at another gain and offset is no change, to the eye as to the network."""
    newer = _brain()
    older = torch.where(newer > 0, 1.7 * newer + 0.1, 0.0)
    assert float(change_image(older, newer).abs().max()) < 1e-5
    network = Sum()
    features = network.encode(torch.stack([older, newer]))
    found = attribute(network, newer, features, 1, method=Method.DIFFERENCE, older=older)
    assert float(found.abs().max()) < 1e-5


def test_matching_is_not_misled_by_a_growing_lesion() -> None:
    """Scans come scaled to their brightest voxel; a lesion that becomes it must not look like a darker brain."""
    older = _brain()
    newer = _lesion(older, add=2.0) / 2.5
    change = change_image(older, newer)
    lesion = torch.zeros_like(change, dtype=torch.bool)
    lesion[:, 5:7, 5:7, 5:7] = True
    assert float(change[lesion].min()) > 20 * float(change[~lesion].abs().mean())


def test_where_one_scan_has_no_brain_nothing_is_compared() -> None:
    """What only one of both scans covers is no change."""
    newer, older = _brain(), _brain()
    older[:, :4] = 0
    assert not change_image(older, newer)[:, :4].any()


def test_difference_needs_an_older_scan() -> None:
    """A single time point has nothing to be compared with."""
    network, newer = Sum(), _brain()
    with pytest.raises(ValueError, match="expected an older scan"):
        attribute(network, newer, network.encode(newer[None]), 0, method=Method.DIFFERENCE)


def test_every_method_says_what_it_is() -> None:
    """A report names the method; no two share a description."""
    assert len({describe(method) for method in Method}) == len(Method)
