"""Cohorts of the size of a test: any volumes, with outcomes that give the wanted labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.training.cohort import Cohort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

EVENT_DAY, CENSORED_DAY, FREE_DAY = 100.0, 30.0, 900.0


def cohort_of(
    volumes: NDArray[np.uint8], days: Sequence[Sequence[int]], labels: Sequence[int], sites: Sequence[str] | None = None
) -> Cohort:
    """Return a cohort of patients with scans on `days` (0 is the newest) and labels 1, 0 or -1 (censored)."""
    counts = [len(each) for each in days]
    return Cohort(
        volumes=volumes,
        first=np.concatenate([[0], np.cumsum(counts)]),
        days=np.concatenate([np.asarray(each) for each in days]),
        event_days=np.array([EVENT_DAY if label == 1 else np.nan for label in labels]),
        follow_up_days=np.array([{1: EVENT_DAY, 0: FREE_DAY, -1: CENSORED_DAY}[label] for label in labels]),
        patients=np.array([f"patient-{number}" for number in range(len(labels))]),
        sites=np.array(sites if sites is not None else ["site-0"] * len(labels)),
        sexes=np.array(["F"] * len(labels)),
        ages_years=np.full(len(labels), 40.0),
    )
