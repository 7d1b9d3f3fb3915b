"""Split conformal prediction per class and group of numbers of scans: which answers a logit leaves possible.

An event is possible where the mean logit is not among the lowest of calibration patients who had one; no event, where
it is not among the highest of those who had none. How low is low follows from the coverage alone, with no assumption
on the network but that later patients are like those of calibration. The classes are told apart because recurrences
are the fewer: one threshold for all would cover them least, and they matter most.

The thresholds stand on the logit itself, so that calibration fitted on the same patients cannot bend the guarantee. A
patient counts once in a group: where there are rows with 4, 5 and 6 scans, one of them is drawn.

Source: Vovk, Conditional Validity of Inductive Conformal Predictors, 2012 (Mondrian, label-conditional); Sadinle et
al., Least Ambiguous Set-Valued Classifiers, 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from inference.bundle_parts import Conformal, ConformalGroup, Rule
from inference.evaluation.calibration import SCAN_GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

COVERAGE: Final = 0.9


def fit_conformal(
    logits: Mapping[int, NDArray[np.float64]],
    labels: Mapping[int, NDArray[np.bool_]],
    patients: Mapping[int, NDArray[np.str_]],
    *,
    coverage: float = COVERAGE,
    both: Rule = Rule.FLAG,
    neither: Rule = Rule.ABSTAIN,
    seed: int = 0,
) -> Conformal:
    """Return the thresholds on the mean logit for each group that has patients.

    Args:
        logits: number of scans -> members' mean logits, one row per patient who has so many.
        labels: number of scans -> what happened to these patients.
        patients: number of scans -> who they are.
        coverage: share of each class whose outcome must be among the possible answers.
        both: what a node does where both answers are possible.
        neither: what it does where neither is.
        seed: of the draw of one row per patient.

    Raises:
        ValueError: if there is no row.
    """
    rng = np.random.default_rng(seed)
    groups = []
    for low, high in SCAN_GROUPS:
        found = [n_scans for n_scans in sorted(logits) if low <= n_scans <= high and len(logits[n_scans])]
        if not found:
            continue
        who = np.concatenate([patients[n_scans] for n_scans in found])
        once = _one_each(who, rng)
        values = np.concatenate([logits[n_scans] for n_scans in found])[once]
        events = np.concatenate([labels[n_scans] for n_scans in found])[once].astype(bool)
        highest = _highest_kept(values[~events], coverage)
        lowest = _highest_kept(-values[events], coverage)
        groups.append(
            ConformalGroup(
                n_scans=(low, high),
                event_from=None if lowest is None else -lowest,
                no_event_up_to=highest,
                n_events=int(events.sum()),
                n_others=int((~events).sum()),
            )
        )
    if not groups:
        raise ValueError("conformal sets: expected calibration patients, found none")
    return Conformal(coverage=coverage, groups=tuple(groups), both=both, neither=neither)


def _one_each(patients: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return one row of each patient, drawn at random."""
    shuffled = rng.permutation(len(patients))
    _, first = np.unique(patients[shuffled], return_index=True)
    return np.asarray(shuffled[first])


def _highest_kept(scores: NDArray[np.float64], coverage: float) -> float | None:
    """Return the conformal quantile of scores, None where there are too few to leave any out.

    The next patient's score is at most the ceil((N + 1) x coverage)-th of N with at least that probability.
    """
    rank = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return None if rank > len(scores) else float(np.sort(scores)[rank - 1])
