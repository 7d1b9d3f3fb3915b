"""The delivered arm per site and subgroup: whether the figure for all hides a group that it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.bootstrap import Estimate, Sampling, estimate
from inference.evaluation.resampled import areas, means

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from inference.evaluation.predictions import Predictions

FEWEST = 5  # patients of either class, below which no AUROC is given


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScore:
    """One group; no AUROC where either class has fewer than five patients. `excess`: predicted minus observed rate."""

    kind: str
    group: str
    n_patients: int
    n_events: int
    auroc: Estimate | None
    excess: Estimate


def score_groups(
    predictions: Predictions,
    scores: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    *,
    sampling: Sampling,
) -> tuple[GroupScore, ...]:
    """Return the scores by site, sex, age halves and number of scans; scores and probabilities of labelled patients."""
    known = predictions.labels >= 0
    labels = predictions.labels[known] == 1
    found = []
    for kind, group, members in _groups(predictions):
        rows = members[known]
        if not rows.any():
            continue
        events = int(labels[rows].sum())
        counts = sampling.counts(int(rows.sum()))
        enough = min(events, int(rows.sum()) - events) >= FEWEST
        found.append(
            GroupScore(
                kind=kind,
                group=group,
                n_patients=int(rows.sum()),
                n_events=events,
                auroc=estimate(areas(scores[rows], labels[rows], counts)) if enough else None,
                excess=estimate(means(probabilities[rows] - labels[rows], counts)),
            )
        )
    return tuple(found)


def _groups(predictions: Predictions) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    for kind, values in (("site", predictions.sites), ("sex", predictions.sexes)):
        for value in np.unique(values):
            yield kind, str(value) or "not known", values == value
    ages = predictions.ages_years
    if np.isfinite(ages).any():
        middle = float(np.nanmedian(ages))
        yield "age", f"up to {middle:.1f} years", ages <= middle
        yield "age", f"above {middle:.1f} years", ages > middle
    for length in np.unique(predictions.n_scans):
        yield "scans", str(int(length)), predictions.n_scans == length
