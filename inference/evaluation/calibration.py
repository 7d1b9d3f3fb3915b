"""Platt scaling by number of scans: from the members' mean logit to a probability, fitted on patients kept for it.

The calibration patients are seen by no member of the ensemble and are used for nothing else: who chooses an epoch or
scores a model on them must take others.

Each group of numbers of scans {1, 2, 3, 4-6} has a slope and an intercept of its own, drawn towards the pooled fit as
by a prior that is worth `PRIOR_EVENTS` patients of the rarer outcome: with much fewer a group answers as all together,
with many more as itself. Where a patient stands in a group more than once (with 4, 5 and 6 scans), each of its rows
weighs so much less that it counts once, as one who stands there with 4 scans only. A slope is never negative: logits
that rank the wrong way round, as chance may have it with one scan, say nothing, and are not turned round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from inference.bundle_parts import Calibration, CalibrationGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SCAN_GROUPS: Final = ((1, 1), (2, 2), (3, 3), (4, 6))
PRIOR_EVENTS: Final = 20.0
_NEWTON_STEPS: Final = 50
_SMALLEST_STEP: Final = 1e-10
_RIDGE: Final = 1e-6  # keeps the step finite where the logits separate the classes


def calibrate(n_scans: int, logits: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return the calibrated probabilities of members' mean logits on time lines of one number of scans."""
    slope, intercept = calibration.line(n_scans)
    return _sigmoid(slope * logits + intercept)


def platt_probabilities(logits: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return probabilities by the pooled line, whatever the number of scans."""
    return _sigmoid(calibration.slope * logits + calibration.intercept)


def fit_calibration(
    logits: Mapping[int, NDArray[np.float64]],
    labels: Mapping[int, NDArray[np.bool_]],
    patients: Mapping[int, NDArray[np.str_]],
) -> Calibration:
    """Fit the pooled line, and one for each group that has patients.

    Args:
        logits: number of scans -> members' mean logits, one row per patient who has so many.
        labels: number of scans -> what happened to these patients.
        patients: number of scans -> who they are.

    Raises:
        ValueError: if rows do not match, are not finite, or only one outcome is there.
    """
    rows = {
        n_scans: _checked(n_scans, logits[n_scans], labels.get(n_scans), patients.get(n_scans))
        for n_scans in sorted(logits)
    }
    pooled_rows = _joined(list(rows.values()))
    pooled = _newton(pooled_rows, None)
    prior = _prior(pooled_rows, pooled)
    groups = []
    for low, high in SCAN_GROUPS:
        parts = [each for n_scans, each in rows.items() if low <= n_scans <= high and len(each.logits)]
        if parts:
            groups.append(_group((low, high), _joined(parts, one_outcome=True), prior))
    return Calibration(slope=float(pooled[0]), intercept=float(pooled[1]), groups=tuple(groups))


def fit_platt(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> Calibration:
    """Fit one line by maximum likelihood to Platt's softened targets.

    Raises:
        ValueError: if only one outcome is there.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """
    everyone = np.arange(len(labels)).astype(np.str_)
    slope, intercept = _newton(_joined([_checked(None, logits, labels, everyone)]), None)
    return Calibration(slope=float(slope), intercept=float(intercept))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Rows:
    """Logits, what happened, to whom, and how much each row counts (all (N,))."""

    logits: NDArray[np.float64]
    labels: NDArray[np.bool_]
    patients: NDArray[np.str_]
    weights: NDArray[np.float64]

    @property
    def events(self) -> float:
        """Return how many patients had an event; one whose rows differ in label counts in part."""
        return float(self.weights[self.labels].sum())

    @property
    def others(self) -> float:
        """Return how many had none."""
        return float(self.weights[~self.labels].sum())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Prior:
    """Where slope and intercept are expected (2,), and how firmly: a precision (2, 2)."""

    line: NDArray[np.float64]
    precision: NDArray[np.float64]


def _checked(
    n_scans: int | None,
    logits: NDArray[np.float64],
    labels: NDArray[np.bool_] | None,
    patients: NDArray[np.str_] | None,
) -> _Rows:
    """Return the rows of one number of scans.

    Raises:
        ValueError: if rows do not match or are not finite.
    """
    where = "calibration" if n_scans is None else f"calibration, {n_scans} scans"
    if labels is None or logits.shape != labels.shape or logits.ndim != 1:
        found = "none" if labels is None else labels.shape
        raise ValueError(f"{where}: expected a label for each of {logits.shape}, found {found}")
    if patients is None or logits.shape != patients.shape:
        found = "none" if patients is None else patients.shape
        raise ValueError(f"{where}: expected a patient for each of {logits.shape}, found {found}")
    if not np.isfinite(logits).all():
        odd = int((~np.isfinite(logits)).sum())
        raise ValueError(f"{where}: expected finite logits, found {odd} that are not")
    return _Rows(logits=logits, labels=labels.astype(bool), patients=patients, weights=np.ones(len(logits)))


def _joined(parts: list[_Rows], *, one_outcome: bool = False) -> _Rows:
    """Return the rows of several numbers of scans, each weighing one over its patient's rows: a patient counts once.

    Raises:
        ValueError: if only one outcome is there and that is not allowed.
    """
    patients = np.concatenate([each.patients for each in parts]) if parts else np.zeros(0, dtype=np.str_)
    _, whose, standing = np.unique(patients, return_inverse=True, return_counts=True)
    rows = _Rows(
        logits=np.concatenate([each.logits for each in parts]) if parts else np.zeros(0),
        labels=np.concatenate([each.labels for each in parts]) if parts else np.zeros(0, dtype=bool),
        patients=patients,
        weights=1.0 / standing[whose],
    )
    if not one_outcome and not (rows.events and rows.others):
        found = int(rows.labels.sum())
        raise ValueError(f"calibration: expected both classes, found {found} events in {len(rows.labels)} rows")
    return rows


def _group(n_scans: tuple[int, int], rows: _Rows, prior: _Prior) -> CalibrationGroup:
    slope, intercept = _newton(rows, prior)
    return CalibrationGroup(
        n_scans=n_scans,
        slope=float(slope),
        intercept=float(intercept),
        n_patients=round(rows.events + rows.others),
        n_events=round(rows.events),
    )


def _prior(pooled: _Rows, line: NDArray[np.float64]) -> _Prior:
    """Return the pooled line with as much information as `PRIOR_EVENTS` pooled patients of the rarer outcome bear."""
    information = _curvature(_design(pooled), pooled.weights, _sigmoid(_design(pooled) @ line))
    return _Prior(line=line, precision=information * (PRIOR_EVENTS / min(pooled.events, pooled.others)))


def _newton(rows: _Rows, prior: _Prior | None) -> NDArray[np.float64]:
    """Return slope and intercept of the highest likelihood, or posterior; with a slope of 0 where it were negative."""
    found = _ascend(rows, prior, free=np.array([True, True]))
    return found if found[0] >= 0 else _ascend(rows, prior, free=np.array([False, True]))


def _ascend(rows: _Rows, prior: _Prior | None, *, free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Run Newton's method on the free ones of slope and intercept; a slope that is not free stays 0."""
    design, targets = _design(rows), _softened(rows)
    precision = _RIDGE * np.eye(2) + (0 if prior is None else prior.precision)
    expected = np.zeros(2) if prior is None else prior.line

    def cost(line: NDArray[np.float64]) -> float:
        values, apart = design @ line, line - expected
        return float(rows.weights @ (np.logaddexp(0, values) - targets * values) + apart @ precision @ apart / 2)

    line = np.where(free, expected, 0.0)
    for _ in range(_NEWTON_STEPS):
        probabilities = _sigmoid(design @ line)
        gradient = design.T @ (rows.weights * (probabilities - targets)) + precision @ (line - expected)
        curvature = _curvature(design, rows.weights, probabilities) + precision
        step = np.zeros(2)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        while cost(line - step) > cost(line) and np.abs(step).max() > _SMALLEST_STEP:
            step /= 2  # too far: the curvature is that of here
        line = line - step
        if np.abs(step).max() <= _SMALLEST_STEP:
            break
    return line


def _design(rows: _Rows) -> NDArray[np.float64]:
    return np.column_stack([rows.logits, np.ones(len(rows.logits))])  # (N, 2)


def _softened(rows: _Rows) -> NDArray[np.float64]:
    """Return Platt's targets, a little inside of 0 and 1."""
    events, others = rows.events, rows.others
    return np.where(rows.labels, (events + 1) / (events + 2), 1 / (others + 2))


def _curvature(
    design: NDArray[np.float64], weights: NDArray[np.float64], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the Fisher information of slope and intercept (2, 2)."""
    return np.asarray(design.T @ (design * (weights * probabilities * (1 - probabilities))[:, None]))


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)))
