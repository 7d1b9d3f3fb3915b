"""The saliency check passes a network that learned, fails a picture of the scan, and decides by its rule alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import ndimage

from inference.cli_saliency import saliency_check_command
from inference.evaluation.saliency_checks import (
    IMAGE_DIFFERENCE,
    RANDOM_PLACEMENT,
    Case,
    CaseRow,
    Focus,
    phantom_cases,
    randomised_name,
    saliency_maps,
    score_case,
)
from inference.evaluation.saliency_real_pairs import real_pairs
from inference.evaluation.saliency_report import check_cases, write_saliency_check
from inference.evaluation.saliency_sanity import depends_on_weights, randomised, rank_correlation
from inference.evaluation.saliency_summary import paired_difference, summarise
from inference.models import TemporalConfig, TemporalNetwork
from inference.saliency import Method, attribute, to_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROOT = os.environ.get("DICOM_NODE_REAL_DATA")
SHAPE = (12, 16, 12)
GRADIENT = (Method.INTEGRATED_GRADIENTS, Method.DIFFERENCE)


def _case(rng: np.random.Generator, *, appears: bool = True) -> Case:
    """Return two noisy brains; in the newer one a bright ball may have appeared."""
    axes = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    centre = [rng.integers(4, size - 4) for size in SHAPE]
    ball = sum((axis - place) ** 2 for axis, place in zip(axes, centre, strict=True)) < 2.3**2
    volumes = np.zeros((2, *SHAPE), dtype=np.float32)
    inner = (slice(None), *(slice(1, size - 1) for size in SHAPE))
    volumes[inner] = np.clip(0.4 + 0.05 * rng.standard_normal((2, 10, 14, 10)), 0.01, 1)
    volumes[1] += 0.4 * appears * ball
    return Case(name="made", volumes=volumes, change=ball)


@pytest.fixture(scope="module")
def trained() -> TemporalNetwork:
    """Return a network that has learned to see whether a ball appeared."""
    torch.manual_seed(0)
    config = TemporalConfig(width=2, input_shape=SHAPE, hidden=8, stem_kernel=3, residual=True, dropout=0.0)
    network = TemporalNetwork(config)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    rng, lengths = np.random.default_rng(0), torch.full((16,), 2)
    labels = torch.arange(16) % 2
    for _ in range(60):
        cases = [_case(rng, appears=bool(label)) for label in labels]
        volumes = torch.from_numpy(np.stack([each.volumes for each in cases]))[:, :, None]  # (B, T, C, Z, Y, X)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(volumes, lengths)[:, 0], labels.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        right = ((network(volumes, lengths)[:, 0] > 0) == labels.bool()).float().mean()
    assert right > 0.85
    return network


def _by(method: Method) -> Callable[[TemporalNetwork, Case], NDArray[np.float32]]:
    """Return what explains a case by one of our methods."""

    def explain(network: TemporalNetwork, case: Case) -> NDArray[np.float32]:
        volumes = torch.from_numpy(case.volumes)[:, None]
        with torch.no_grad():
            features = network.encode(volumes)
        return to_map(attribute(network, volumes[1], features, 1, method=method, older=volumes[0]).numpy())

    return explain


def _edges(_network: TemporalNetwork, case: Case) -> NDArray[np.float32]:
    """Return a map that looks like an explanation and asks no network."""
    return to_map(ndimage.laplace(case.volumes[-1:]))


def _randomisation(explain: Callable[[TemporalNetwork, Case], NDArray[np.float32]], network: TemporalNetwork) -> float:
    """Return the median rank correlation with the maps of shuffled weights, over six cases."""
    rng = np.random.default_rng(1)
    found = []
    for seed in range(6):
        case = _case(rng)
        maps = [explain(each, case)[case.brain] for each in (network, randomised(network, seed=seed))]
        found.append(rank_correlation(*maps))
    return float(np.median(found))


@pytest.mark.parametrize("method", list(Method))
def test_our_methods_depend_on_what_was_learned(method: Method, trained: TemporalNetwork) -> None:
    """Destroying the weights changes the order in which voxels are ranked."""
    assert depends_on_weights(_randomisation(_by(method), trained))


def test_an_edge_detector_is_found_out(trained: TemporalNetwork) -> None:
    """It draws convincing maps, and the same ones for any weights."""
    correlation = _randomisation(_edges, trained)
    assert correlation == pytest.approx(1.0)
    assert not depends_on_weights(correlation)


def test_shuffling_reaches_every_weight_and_changes_no_scale(trained: TemporalNetwork) -> None:
    """Same values in each tensor, in another order; the trained network itself is left alone."""
    before = [each.detach().clone() for each in trained.parameters()]
    shuffled = list(randomised(trained, seed=0).parameters())
    for old, kept, new in zip(before, trained.parameters(), shuffled, strict=True):
        assert torch.equal(old, kept)
        assert torch.equal(old.flatten().sort().values, new.detach().flatten().sort().values)
    assert sum(not torch.equal(old, new) for old, new in zip(before, shuffled, strict=True)) > 0.8 * len(before)


def test_a_cascade_starts_at_the_output(trained: TemporalNetwork) -> None:
    """A tenth of the tensors are those of the head; the encoder is as it was."""
    part = randomised(trained, seed=0, share=0.1)
    pairs = list(zip(trained.named_parameters(), part.parameters(), strict=True))
    changed = [name for (name, old), new in pairs if not torch.equal(old, new)]
    assert changed
    assert all(name.startswith("heads") for name in changed)


def test_a_map_inside_the_change_scores_one_and_outside_nothing() -> None:
    """Share of mass and pointing game, by hand; chance is the change's part of the brain."""
    case = _case(np.random.default_rng(0))
    inside, outside = case.change.astype(np.float32), (case.brain & ~case.change).astype(np.float32)
    maps = {"occlusion": inside, randomised_name(Method.OCCLUSION): outside, IMAGE_DIFFERENCE: inside + outside}
    row = score_case(case, maps, [Method.OCCLUSION])
    chance = case.change.sum() / case.brain.sum()
    assert row.focus["occlusion"] == Focus(share=1.0, peak_inside=1.0)
    assert row.focus[randomised_name(Method.OCCLUSION)] == Focus(share=0.0, peak_inside=0.0)
    assert row.focus[IMAGE_DIFFERENCE].share == pytest.approx(chance)
    assert row.focus[RANDOM_PLACEMENT].share == pytest.approx(chance)
    assert row.rank_correlations["occlusion"] == pytest.approx(-1.0)


def test_maps_of_a_scan_lie_in_its_brain(trained: TemporalNetwork) -> None:
    """Every method, its twin and the difference image; nothing is marked where there is no brain."""
    case = _case(np.random.default_rng(2))
    maps = saliency_maps(trained, case, GRADIENT, seed=0)
    assert set(maps) == {IMAGE_DIFFERENCE, *GRADIENT, *(randomised_name(method) for method in GRADIENT)}
    assert not any(each[~case.brain].any() for each in maps.values())


def _rows(share: float, *, shuffled: float = 0.1, image: float = 0.1, correlation: float = 0.2) -> list[CaseRow]:
    """Return rows of one method whose shares scatter a little between patients."""
    method, rng = Method.DIFFERENCE, np.random.default_rng(0)
    shares = {method: share, randomised_name(method): shuffled, IMAGE_DIFFERENCE: image, RANDOM_PLACEMENT: 0.01}
    return [
        CaseRow(
            case=str(number),
            n_scans=2,
            change_voxels=10,
            brain_voxels=1000,
            focus={
                str(name): Focus(share=each + 0.02 * rng.random(), peak_inside=0.0) for name, each in shares.items()
            },
            rank_correlations={method: correlation},
        )
        for number in range(20)
    ]


@pytest.mark.parametrize(
    ("rows", "delivered"),
    [
        pytest.param(_rows(0.4), True, id="beats all, depends on weights"),
        pytest.param(_rows(0.4, shuffled=0.41), False, id="no better than shuffled weights"),
        pytest.param(_rows(0.4, image=0.4), False, id="no better than the difference image"),
        pytest.param(_rows(0.005, shuffled=0.0, image=0.0), False, id="no better than chance"),
        pytest.param(_rows(0.4, correlation=0.9), False, id="a picture of the scan"),
    ],
)
def test_delivery_follows_the_rule(rows: list[CaseRow], delivered: bool) -> None:
    """All three references must be beaten, and the randomisation test passed; the evidence says by how much."""
    verdict = summarise(rows, [Method.DIFFERENCE], data="synthetic phantoms").verdict
    assert verdict.delivered_by_default is delivered
    assert verdict.method == "difference"
    assert "20 synthetic phantoms" in verdict.evidence


def test_more_methods_must_win_by_more() -> None:
    """The best of several is picked, so the interval of each is wider."""
    differences = np.random.default_rng(0).standard_normal(50)
    one, three = (paired_difference(differences, level=1 - 0.05 / methods) for methods in (1, 3))
    assert three.lower < one.lower < one.mean < one.upper < three.upper


def test_phantoms_without_a_change_to_point_at_are_passed_over() -> None:
    """Every case has one, lies in the brain mostly, and comes from the seeds asked for."""
    cases = list(phantom_cases(2, shape=(24, 32, 24), first_seed=800_000))
    assert len({case.name for case in cases}) == 2
    for case in cases:
        assert case.change.sum() >= 8
        assert (case.change & case.brain).sum() > 0.8 * case.change.sum()
        assert 2 <= len(case.volumes) <= 6


def test_a_check_leaves_a_verdict_that_a_bundle_can_carry(trained: TemporalNetwork, tmp_path: Path) -> None:
    """JSON with rows, summary and verdict; pictures of phantoms and of the illustration, each called what it is."""
    rng = np.random.default_rng(3)
    done: list[int] = []
    check = check_cases(
        trained, [_case(rng) for _ in range(6)], methods=GRADIENT, data="made", advance=lambda: done.append(1)
    )
    written = write_saliency_check(tmp_path, check, bundle="sha256:0", illustration=check)
    content = json.loads((tmp_path / "saliency.json").read_text())
    assert len(content["rows"]) == len(done) == 6
    assert set(content["saliency"]) == {"method", "delivered_by_default", "evidence"}
    assert content["data"] == "synthetic phantoms"
    assert "n = 6" in content["illustration"]["note"]
    assert "verdict" not in content["illustration"]
    assert all(path.stat().st_size > 0 for path in written)
    assert [path.name for path in written] == ["saliency.json", "saliency.png", "illustration.png"]


def test_the_verb_checks_a_shipped_bundle(tmp_path: Path) -> None:
    """One phantom and one method; the verdict is printed."""
    arguments = ["--patients", "1", "--method", "difference", "--out", str(tmp_path)]
    result = CliRunner().invoke(saliency_check_command, arguments, catch_exceptions=False)
    verdict = json.loads(result.stdout.splitlines()[-1])
    assert verdict["method"] == "difference"
    assert json.loads((tmp_path / "saliency.json").read_text())["saliency"] == verdict


@pytest.mark.peer
@pytest.mark.skipif(ROOT is None, reason="DICOM_NODE_REAL_DATA is not set")
def test_an_experts_change_lands_in_the_brain_of_real_pairs(tmp_path: Path) -> None:
    """New lesions are brighter in the newer FLAIR than in the older one, where mask and scans lie as they should."""
    source, one = Path(str(ROOT)) / "longitudinal_ms" / "patient19", tmp_path / "patient19"
    one.symlink_to(source, target_is_directory=True)
    (case,) = real_pairs(tmp_path, shape=(48, 64, 48))
    assert case.change.sum() >= 8
    assert (case.change & case.brain).sum() > 0.9 * case.change.sum()
    older, newer = (volume[case.change].mean() / volume[volume > 0].mean() for volume in case.volumes)
    assert newer > older + 0.05
