"""How the answer moves as scans arrive: trajectories over prefixes, each scored by its own label, and their stability.

A prefix ends at an earlier scan, so its question is another one: an event within the horizon after *that* scan. A
prefix without an observable outcome is drawn, but not scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.bootstrap import Estimate, Sampling, estimate
from inference.evaluation.groups import FEWEST
from inference.evaluation.predictions import LENGTHS
from inference.evaluation.resampled import areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.evaluation.answers import Calibrate
    from inference.evaluation.predictions import Predictions

LARGE_JUMP = 0.2  # of a probability
_SHOWN = 6  # trajectories of either outcome in the figure


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixScore:
    """The first `n_scans` of the newest six scans, by this prefix's own label."""

    n_scans: int
    n_patients: int
    n_events: int
    auroc: Estimate | None  # None where either class has fewer than five patients


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One patient's probability after each scan, and whether the event followed the newest one."""

    event: bool
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """The largest move of a patient's probability: when one scan is dropped, or else from one prefix to the next."""

    one_scan_dropped: bool  # False: step between prefixes, which also holds what the new scan rightly tells
    n_patients: int
    median: float
    percentile_95: float
    largest: float
    share_above: float  # of patients who move by more than `LARGE_JUMP`


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """All of it, for the delivered arm."""

    scores: tuple[PrefixScore, ...]
    trajectories: tuple[Trajectory, ...]
    mean_with_event: tuple[float | None, ...]  # probability after 1..6 scans; None where nobody has as many
    mean_without_event: tuple[float | None, ...]
    stability: Stability | None


def follow_prefixes(
    predictions: Predictions,
    arm: str,
    *,
    calibrate: Calibrate,
    dropped: NDArray[np.float64] | None,
    sampling: Sampling,
) -> Prefixes | None:
    """Return how the arm's answers move; None where it answered for no prefix.

    Args:
        predictions: the table.
        arm: the delivered arm.
        calibrate: logits to probabilities by number of scans.
        dropped: probabilities (6, P) with all scans but one, NaN where there is no such scan; None if not computed.
        sampling: of the bootstrap.
    """
    if arm not in predictions.prefix_logits:
        return None
    logits = predictions.prefix_logits[arm].mean(axis=0)  # (6, P)
    chances = np.stack([_chances(k, logits[k - 1], calibrate) for k in LENGTHS])
    events, others = predictions.labels == 1, predictions.labels == 0
    return Prefixes(
        scores=tuple(_score(k, logits[k - 1], predictions.prefix_labels[k - 1], sampling=sampling) for k in LENGTHS),
        trajectories=_trajectories(chances, events) + _trajectories(chances, others, event=False),
        mean_with_event=_means(chances[:, events]),
        mean_without_event=_means(chances[:, others]),
        stability=_stability(chances, predictions.n_scans, dropped),
    )


def _score(n_scans: int, logits: NDArray[np.float64], labels: NDArray[np.int8], *, sampling: Sampling) -> PrefixScore:
    rows = (labels >= 0) & np.isfinite(logits)
    truth = labels[rows] == 1
    area = None
    if min(truth.sum(), (~truth).sum()) >= FEWEST:
        area = estimate(areas(logits[rows], truth, sampling.counts(len(truth))))
    return PrefixScore(n_scans=n_scans, n_patients=len(truth), n_events=int(truth.sum()), auroc=area)


def _chances(n_scans: int, logits: NDArray[np.float64], calibrate: Calibrate) -> NDArray[np.float64]:
    """Return probabilities, NaN where there is no answer."""
    chances = np.full(logits.shape, np.nan)
    known = np.isfinite(logits)
    if known.any():
        chances[known] = calibrate(n_scans, logits[known])
    return chances


def _trajectories(
    chances: NDArray[np.float64], members: NDArray[np.bool_], *, event: bool = True
) -> tuple[Trajectory, ...]:
    """Return the first few patients of the table with at least three answers: chosen before any of them is seen."""
    longest = np.isfinite(chances).sum(axis=0)
    shown = np.flatnonzero(members & (longest >= 3))[:_SHOWN]
    return tuple(
        Trajectory(event=event, probabilities=tuple(float(each) for each in chances[: longest[patient], patient]))
        for patient in shown
    )


def _means(chances: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(float(np.nanmean(row)) if np.isfinite(row).any() else None for row in chances)


def _stability(
    chances: NDArray[np.float64], n_scans: NDArray[np.int64], dropped: NDArray[np.float64] | None
) -> Stability | None:
    if dropped is None:
        moves = np.abs(np.diff(chances, axis=0))  # (5, P)
    else:
        whole = np.take_along_axis(chances, (n_scans - 1)[None, :], axis=0)
        moves = np.abs(dropped - whole)  # (6, P)
    moved = np.isfinite(moves).any(axis=0)
    if not moved.any():
        return None
    largest = np.nanmax(moves[:, moved], axis=0)
    return Stability(
        one_scan_dropped=dropped is not None,
        n_patients=int(moved.sum()),
        median=float(np.median(largest)),
        percentile_95=float(np.percentile(largest, 95)),
        largest=float(largest.max()),
        share_above=float(np.mean(largest > LARGE_JUMP)),
    )
