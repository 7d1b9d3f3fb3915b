"""What can be read off a patient's scans without a network: how often, and how fast bright tissue grows.

These feed the baselines that a network must beat, and the tests for leaks: a gap or a count that tells the future is a
fault of the data, not a finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.training.cohort import Cohort

BRIGHT_FROM = 1.2  # of the brain's mean: what a threshold on FLAIR takes for disease
_DAYS_PER_YEAR = 365.25


def mean_gaps_days(cohort: Cohort) -> NDArray[np.float64]:
    """Return (P,): the mean number of days between scans, NaN with one scan."""
    return np.array([_mean_gap(cohort.days[of.start : of.stop]) for of in _patients(cohort)])


def volume_slopes(cohort: Cohort) -> NDArray[np.float64]:
    """Return (P,): the slope per year of the log of the number of bright voxels, NaN with one scan."""
    slopes = []
    for scans in _patients(cohort):
        counts = np.array([bright_voxels(cohort.volumes[scan]) for scan in scans])
        years = cohort.days[scans.start : scans.stop] / _DAYS_PER_YEAR
        slopes.append(float(np.polyfit(years, np.log(counts + 1), 1)[0]) if len(scans) > 1 else float("nan"))
    return np.array(slopes)


def bright_voxels(volume: NDArray[np.uint8] | NDArray[np.float32]) -> int:
    """Return how many voxels of a scan (Z, Y, X) exceed 1.2 times the mean of its brain."""
    inside = volume[volume > 0].astype(np.float64)
    return int((inside > BRIGHT_FROM * inside.mean()).sum()) if inside.size else 0


def _patients(cohort: Cohort) -> list[range]:
    return [cohort.scans(patient) for patient in range(len(cohort))]


def _mean_gap(days: NDArray[np.int64]) -> float:
    return float(np.diff(days).mean()) if len(days) > 1 else float("nan")
