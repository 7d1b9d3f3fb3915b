"""Tables of predictions without a network: each arm sees the true growth through noise of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.predictions import LENGTHS, Predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

NOISE = {"single": 6.0, "scratch": 1.6, "sham": 1.5, "order": 1.0}  # of the growth, with all six scans
LOG_ODDS_PER_GROWTH = 2.4
INTERCEPT = -1.5  # about 30 % events


def predictions_of(
    patients: int = 300,
    *,
    seed: int = 0,
    population: str = "test",
    noise: Mapping[str, float] | None = None,
    gap_per_growth: float = 0.0,
    n_scans: int | None = 6,
    seeds: int = 3,
    censored: float = 0.1,
) -> Predictions:
    """Return simulated predictions: fewer scans, noisier answers; `gap_per_growth` makes gaps tell the outcome."""
    rng = np.random.default_rng(seed)
    growth = rng.standard_normal(patients)
    chance = _sigmoid(INTERCEPT + LOG_ODDS_PER_GROWTH * growth)
    event = rng.random(patients) < chance
    unknown = rng.random(patients) < censored
    scans = rng.integers(2, 7, patients) if n_scans is None else np.full(patients, n_scans)
    labels = np.where(unknown, -1, event).astype(np.int8)
    arms = dict(noise or NOISE)
    logits = {name: _arm(rng, growth, scans, sd, seeds, only=1 if name == "single" else 6) for name, sd in arms.items()}
    return Predictions(
        population=population,
        patients=np.array([f"{population}-{number}" for number in range(patients)]),
        labels=labels,
        sites=np.array([f"site-{number % 3}" for number in range(patients)]),
        sexes=np.array(["F" if number % 2 else "M" for number in range(patients)]),
        ages_years=rng.uniform(2, 18, patients),
        n_scans=scans,
        mean_gaps_days=122 * np.exp(0.3 * rng.standard_normal(patients) + gap_per_growth * growth),
        volume_slopes=growth + 1.2 * rng.standard_normal(patients),
        logits=logits,
        prefix_logits=logits,
        prefix_labels=np.where(np.array(LENGTHS)[:, None] <= scans, labels, -1).astype(np.int8),
    )


def _arm(
    rng: np.random.Generator, growth: NDArray[np.float64], scans: NDArray[np.int64], sd: float, seeds: int, *, only: int
) -> NDArray[np.float64]:
    """Return logits (seeds, 6, P): the best log-odds from growth seen through noise, plus each seed's own error."""
    answers = np.full((seeds, len(LENGTHS), len(growth)), np.nan)
    shared = rng.standard_normal(len(growth))
    for row, length in enumerate(LENGTHS[:only]):
        spread = sd * math.sqrt(6 / length) if only > 1 else sd
        kept = 1 / (1 + spread**2)  # of the growth, by the best guess
        variance = 1 - kept
        slope = LOG_ODDS_PER_GROWTH / math.sqrt(1 + LOG_ODDS_PER_GROWTH**2 * variance / 2.9)
        seen = INTERCEPT * slope / LOG_ODDS_PER_GROWTH + slope * kept * (growth + spread * shared)
        noisy = seen + 0.15 * rng.standard_normal((seeds, len(growth)))
        answers[:, row] = np.where(length <= scans, noisy, np.nan)
    return answers


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-value)))
