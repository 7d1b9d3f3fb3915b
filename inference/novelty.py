"""How unlike the scans of calibration a scan is, by what the encoders make of it.

For every member, the Mahalanobis distance of the scan's features from those of calibration, over the square root of
their number, so that an ordinary scan lies near 1 whatever the width; then the root mean square over members.

It sees what the encoders see, and no more. With the first shipped encoder, which reads only what is brighter than
brain, noise lay at 1.7 to 1.9 times the limit and phantoms that came through DICOM at 0.3 to 0.45; but a head upside
down, one with half its brain blanked, and an empty image lay there too (200 calibration scans). Coverage, registration
overlap and slices are judged by preprocessing, not here.

Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018, with one class
and the last features only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FeatureDistribution:
    """Where the features of calibration scans lie, for M members with D features each.

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

    def save(self, path: Path) -> None:
        """Write the distribution to an uncompressed .npz without pickled objects."""
        with path.open("wb") as file:
            np.savez(file, mean=self.mean, whitening=self.whitening)

    @classmethod
    def load(cls, path: Path) -> FeatureDistribution:
        """Read a distribution written by `save`.

        Raises:
            OSError: if the file cannot be read.
            ValueError, KeyError: if it is no such distribution.
        """
        with np.load(path, allow_pickle=False) as arrays:
            return cls(mean=arrays["mean"], whitening=arrays["whitening"])
