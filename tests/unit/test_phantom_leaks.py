"""No shortcut tells a phantom's future better than the ideal reader of a single scan could."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from inference.phantom import (
    SITE_DIALS,
    SUSPICION_DIALS,
    UPGRADE_DIALS,
    WIDE_GAP_DIALS,
    Dials,
    bayes_ceiling,
    draw_history,
    make_patient,
    render_model_space,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from inference.phantom import History, PhantomPatient

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


def gap_only(dials: Dials) -> float:
    """Return how well the mean gap alone ranks patients."""
    histories = labelled(dials)
    return auroc([PROBES["mean gap"](each) for each in histories], histories)


def test_the_probe_finds_a_leak_that_was_put_there() -> None:
    """With suspicion-driven gaps, the positive control, the mean gap alone beats the ceiling and exceeds 0.6."""
    assert gap_only(SUSPICION_DIALS) > max(0.6, limit(SUSPICION_DIALS, labelled(SUSPICION_DIALS)))


@pytest.mark.parametrize("dials", [Dials(), WIDE_GAP_DIALS, UPGRADE_DIALS])
def test_independent_gaps_tell_nothing(dials: Dials) -> None:
    """However widely they vary, gaps that do not know growth rank nobody."""
    assert gap_only(dials) <= 0.55


def header_features(patient: PhantomPatient) -> list[float]:
    """Return what the headers of the last scan, and their change since the first, could tell."""
    first, last = patient.visits[0], patient.visits[-1]
    where = [float(last.scanner.institution.endswith(str(site))) for site in (0, 1)]
    machine = [last.scanner.field_t, first.scanner.field_t, float(last.nuisance.volumetric)]
    protocol = [last.nuisance.thick_slice_mm, last.nuisance.gain, last.nuisance.noise_fraction]
    person = [
        float(patient.sex == "F"),
        (last.acquired - patient.born).days / 365.25,
        last.acquired.toordinal() / 365.25,
    ]
    return [*where, *machine, *protocol, *person, last.years_since_surgery]


def held_out_scores(features: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each patient's score from a ridge regression that was fitted on the other folds of five."""
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-9)
    fold = np.arange(len(truth)) % 5
    scores = np.zeros(len(truth))
    for each in range(5):
        x, y = scaled[fold != each], truth[fold != each] - truth[fold != each].mean()
        weights = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ y)
        scores[fold == each] = scaled[fold == each] @ weights
    return scores


def patients_of(dials: Dials, count: int) -> list[PhantomPatient]:
    """Return the patients with a known outcome among as many seeds."""
    return [each for each in (make_patient(seed, dials=dials) for seed in range(count)) if each.label is not None]


def learned(features: list[list[float]], patients: list[PhantomPatient]) -> float:
    """Return what a linear probe of some features reaches on patients it was not fitted on."""
    truth = np.array([bool(each.label) for each in patients])
    return auroc(list(held_out_scores(np.array(features), truth)), [each.history for each in patients])


def test_headers_and_site_tell_no_more_than_one_scan() -> None:
    """A probe that learns from site, machine, protocol, sex, age and dates stays below the ceiling of one scan."""
    patients = patients_of(Dials(), 1500)
    reached = learned([header_features(each) for each in patients], patients)
    assert reached <= limit(Dials(), [each.history for each in patients])


def test_the_probe_of_headers_finds_a_site_that_tells_prevalence() -> None:
    """With the site's positive control on, the same probe beats the ceiling of one scan."""
    patients = patients_of(SITE_DIALS, 1500)
    reached = learned([header_features(each) for each in patients], patients)
    assert reached > limit(SITE_DIALS, [each.history for each in patients])


def test_the_histogram_of_the_last_scan_tells_no_more_than_its_lesion() -> None:
    """A probe that learns from 16 bins of the last image's brain stays below the ceiling of one scan."""
    patients = patients_of(Dials(), 220)
    features = []
    for each in patients:
        image = render_model_space(each, -1, shape=(16, 20, 16))
        features.append(
            [float(share) for share in np.histogram(image[image > 0], bins=16, range=(0, 1), density=True)[0]]
        )
    assert learned(features, patients) <= limit(Dials(), [each.history for each in patients])
