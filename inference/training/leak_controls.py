"""Leaks that were put there on purpose, beside the same figures as drawn: does the check for leaks find them?

From histories and headers alone, no image is rendered. Three ways in which data can tell too much: gaps shortened by
suspicion, a site that draws the sick, machines that got better with time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.bootstrap import Sampling, estimate
from inference.evaluation.confound_figures import ConfoundFigure
from inference.evaluation.resampled import areas, means
from inference.phantom import SITE_DIALS, SUSPICION_DIALS, UPGRADE_DIALS, Dials, draw_history, make_patient
from inference.phantom.protocol import SEEDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.evaluation.bootstrap import Estimate
    from inference.phantom import PhantomPatient

_NOTHING, _A_LEAK = (0.45, 0.55), (0.6, 1.0)  # what is expected
_FIRST = SEEDS["confounds, test"][0] + 5000  # beyond the seeds of the scans that are rendered
_HISTORIES = 3000  # cheap: a patient costs fifty times a history


def leak_controls(*, resamples: int, patients: int, histories: int = _HISTORIES) -> tuple[ConfoundFigure, ...]:
    """Return gap, site and field strength alone: as drawn, and with a leak put there, which a report must find."""
    sampling = Sampling(resamples=resamples)
    plain, at_sites, upgraded = (_patients(dials, patients) for dials in (Dials(), SITE_DIALS, UPGRADE_DIALS))
    return (
        _figure("gap only", "gaps independent of growth", _gap_only(Dials(), histories, sampling)),
        _figure(
            "gap only", "gaps shortened by suspicion", _gap_only(SUSPICION_DIALS, histories, sampling), planted=True
        ),
        _figure("site only", "site independent of growth", _site_only(plain, sampling)),
        _figure("site only", "one site draws the sick", _site_only(at_sites, sampling), planted=True),
        _figure("field strength only", "machines independent of time", _field_only(plain, sampling)),
        _figure("field strength only", "machines upgraded on one date", _field_only(upgraded, sampling), planted=True),
    )


def _figure(test: str, condition: str, found: tuple[str, Estimate, int], *, planted: bool = False) -> ConfoundFigure:
    figure, value, n = found
    return ConfoundFigure(
        test=test,
        condition=condition,
        figure=figure,
        estimate=value,
        n=n,
        expected=_A_LEAK if planted else _NOTHING,
        planted_leak=planted,
    )


def _patients(dials: Dials, count: int) -> list[PhantomPatient]:
    return [make_patient(seed, dials=dials) for seed in range(_FIRST, _FIRST + count)]


def _gap_only(dials: Dials, count: int, sampling: Sampling) -> tuple[str, Estimate, int]:
    """Rank patients by their mean gap, the shortest as the sickest."""
    drawn = (draw_history(np.random.default_rng([seed, 0]), dials) for seed in range(_FIRST, _FIRST + count))
    known = [each for each in drawn if each.label is not None]
    gaps = np.array([np.mean(np.diff(each.visit_days)) for each in known])
    return _auroc(-gaps, np.array([bool(each.label) for each in known]), sampling)


def _site_only(patients: list[PhantomPatient], sampling: Sampling) -> tuple[str, Estimate, int]:
    """Rank one half of the patients by the share of events that their site had in the other half."""
    known = [each for each in patients if each.label is not None]
    labels = np.array([bool(each.label) for each in known])
    sites = np.array([each.visits[-1].scanner.institution for each in known])
    half = np.arange(len(known)) % 2 == 0
    seen = labels[half]
    rates = {site: seen[sites[half] == site].mean() if (sites[half] == site).any() else 0.0 for site in set(sites)}
    return _auroc(np.array([rates[site] for site in sites[~half]]), labels[~half], sampling)


def _field_only(patients: list[PhantomPatient], sampling: Sampling) -> tuple[str, Estimate, int]:
    """Tell the order of first and last scan by which machine had the stronger field; equal ones count half."""
    change = np.array([each.visits[-1].scanner.field_t - each.visits[0].scanner.field_t for each in patients])
    right = 0.5 + 0.5 * np.sign(change)
    return "order accuracy", estimate(means(right, sampling.counts(len(right)))), len(right)


def _auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_], sampling: Sampling) -> tuple[str, Estimate, int]:
    return "AUROC", estimate(areas(scores, labels, sampling.counts(len(labels)))), len(labels)
