"""Conformal sets: they cover what they promise, are told per class and group, and say nothing on too few patients."""

from __future__ import annotations

import numpy as np
import pytest

from inference.bundle_parts import Conformal, Rule
from inference.evaluation.conformal import fit_conformal


def drawn(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and outcomes of patients, an event in a quarter of them."""
    labels = rng.random(patients) < 0.25
    return rng.standard_normal(patients) + 1.5 * labels, labels


def names(patients: int) -> np.ndarray:
    """Return a name for each patient."""
    return np.array([f"P{number:04d}" for number in range(patients)])


def fit_one(logits: np.ndarray, labels: np.ndarray, coverage: float = 0.9) -> Conformal:
    """Fit on patients with six scans."""
    return fit_conformal({6: logits}, {6: labels}, {6: names(len(logits))}, coverage=coverage)


def test_each_class_is_covered_as_promised() -> None:
    """Over many calibration sets of 120 patients, the outcome of nine in ten of either class is among the answers."""
    rng = np.random.default_rng(0)
    covered: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(300):
        found = fit_one(*drawn(rng, 120))
        logits, labels = drawn(rng, 400)
        sets = [found.answers(6, float(each)) or () for each in logits]
        for outcome, shares in covered.items():
            shares.append(
                float(np.mean([outcome in each for each, label in zip(sets, labels, strict=True) if label == outcome]))
            )
    assert 0.895 < np.mean(covered[True]) < 0.94  # 30 events of each calibration set make it a little too much
    assert 0.895 < np.mean(covered[False]) < 0.92


def test_the_thresholds_are_the_ranks_worked_out_by_hand() -> None:
    """Of 9 with an event none may be left out at 90 %: the lowest decides; of 19 without, the second highest does."""
    logits = np.concatenate([np.arange(9) + 0.5, -np.arange(19.0)])
    found = fit_one(logits, np.arange(28) < 9)
    (group,) = found.groups
    assert (group.event_from, group.no_event_up_to) == (0.5, -1.0)
    assert found.answers(6, 0.5) == (True,)
    assert found.answers(6, -1.0) == (False,)
    assert found.answers(6, 0.0) == ()


def test_eight_patients_of_a_class_are_too_few_to_rule_it_out() -> None:
    """Then it is always possible, and the bundle says on how few it rests."""
    logits = np.concatenate([np.full(8, 5.0), np.zeros(50)])
    found = fit_one(logits, np.arange(58) < 8)
    (group,) = found.groups
    assert (group.event_from, group.n_events, group.n_others) == (None, 8, 50)
    assert found.answers(6, -100.0) == (False, True)


def test_a_patient_with_four_five_and_six_scans_is_one_row() -> None:
    """The group counts patients, not rows, and holds for each of the numbers."""
    rng = np.random.default_rng(1)
    logits, labels = drawn(rng, 60)
    who = names(60)
    found = fit_conformal(
        {3: logits, 4: logits, 5: logits, 6: logits[:40]},
        {3: labels, 4: labels, 5: labels, 6: labels[:40]},
        {3: who, 4: who, 5: who, 6: who[:40]},
        both=Rule.ABSTAIN,
    )
    assert [(each.n_scans, each.n_events + each.n_others) for each in found.groups] == [((3, 3), 60), ((4, 6), 60)]
    assert found.both is Rule.ABSTAIN
    assert found.answers(1, 0.0) is None
    assert found.answers(7, 0.0) is None


def test_the_sets_do_not_depend_on_how_logits_are_scaled() -> None:
    """So that Platt scaling on the same patients cannot bend the guarantee."""
    rng = np.random.default_rng(2)
    logits, labels = drawn(rng, 100)
    plain, bent = fit_one(logits, labels), fit_one(3 * logits - 1, labels)
    for each in np.linspace(-3, 4, 40):
        assert plain.answers(6, float(each)) == bent.answers(6, float(3 * each - 1))


def test_no_patient_at_all_is_refused() -> None:
    """There is nothing to promise."""
    with pytest.raises(ValueError, match="found none"):
        fit_conformal({}, {}, {})
