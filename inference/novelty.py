"""How unlike the scans of calibration a scan is: by what the encoders make of it, and by its coarse brightness.

Of both, the Mahalanobis distance from the scans of calibration, over the square root of the numbers that go in, so that
an ordinary scan lies near 1 whatever their number; for features the root mean square over members. Each has a limit of
its own, and the larger multiple of its limit counts.

Features see what the encoders see, and no more: with the first shipped encoder, which reads only what is brighter than
brain, a head upside down, one with half its brain blanked and an empty image lay at 0.3 to 0.45 times the limit, like
any phantom. Hence the means of coarse blocks, as multiples of the scan's own mean brain. Fitted on 200
phantom patients they put a head upside down at 6.1 times their limit, half a brain at 5.2, an inverted scan at 1.9, an
empty one at 8.3 (medians of 100); new phantoms at 0.3 to 0.9, those sent through DICOM at 0.3 to 0.6, and none of the
shifted population beyond (38 scans, up to 0.76). A head mirrored left to right they do not see, nor what is smaller
than a block. Coverage, registration overlap and slices are judged by preprocessing, not here.

Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018, with one class
and the last features only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.bundle_parts import Novelty

BLOCKS: Final = (6, 8, 6)  # (Z, Y, X), of about 3 cm each in the field of view of a template


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FeatureDistribution:
    """Where the features of calibration scans lie, for M members with D features each; of block means, M is 1.

    `whitening` (M, D, D) turns the difference of features from `mean` (M, D) into uncorrelated numbers of SD 1.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together.

        Raises:
            ValueError: naming what was found.
        """
        expected = (*self.mean.shape, self.mean.shape[-1])
        if self.mean.ndim != 2 or self.whitening.shape != expected:
            msg = f"feature distribution: expected mean (M, D) and whitening (M, D, D), found {self.mean.shape}"
            raise ValueError(f"{msg} and {self.whitening.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.whitening).all()):
            raise ValueError("feature distribution: expected finite numbers")

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance of each scan (N,) from its features (N, M x D); about 1 for an ordinary scan."""
        apart = features.reshape(len(features), *self.mean.shape).astype(np.float64) - self.mean  # (N, M, D)
        white = np.einsum("mij,nmj->nmi", self.whitening.astype(np.float64), apart)
        return np.asarray(np.sqrt(np.mean(white**2, axis=(1, 2))))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class KnownScans:
    """What is known of calibration scans: their features, and, but in older bundles, their block means."""

    features: FeatureDistribution
    blocks: FeatureDistribution | None = None

    def beyond(
        self, novelty: Novelty, features: NDArray[np.float32], blocks: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return how far each scan (N,) lies, in multiples of what a bundle allows: above 1 is out of distribution.

        Args:
            novelty: the limits.
            features: (N, M x D), as the network encodes the scans.
            blocks: (N, B), their `block_means`.
        """
        by_features = self.features.distances(features) / novelty.limit
        if self.blocks is None or novelty.block_limit is None:
            return by_features
        return np.maximum(by_features, self.blocks.distances(blocks) / novelty.block_limit)

    def save(self, path: Path) -> None:
        """Write the distributions to an uncompressed .npz without pickled objects."""
        arrays = {"mean": self.features.mean, "whitening": self.features.whitening}
        if self.blocks is not None:
            arrays |= {"block_mean": self.blocks.mean, "block_whitening": self.blocks.whitening}
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type] # its stub takes the names for other parameters

    @classmethod
    def load(cls, path: Path) -> KnownScans:
        """Read what `save` wrote.

        Raises:
            OSError: if the file cannot be read.
            ValueError, KeyError: if it holds no such distributions.
        """
        with np.load(path, allow_pickle=False) as arrays:
            blocks = "block_mean" in arrays
            return cls(
                features=FeatureDistribution(mean=arrays["mean"], whitening=arrays["whitening"]),
                blocks=FeatureDistribution(mean=arrays["block_mean"], whitening=arrays["block_whitening"])
                if blocks
                else None,
            )


def block_means(volumes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means (N, B) of the coarse blocks of volumes (N, Z, Y, X), as multiples of each one's mean brain.

    Background is 0 and counts; an empty volume has zeros, which no scan has.
    """
    brain = np.maximum((volumes > 0).sum(axis=(1, 2, 3)), 1)
    mean = volumes.sum(axis=(1, 2, 3), dtype=np.float64) / brain
    blocks = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(volumes)[:, None], BLOCKS)  # (N, 1, 6, 8, 6)
    coarse = blocks.flatten(1).numpy() / np.where(mean > 0, mean, 1)[:, np.newaxis]
    return np.asarray(coarse, dtype=np.float32)
