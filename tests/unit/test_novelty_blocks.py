"""Coarse brightness tells what no encoder need notice: a head upside down, half of it missing, dark and bright swapped.

Synthetic phantoms, rendered at half the small network's size. What is measured against real scans stands elsewhere.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference.bundle import BundleError, load
from inference.bundle_files import NOVELTY
from inference.bundle_parts import Novelty
from inference.evaluation.novelty import FittedNovelty, fit_novelty
from inference.novelty import BLOCKS, FeatureDistribution, KnownScans, block_means
from inference.phantom import INTERNAL, SHIFTED, Population
from inference.training.phantoms import Drawing, rendered_patient
from inference.training.reading import to_tensor
from tests.factories.bundles import MEMBERS, any_scans, tiny_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (24, 32, 24)
PATIENTS, VISITS = 60, 2


def heads(first_seed: int, patients: int, population: Population = INTERNAL) -> NDArray[np.float32]:
    """Return phantoms' scans (S, Z, Y, X) as the node would prepare them, two of each patient."""
    draw = partial(rendered_patient, Drawing(shape=SHAPE, population=population, n_visits=VISITS))
    volumes = chain.from_iterable(draw(seed).volumes for seed in range(first_seed, first_seed + patients))
    return to_tensor(np.stack(list(volumes)))[:, 0].numpy()


@pytest.fixture(scope="module")
def fitted() -> FittedNovelty:
    """Return what is known of phantoms whose features say nothing at all."""
    volumes = heads(840_000, PATIENTS)
    features = np.random.default_rng(0).standard_normal((len(volumes), 8)).astype(np.float32)
    whose = np.repeat([f"P{number}" for number in range(PATIENTS)], VISITS)
    return fit_novelty(features, whose, blocks=block_means(volumes))


@pytest.fixture(scope="module")
def ordinary() -> NDArray[np.float32]:
    """Return scans of patients that the fit has not seen."""
    return heads(841_000, 20)


def beyond(fitted: FittedNovelty, volumes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how far scans lie, in limits, where the encoders see nothing strange in them."""
    nothing = fitted.known.features.mean.repeat(len(volumes), axis=0)
    return fitted.known.beyond(fitted.novelty, nothing, block_means(volumes))


def swapped(volumes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scans with what is bright dark, and the background as it is."""
    return np.where(volumes > 0, 1 - volumes, 0).astype(np.float32)


def halved(volumes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scans without one side of the brain."""
    found = volumes.copy()
    found[..., : SHAPE[2] // 2] = 0
    return found


def test_ordinary_scans_lie_within_the_limit(fitted: FittedNovelty, ordinary: NDArray[np.float32]) -> None:
    """Those of unseen patients, on whatever scanner of the same population, and brighter or darker as a whole."""
    assert np.mean(beyond(fitted, ordinary) > 1) <= 0.05
    assert 0.2 < np.median(beyond(fitted, ordinary)) < 0.9
    assert beyond(fitted, 0.6 * ordinary) == pytest.approx(beyond(fitted, ordinary), rel=1e-3)


def test_strange_ones_lie_beyond_it(fitted: FittedNovelty, ordinary: NDArray[np.float32]) -> None:
    """Every single one."""
    strange = {
        "upside down": ordinary[:, ::-1].copy(),
        "back to front": ordinary[:, :, ::-1].copy(),
        "half a brain": halved(ordinary),
        "inverted": swapped(ordinary),
        "empty": np.zeros_like(ordinary[:1]),
    }
    nearest = {name: float(beyond(fitted, each).min()) for name, each in strange.items()}
    assert min(nearest.values()) > 1, nearest


def test_other_scanners_and_slices_are_not_what_it_tells(fitted: FittedNovelty) -> None:
    """Of the shifted population a few scans may lie beyond the limit, not most of them."""
    share = float(np.mean(beyond(fitted, heads(842_000, 20, SHIFTED)) > 1))
    assert share <= 0.25, share


def test_the_larger_of_both_multiples_counts(fitted: FittedNovelty, ordinary: NDArray[np.float32]) -> None:
    """A scan that the encoders find strange is strange, whatever its brightness; without blocks they alone count."""
    far = fitted.known.features.mean + 100
    blocks = block_means(ordinary[:1])
    by_features = fitted.known.features.distances(far) / fitted.novelty.limit
    assert fitted.known.beyond(fitted.novelty, far, blocks) == by_features
    features_only = KnownScans(features=fitted.known.features)
    nothing = fitted.known.features.mean
    assert features_only.beyond(fitted.novelty, nothing, block_means(halved(ordinary[:1]))) == [0]


def test_the_file_gives_both_distributions_back(fitted: FittedNovelty, tmp_path: Path) -> None:
    """In little more space than a network's own features need."""
    fitted.known.save(tmp_path / "known.npz")
    again = KnownScans.load(tmp_path / "known.npz")
    assert again.blocks is not None
    assert fitted.known.blocks is not None
    assert np.array_equal(again.blocks.whitening, fitted.known.blocks.whitening)
    assert (tmp_path / "known.npz").stat().st_size < 350_000


def test_a_bundle_holds_what_its_metadata_speaks_of(tmp_path: Path) -> None:
    """A limit for blocks and no distribution of them, or one of another number of blocks, is refused."""
    limit = Novelty(limit=1.5, block_limit=1.2, quantile=0.995, n_patients=200, n_scans=1200)
    folder = tiny_bundle(tmp_path / "bundle", novelty=limit)
    with pytest.raises(BundleError, match=r"expected block means of shape \(1, 288\), found None"):
        load(folder)
    n_blocks = int(np.prod(BLOCKS))
    for number in (n_blocks, 10):
        blocks = FeatureDistribution(
            mean=np.zeros((1, number), np.float32), whitening=np.eye(number, dtype=np.float32)[np.newaxis]
        )
        KnownScans(features=any_scans(MEMBERS, 1).features, blocks=blocks).save(folder / NOVELTY)
        if number == n_blocks:
            assert load(folder).known is not None
    with pytest.raises(BundleError, match=r"found \(1, 10\)"):
        load(folder)
