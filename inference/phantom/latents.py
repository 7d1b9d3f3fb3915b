"""Draw what a synthetic patient's lesion does: latent growth, volumes at each visit, the event, the censoring.

Theory of operation: there is one lesion process for everyone. A growth latent z ~ N(0, 1) sets the slope of the
log-volume; histories run backwards from the last scan, so that the size of the last scan hardly tells z; the event
comes from a hazard after the last scan that depends on z alone. Nothing here knows a scanner or an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAYS_PER_YEAR = 365.25
MEDIAN_LAST_VOLUME_ML = 7.2  # a sphere of 12 mm radius; with SD 0.8 in log-volume, 7-20 mm covers 95 %

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()  # expectation under N(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """Every number that shapes the population. The last block links nuisance to z or time and is off by default."""

    slope_mean_per_year: float = 0.6  # m: how much order there is to learn, without moving the ceiling
    slope_per_z_per_year: float = 1.2
    last_log_volume_sd: float = 0.8
    last_log_volume_z_correlation: float = 0.2  # rho: sets what a single scan can know
    wobble_sd: float = 0.5  # s: biology plus measurement, independent between visits, in log-volume
    event_log_odds_per_z: float = 2.4
    event_rate: float = 0.30  # within `horizon_days` of the last scan
    horizon_days: int = 365
    gap_median_days: float = 121.75
    gap_log_sd: float = 0.45  # 1.0 for the gap ablation
    visits_min: int = 2
    visits_max: int = 8
    follow_up_median_days: float = 900.0  # of the independent censoring time after the last scan
    follow_up_log_sd: float = 0.6
    brain_growth_per_year: float = 0.002  # isotropic scale: the time-directed confound of order learning

    gap_log_shift_per_z: float = 0.0  # positive control: suspicion shortens gaps (use a negative value)
    scanner_upgrade: bool = False  # positive control: 1.5 T before, 3 T after a calendar date
    site_log_odds_per_z: float = 0.0  # positive control: site (hence scanner) tells prevalence


# Positive controls: with each of them on, a shortcut tells the future, and the report must say so.
SUSPICION_DIALS = Dials(gap_log_shift_per_z=-0.4)
UPGRADE_DIALS = Dials(scanner_upgrade=True)
SITE_DIALS = Dials(site_log_odds_per_z=1.0)
# The gap ablation: gaps still tell nothing, but vary as much as in a clinic without a protocol.
WIDE_GAP_DIALS = Dials(gap_log_sd=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The lesion's true story. Days count from the last scan (0); visits run oldest to newest, so they are <= 0."""

    z: float
    slope_per_year: float
    visit_days: tuple[int, ...]
    log_volumes: tuple[float, ...]  # natural log of millilitres, wobble included
    event_day: int | None  # observed event, None where follow-up ended first
    last_follow_up_day: int
    label: bool | None  # event within the horizon; None: censored before it


@lru_cache(maxsize=32)
def event_intercept(dials: Dials) -> float:
    """Return a in logit P(event within the horizon) = a + b z such that the population rate is `event_rate`."""
    low, high = -20.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        if float(_WEIGHTS @ _sigmoid(middle + dials.event_log_odds_per_z * _NODES)) < dials.event_rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def draw_history(rng: np.random.Generator, dials: Dials, *, n_visits: int | None = None) -> History:
    """Draw one patient's story from `rng`; `n_visits` fixes the number of visits without changing the rest.

    Raises:
        ValueError: if `n_visits` is below 1.
    """
    if n_visits is not None and n_visits < 1:
        msg = f"phantom history: expected n_visits >= 1, found {n_visits}"
        raise ValueError(msg)
    z, last_noise = (float(each) for each in rng.standard_normal(2))
    drawn_visits = int(rng.integers(dials.visits_min, dials.visits_max + 1))
    event_uniform, censor_normal = float(rng.uniform(1e-12, 1.0)), float(rng.standard_normal())
    count = drawn_visits if n_visits is None else n_visits

    gaps = _gaps_days(rng, dials, z, count - 1)
    days = -np.concatenate([[0], np.cumsum(gaps)]).astype(int)  # newest to oldest
    slope = dials.slope_mean_per_year + dials.slope_per_z_per_year * z
    rho = dials.last_log_volume_z_correlation
    last = dials.last_log_volume_sd * (rho * z + math.sqrt(1 - rho**2) * last_noise)
    trend = math.log(MEDIAN_LAST_VOLUME_ML) + last + slope * days / DAYS_PER_YEAR
    log_volumes = trend + dials.wobble_sd * rng.standard_normal(count)

    event, follow_up = _event_and_follow_up(dials, z, event_uniform, censor_normal)
    observed = event if event <= follow_up else None
    label = True if observed is not None and observed <= dials.horizon_days else None
    if label is None and min(event, follow_up) >= dials.horizon_days:
        label = False
    return History(
        z=z,
        slope_per_year=slope,
        visit_days=tuple(int(day) for day in days[::-1]),
        log_volumes=tuple(float(each) for each in log_volumes[::-1]),
        event_day=observed,
        last_follow_up_day=min(event, follow_up),
        label=label,
    )


def _gaps_days(rng: np.random.Generator, dials: Dials, z: float, count: int) -> NDArray[np.float64]:
    log_gap = math.log(dials.gap_median_days) + dials.gap_log_shift_per_z * z
    return np.maximum(7, np.rint(np.exp(log_gap + dials.gap_log_sd * rng.standard_normal(count))))


def _event_and_follow_up(dials: Dials, z: float, uniform: float, normal: float) -> tuple[int, int]:
    """Return the day of the (possibly unseen) event under a constant hazard and the day follow-up ends."""
    log_odds = event_intercept(dials) + dials.event_log_odds_per_z * z
    hazard_per_day = np.logaddexp(0.0, log_odds) / dials.horizon_days  # -log(1 - p) / horizon
    event_days = -math.log(uniform) / max(float(hazard_per_day), 1e-9)
    follow_up_days = dials.follow_up_median_days * math.exp(dials.follow_up_log_sd * normal)
    return max(1, math.ceil(min(event_days, 1e6))), max(30, round(follow_up_days))


def bayes_ceiling(dials: Dials, n_scans: int, *, patients: int = 100_000, seed: int = 0) -> float:
    """Return the AUROC of the ideal reader who knows the true volumes and dates of the last `n_scans` visits.

    The posterior of z given linear-Gaussian log-volumes is Gaussian in closed form; its mean event probability ranks
    simulated patients. Upper bound for any network on these phantoms. The nuisance links are not part of it.

    Raises:
        ValueError: if `n_scans` is below 1.
    """
    if n_scans < 1:
        msg = f"Bayes ceiling: expected n_scans >= 1, found {n_scans}"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    z, last_noise = rng.standard_normal((2, patients))
    gap_noise = rng.standard_normal((patients, n_scans - 1))
    gaps_years = dials.gap_median_days / DAYS_PER_YEAR * np.exp(dials.gap_log_sd * gap_noise)
    years = -np.concatenate([np.zeros((patients, 1)), np.cumsum(gaps_years, axis=1)], axis=1)  # (N, k)

    rho = dials.last_log_volume_z_correlation
    on_z = dials.last_log_volume_sd * rho + dials.slope_per_z_per_year * years
    on_noise = np.full_like(years, dials.last_log_volume_sd * math.sqrt(1 - rho**2))
    wobble = dials.wobble_sd * rng.standard_normal(years.shape)
    observed = on_z * z[:, None] + on_noise * last_noise[:, None] + wobble

    mean, variance = _posterior_of_z(observed, on_z, on_noise, dials.wobble_sd**2)
    log_odds = event_intercept(dials) + dials.event_log_odds_per_z * (
        mean[:, None] + np.sqrt(variance)[:, None] * _NODES
    )
    probability = _sigmoid(log_odds) @ _WEIGHTS
    truth = rng.uniform(size=patients) < _sigmoid(event_intercept(dials) + dials.event_log_odds_per_z * z)
    return _auroc(probability, truth)


def order_ceiling(dials: Dials, *, patients: int = 100_000, seed: int = 0) -> tuple[float, float]:
    """Return how often two consecutive visits are put in order from true volumes and the gap between them.

    Returns:
        The accuracy of the ideal reader, who knows the law of both volumes, and of calling the larger one later.
    """
    rng = np.random.default_rng(seed)
    z, last_noise = rng.standard_normal((2, patients))
    gaps_years = dials.gap_median_days / DAYS_PER_YEAR * np.exp(dials.gap_log_sd * rng.standard_normal(patients))
    rho = dials.last_log_volume_z_correlation
    last = dials.last_log_volume_sd * (rho * z + math.sqrt(1 - rho**2) * last_noise)
    slope = dials.slope_mean_per_year + dials.slope_per_z_per_year * z
    wobble = dials.wobble_sd * rng.standard_normal((2, patients))
    newer, older = last + wobble[0], last - slope * gaps_years + wobble[1]
    evidence = _log_density(newer, older, gaps_years, dials) - _log_density(older, newer, gaps_years, dials)
    return float((evidence > 0).mean()), float((newer > older).mean())


def _log_density(
    newer: NDArray[np.float64], older: NDArray[np.float64], gap_years: NDArray[np.float64], dials: Dials
) -> NDArray[np.float64]:
    """Return the log-density (N,), but for a constant, of a pair of log-volumes `gap_years` apart."""
    shared = dials.last_log_volume_sd**2
    from_slope = dials.last_log_volume_sd * dials.last_log_volume_z_correlation * dials.slope_per_z_per_year * gap_years
    a = shared + dials.wobble_sd**2
    b = shared - from_slope
    c = shared - 2 * from_slope + (dials.slope_per_z_per_year * gap_years) ** 2 + dials.wobble_sd**2
    x, y = newer, older + dials.slope_mean_per_year * gap_years
    determinant = a * c - b**2
    return np.asarray(-0.5 * (np.log(determinant) + (c * x**2 - 2 * b * x * y + a * y**2) / determinant))


def _posterior_of_z(
    observed: NDArray[np.float64], on_z: NDArray[np.float64], on_noise: NDArray[np.float64], variance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of z under observed = on_z z + on_noise e + noise, with z, e ~ N(0, 1). All (N, k)."""
    a = 1 + (on_z**2).sum(1) / variance
    b = (on_z * on_noise).sum(1) / variance
    c = 1 + (on_noise**2).sum(1) / variance
    u, v = (on_z * observed).sum(1) / variance, (on_noise * observed).sum(1) / variance
    determinant = a * c - b**2
    return (c * u - b * v) / determinant, c / determinant


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x))))


def _auroc(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the Mann-Whitney area; ties do not occur with continuous scores."""
    rank = np.empty(score.size)
    rank[np.argsort(score)] = np.arange(1, score.size + 1)
    positives = int(truth.sum())
    return float((rank[truth].sum() - positives * (positives + 1) / 2) / (positives * (truth.size - positives)))
