"""How well a model answers at fixed times: one, two, three years after a patient's first scan, and all of them pooled.

A patient may stand in several rows, so that patients are drawn, never rows: a row counts as often as its patient.

Source: landmark evaluation of the group behind Tak et al., NEJM AI 2025 (repository LongitudinalEFS): AUROC and AUPRC
per landmark and pooled, with a patient-clustered bootstrap.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.evaluation.bootstrap import Estimate, Sampling, estimate
from inference.evaluation.report_tables import interval, table
from inference.evaluation.resampled import areas, average_precisions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LandmarkAnswers:
    """R rows: the year since the first scan, whose row it is (places among the patients), the answer, what happened."""

    n_patients: int
    years: NDArray[np.int64]  # (R,)
    whose: NDArray[np.int64]  # (R,)
    probabilities: NDArray[np.float64]  # (R,)
    labels: NDArray[np.bool_]  # (R,)


@dataclass(frozen=True, slots=True, kw_only=True)
class LandmarkScore:
    """How well the rows of one year were answered; `year` None: of all years."""

    year: int | None
    n_patients: int
    n_rows: int
    n_events: int
    auroc: Estimate
    auprc: Estimate


def score_landmarks(answers: LandmarkAnswers, sampling: Sampling) -> tuple[LandmarkScore, ...]:
    """Return the scores of every year that has rows, then of all; NaN where only one outcome is there."""
    counts = sampling.counts(answers.n_patients)[:, answers.whose]  # (1 + resamples, R): the rows of one patient alike
    years = [int(year) for year in np.unique(answers.years)]
    return tuple(_score(year, answers, counts) for year in (*years, None))


def _score(year: int | None, answers: LandmarkAnswers, counts: NDArray[np.float64]) -> LandmarkScore:
    rows = np.ones(len(answers.years), dtype=bool) if year is None else answers.years == year
    scores, labels = answers.probabilities[rows], answers.labels[rows]
    return LandmarkScore(
        year=year,
        n_patients=len(np.unique(answers.whose[rows])),
        n_rows=int(rows.sum()),
        n_events=int(labels.sum()),
        auroc=estimate(areas(scores, labels, counts[:, rows])),
        auprc=estimate(average_precisions(scores, labels, counts[:, rows])),
    )


def landmarks_text(scores: Sequence[LandmarkScore]) -> str:
    """Return the section of a report."""
    header = ("years after the first scan", "patients", "rows", "events", "AUROC", "AUPRC")
    lines = [
        (
            "all" if each.year is None else str(each.year),
            str(each.n_patients),
            str(each.n_rows),
            str(each.n_events),
            interval(each.auroc),
            interval(each.auprc),
        )
        for each in scores
    ]
    told = (
        "Each row is a patient as seen so long after the first scan, with the label at the newest scan shown; 95 % "
        "intervals draw patients, not rows. A dash: one outcome only."
    )
    return "\n\n".join(["## Landmarks", told, table(header, lines)]) + "\n"


def landmarks_json(scores: Sequence[LandmarkScore]) -> str:
    """Return the scores as JSON, NaN as null."""
    return json.dumps([_finite(asdict(each)) for each in scores], indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
