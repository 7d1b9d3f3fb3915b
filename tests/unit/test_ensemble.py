"""An ensemble of whole networks: one network from outside, its members' own answers inside, small enough to ship."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from inference.answer import member_interval
from inference.bundle import BundleError, definition_of, load, save, shipped
from inference.bundle_files import NOVELTY, read_metadata
from inference.bundle_parts import Novelty
from inference.models import SIZES, Ensemble, TemporalConfig, TemporalNetwork, build
from inference.novelty import BLOCKS
from inference.saliency import attribute
from tests.factories.bundles import any_scans, tiny_bundle

TINY = TemporalConfig(width=1, input_shape=(16, 16, 16), hidden=4, stem_kernel=3, residual=True, standardise=True)
LIMIT = Novelty(limit=1.5, quantile=0.995, n_patients=200, n_scans=1200)


@pytest.fixture
def members() -> list[TemporalNetwork]:
    """Return three trained networks: as far as a test can tell."""
    torch.manual_seed(0)
    return [TemporalNetwork(TINY).eval() for _ in range(3)]


def test_every_member_answers_as_it_would_alone(members: list[TemporalNetwork]) -> None:
    """Features stand member after member, and each head reads its own."""
    ensemble = Ensemble.of(members)
    volumes, lengths = torch.rand(2, 3, 1, 16, 16, 16), torch.tensor([3, 2])
    with torch.no_grad():
        features = ensemble.encode(volumes.flatten(0, 1)).unflatten(0, (2, 3))
        together = ensemble.head(features, lengths)
        alone = [each.head(each.encode(volumes.flatten(0, 1)).unflatten(0, (2, 3)), lengths)[0] for each in members]
        mean = ensemble(volumes, lengths)
    assert features.shape == (2, 3, 3 * TINY.features)
    assert together.shape == (3, 2, 1)
    torch.testing.assert_close(together, torch.stack(alone))
    torch.testing.assert_close(mean, torch.stack(alone).mean(dim=0))


def test_the_members_keep_their_weights_apart(members: list[TemporalNetwork]) -> None:
    """They are copied: going on with one of them changes nothing in the ensemble."""
    ensemble = Ensemble.of(members)
    before = {name: each.clone() for name, each in ensemble.state_dict().items()}
    with torch.no_grad():
        members[0].heads[0].classifier.weight.zero_()  # type: ignore[union-attr]
    assert all(torch.equal(each, before[name]) for name, each in ensemble.state_dict().items())
    assert not ensemble.training


def test_networks_of_other_shape_or_with_several_heads_make_no_ensemble(members: list[TemporalNetwork]) -> None:
    """Nor does none at all."""
    for wrong in ([], [members[0], build("small", width=1)], [build("small", width=1, members=2)]):
        with pytest.raises(ValueError, match="one shape with one head each"):
            Ensemble.of(wrong)


def test_a_scan_of_an_ensemble_is_explained_like_any_other(members: list[TemporalNetwork]) -> None:
    """Gradients flow through every member's encoder."""
    ensemble, volume = Ensemble.of(members), torch.rand(1, 16, 16, 16)
    with torch.no_grad():
        features = ensemble.encode(torch.stack([volume, volume]))
    found = attribute(ensemble, volume, features, 1)
    assert found.shape == volume.shape
    assert float(found.abs().max()) > 0


def test_a_bundle_gives_the_ensemble_back(tmp_path: Path) -> None:
    """As float16, with the features of calibration beside it; MONAI builds the same network."""
    bundle = load(tiny_bundle(tmp_path / "bundle", novelty=LIMIT))
    assert isinstance(bundle.network, Ensemble)
    assert len(bundle.network.networks) == 2
    assert bundle.known is not None
    assert bundle.metadata.novelty == LIMIT
    assert definition_of(bundle.network) == bundle.definition
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "bundle/configs/inference.json"))
    parser["bundle_root"], parser["device"] = str(tmp_path / "bundle"), "cpu"
    parser.get_parsed_content("initialize")
    theirs = parser.get_parsed_content("network").state_dict()
    ours = bundle.network.state_dict()
    assert set(theirs) == set(ours)
    assert all(torch.equal(each, ours[name]) for name, each in theirs.items())


def test_five_networks_of_width_8_fit_the_8_megabytes() -> None:
    """Weights at two bytes each, what is known of features and blocks at four."""
    network = build("small", members=5, width=8, own_encoders=True)
    weights = 2 * sum(each.numel() for each in network.state_dict().values())
    features = any_scans(5, 8).features
    blocks = 4 * math.prod(BLOCKS) * (math.prod(BLOCKS) + 1)
    assert weights + features.mean.nbytes + features.whitening.nbytes + blocks < 7_500_000


def test_a_bundle_in_the_published_size_loads(tmp_path: Path) -> None:
    """Random weights; nothing is run through it."""
    network = build("published")
    told = read_metadata(shipped("phantom_recurrence"))
    told = told.model_copy(update={"input_shape": SIZES["published"].input_shape, "novelty": None})
    save(tmp_path, network=network, definition=definition_of(network, "published"), metadata=told)
    bundle = load(tmp_path)
    assert sum(each.numel() for each in bundle.network.parameters()) > 33_000_000
    assert (bundle.definition.size, bundle.definition.width) == ("published", None)


def test_novelty_and_the_features_it_needs_stand_together(tmp_path: Path) -> None:
    """One without the other is not written, and not read; nor are features of another network."""
    network = build("small", width=1)
    told = read_metadata(shipped("phantom_recurrence")).model_copy(update={"novelty": None})
    with pytest.raises(BundleError, match="or neither"):
        save(tmp_path, network=network, definition=definition_of(network), metadata=told, known=any_scans(1, 1))
    folder = tiny_bundle(tmp_path / "bundle", novelty=LIMIT)
    any_scans(1, 1).save(folder / NOVELTY)
    with pytest.raises(BundleError, match=r"novelty\.npz: expected features of shape \(2, 8\), found \(1, 8\)"):
        load(folder)
    (folder / NOVELTY).write_bytes(b"torn")
    with pytest.raises(BundleError, match=r"novelty\.npz: expected a feature distribution"):
        load(folder)
    (folder / NOVELTY).unlink()
    with pytest.raises(BundleError, match=r"novelty\.npz"):
        load(folder)


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """JSON of Python may hold one; a bundle may not."""
    folder = tiny_bundle(tmp_path, novelty=LIMIT)
    path = folder / "configs/metadata.json"
    content = json.loads(path.read_text())
    content["novelty"]["limit"] = float("nan")
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="limit"):
        load(folder)


def test_the_interval_is_where_one_more_member_would_fall() -> None:
    """By simulation: of four thousand ensembles of five, a sixth member falls inside in 95 %."""
    logits = np.random.default_rng(0).standard_normal((4000, 6)) * 0.7 + 1
    inside = []
    for each in logits:
        ends = member_interval(each[:5])
        assert ends is not None
        inside.append(ends[0] <= each[5] <= ends[1])
    assert 0.94 < np.mean(inside) < 0.96
    assert member_interval(np.array([1.0])) is None
