"""The temporal network: shapes, order, and independence of padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.models import SIZES, TemporalConfig, TemporalNetwork, build
from inference.preprocess import load_template
from inference.preprocess.stretch import stretch

TINY = TemporalConfig(width=2, input_shape=(16, 16, 16), hidden=8, stem_kernel=3, members=2, residual=True)


@pytest.fixture
def network() -> TemporalNetwork:
    """Return a tiny network in evaluation mode."""
    torch.manual_seed(0)
    return TemporalNetwork(TINY).eval()


def test_the_published_size_is_the_paper_s() -> None:
    """512 features, LSTM of 512, 96 x 128 x 96, no residual, one head."""
    config = SIZES["published"]
    assert (config.features, config.hidden, config.input_shape) == (512, 512, (96, 128, 96))
    assert (config.residual, config.members, config.stem_kernel) == (False, 1, 7)


def test_the_published_network_encodes_to_512_features() -> None:
    """One small volume runs through the full-size network."""
    network = build("published").eval()
    with torch.no_grad():
        assert network.encode(torch.rand(1, 1, 32, 32, 32)).shape == (1, 512)
    assert sum(each.numel() for each in network.encoder.parameters()) > 33_000_000


def test_padding_does_not_change_the_answer(network: TemporalNetwork) -> None:
    """Two scans answer the same alone and padded to four, whatever lies in the padding."""
    volumes = torch.rand(1, 4, 1, 16, 16, 16)
    with torch.no_grad():
        alone = network(volumes[:, :2], torch.tensor([2]))
        padded = network(volumes, torch.tensor([2]))
        volumes[:, 2:] = float("nan")
        poisoned = network(volumes, torch.tensor([2]))
    torch.testing.assert_close(padded, alone, atol=1e-6, rtol=1e-5)
    assert torch.equal(padded, poisoned)


def test_a_batch_answers_as_its_patients_do_alone(network: TemporalNetwork) -> None:
    """Patients of different lengths do not influence each other."""
    features = torch.rand(3, 5, TINY.features)
    lengths = torch.tensor([5, 1, 3])
    with torch.no_grad():
        together = network.head(features, lengths)
        alone = [network.head(features[i : i + 1, :n], lengths[i : i + 1]) for i, n in enumerate(lengths.tolist())]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-6, rtol=1e-5)


def test_the_order_of_scans_matters(network: TemporalNetwork) -> None:
    """A reversed time line gives another answer."""
    features = torch.rand(1, 4, TINY.features)
    with torch.no_grad():
        forwards = network.head(features, torch.tensor([4]))
        backwards = network.head(features.flip(1), torch.tensor([4]))
    assert not torch.allclose(forwards, backwards, atol=1e-6)


def test_the_answer_is_the_mean_of_the_members(network: TemporalNetwork) -> None:
    """The forward pass averages the logits of the heads over one encoder."""
    volumes, lengths = torch.rand(2, 3, 1, 16, 16, 16), torch.tensor([3, 2])
    with torch.no_grad():
        members = network.head(network.encode_padded(volumes, lengths), lengths)
        torch.testing.assert_close(network(volumes, lengths), members.mean(dim=0))
    assert members.shape == (2, 2, 1)


def test_the_margin_of_the_field_of_view_is_not_read() -> None:
    """The small network sees the template's brain whole, and nothing beyond its margin."""
    network = build("small").eval()
    volume = torch.rand(1, 1, *SIZES["small"].input_shape)
    changed = volume.clone()
    changed[..., :4] = changed[..., -4:] = 0
    changed[:, :, -6:] = 0
    with torch.no_grad():
        assert torch.equal(network.encode(volume), network.encode(changed))
    mask = load_template().mask.astype(np.float32)
    brain = stretch(mask, SIZES["small"].input_shape) > 0.5
    (z_low, z_high), (y_low, y_high), (x_low, x_high) = SIZES["small"].margin
    assert brain[z_low : 48 - z_high, y_low : 64 - y_high, x_low : 48 - x_high].sum() == brain.sum()


def test_an_unknown_size_is_refused() -> None:
    """Only the sizes of the table can be built."""
    with pytest.raises(KeyError):
        build("huge")
