"""No shortcut tells a phantom's future better than the ideal reader of a single scan could."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from inference.phantom import Dials, bayes_ceiling, draw_history

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.phantom import History

PROBES: dict[str, Callable[[History], float]] = {
    "last true log-volume": lambda history: history.log_volumes[-1],
    "number of visits": lambda history: len(history.visit_days),
    "mean gap": lambda history: float(np.mean(np.diff(history.visit_days))),
}
PATIENTS = 5000


def labelled(dials: Dials) -> list[History]:
    """Return the patients whose outcome is known, of as many as there are."""
    drawn = [draw_history(np.random.default_rng([seed, 7]), dials) for seed in range(PATIENTS)]
    return [each for each in drawn if each.label is not None]


def auroc(values: list[float], histories: list[History]) -> float:
    """Return how well a probe ranks patients, whichever way it points; ties count half."""
    truth = np.array([each.label for each in histories], dtype=bool)
    ranks, positives = stats.rankdata(values), int(truth.sum())
    area = (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (truth.size - positives))
    return float(max(area, 1 - area))


def limit(dials: Dials, histories: list[History]) -> float:
    """Return Bayes(k=1) plus two standard errors (Hanley and McNeil, Radiology 1982) of this many patients."""
    area = bayes_ceiling(dials, 1)
    events = sum(bool(each.label) for each in histories)
    others = len(histories) - events
    both_events, both_others = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (events - 1) * (both_events - area**2) + (others - 1) * (both_others - area**2)) / (
        events * others
    )
    return float(area + 2 * np.sqrt(variance))


@pytest.fixture(scope="module")
def population() -> list[History]:
    """Return the labelled patients of the study's own dials."""
    return labelled(Dials())


@pytest.mark.parametrize("name", PROBES)
def test_no_probe_beats_the_reader_of_one_scan(population: list[History], name: str) -> None:
    """Size, count and gaps alone stay below the ceiling of one scan."""
    values = [PROBES[name](each) for each in population]
    assert auroc(values, population) <= limit(Dials(), population)


def test_the_probe_finds_a_leak_that_was_put_there() -> None:
    """With suspicion-driven gaps, the positive control, the mean gap alone beats the ceiling."""
    dials = Dials(gap_log_shift_per_z=-0.4)
    histories = labelled(dials)
    assert auroc([PROBES["mean gap"](each) for each in histories], histories) > limit(dials, histories)
