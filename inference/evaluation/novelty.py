"""Where the features and the coarse brightness of calibration scans lie, and how far from there is too far.

Mean and covariance are fitted on scans that no member has seen: on its own training scans a network is surer than it
will ever be again. The covariance of each member's features, scaled to SD 1, is shrunk towards the identity as far as
its scatter asks for, since there are seldom many more scans than features. The limit is a quantile of distances that
are each measured from a fit without the scan's own patient; features and block means have one each, so that of
ordinary scans up to twice the share beyond one limit lies beyond either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from inference.bundle_parts import Novelty, Rule
from inference.novelty import FeatureDistribution, KnownScans

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILE: Final = 0.995
FOLDS: Final = 5
_FLOOR: Final = 1e-6  # of an SD: a feature that is always the same would make any change infinite
_FEWEST_PATIENTS: Final = 10
_TOLERANCE: Final = 0.01  # of a scan's mean brain: what a block differs by less is no sign of anything

Fit = Callable[["NDArray[np.float32]"], FeatureDistribution]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FittedNovelty:
    """What goes into a bundle's metadata, and what goes into the file beside it."""

    novelty: Novelty
    known: KnownScans


def fit_novelty(
    features: NDArray[np.float32],
    patients: NDArray[np.str_],
    *,
    blocks: NDArray[np.float32] | None = None,
    encoders: int = 1,
    quantile: float = QUANTILE,
    rule: Rule = Rule.ABSTAIN,
) -> FittedNovelty:
    """Fit on the features (S, M x D) of every calibration scan; patients (S,) say whose it is, one row per scan.

    Args:
        features: as the network encodes, member after member.
        patients: whose scan each row is.
        blocks: the same scans' `inference.novelty.block_means` (S, B); None leaves their brightness unjudged.
        encoders: M, how many encoders stand side by side in the features: the members of an `Ensemble`, else 1.
        quantile: share of calibration scans that lie within the limit.
        rule: what a node does beyond it.

    Raises:
        ValueError: if there are too few patients, or features that are no numbers or do not fit.
    """
    who = np.unique(patients)
    if len(who) < _FEWEST_PATIENTS:
        raise ValueError(f"novelty: expected at least {_FEWEST_PATIENTS} calibration patients, found {len(who)}")
    for rows, parts in ((features, encoders), *(() if blocks is None else ((blocks, 1),))):
        if rows.shape[0] != len(patients) or rows.shape[1] % parts or not np.isfinite(rows).all():
            msg = f"novelty: expected finite numbers of {len(patients)} scans for {parts} encoders"
            raise ValueError(f"{msg}, found {rows.shape}")
    fold = np.searchsorted(who, patients) % FOLDS
    fit = partial(_fit, encoders=encoders)
    novelty = Novelty(
        limit=_limit(fit, features, fold, quantile),
        block_limit=None if blocks is None else _limit(_fit_blocks, blocks, fold, quantile),
        quantile=quantile,
        n_patients=len(who),
        n_scans=len(features),
        rule=rule,
    )
    known = KnownScans(features=fit(features), blocks=None if blocks is None else _fit_blocks(blocks))
    return FittedNovelty(novelty=novelty, known=known)


def _limit(fit: Fit, rows: NDArray[np.float32], fold: NDArray[np.int64], quantile: float) -> float:
    """Return the quantile of the distances of rows (S, D), each from a fit without its own fold (S,)."""
    distances = np.empty(len(rows))
    for each in range(FOLDS):
        distances[fold == each] = fit(rows[fold != each]).distances(rows[fold == each])
    return float(np.quantile(distances, quantile, method="higher"))


def _fit(features: NDArray[np.float32], encoders: int) -> FeatureDistribution:
    """Return the distribution of features (S, M x D)."""
    apart = features.astype(np.float64).reshape(len(features), encoders, -1)  # (S, M, D)
    means = apart.mean(axis=0)
    whitening = np.stack([_whitening(apart[:, member] - means[member]) for member in range(encoders)])
    return FeatureDistribution(mean=means.astype(np.float32), whitening=np.ascontiguousarray(whitening, np.float32))


def _fit_blocks(blocks: NDArray[np.float32]) -> FeatureDistribution:
    """Return the distribution of block means (S, B): one unit for all, and a tolerance, for many blocks are empty."""
    mean = blocks.mean(axis=0, dtype=np.float64)
    covariance = shrunk_covariance(blocks - mean) + _TOLERANCE**2 * np.eye(blocks.shape[1])
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(values)).T[np.newaxis]
    return FeatureDistribution(
        mean=mean[np.newaxis].astype(np.float32), whitening=np.ascontiguousarray(whitening, np.float32)
    )


def _whitening(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what makes centred features (S, D) uncorrelated with SD 1 (D, D)."""
    scale = np.maximum(centred.std(axis=0), max(_FLOOR, 1e-3 * float(centred.std())))
    values, vectors = np.linalg.eigh(shrunk_covariance(centred / scale))
    return np.asarray((vectors / np.sqrt(values)).T / scale)


def shrunk_covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance (D, D) of centred rows (S, D), drawn towards a multiple of the identity.

    Source: Chen et al., Shrinkage Algorithms for MMSE Covariance Estimation, 2010 (oracle approximating shrinkage).
    """
    rows, size = centred.shape
    covariance = centred.T @ centred / rows
    mean, square = float(np.trace(covariance)), float(np.sum(covariance**2))
    spread = (rows + 1 - 2 / size) * (square - mean**2 / size)
    share = 1.0 if spread <= 0 else min(1.0, ((1 - 2 / size) * square + mean**2) / spread)
    return np.asarray((1 - share) * covariance + share * mean / size * np.eye(size))
