"""Platt scaling by number of scans: recovered where there is much, pooled where there is little, else refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inference.bundle_parts import Calibration, CalibrationGroup
from inference.evaluation.calibration import calibrate, fit_calibration, fit_platt, platt_probabilities

Rows = tuple[NDArray[np.float64], NDArray[np.bool_]]


def distorted(patients: int, *, slope: float, intercept: float, seed: int) -> Rows:
    """Return logits and outcomes whose true probability is sigmoid(slope x logit + intercept)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal(patients)
    chances = platt_probabilities(logits, Calibration(slope=slope, intercept=intercept))
    return logits, rng.random(patients) < chances


def fit(rows: dict[int, Rows]) -> Calibration:
    """Fit on number of scans -> rows."""
    logits = {n_scans: each for n_scans, (each, _) in rows.items()}
    labels = {n_scans: each for n_scans, (_, each) in rows.items()}
    return fit_calibration(logits, labels, {n_scans: named(len(each)) for n_scans, each in logits.items()})


def named(patients: int) -> NDArray[np.str_]:
    """Return so many patients, the same first ones whatever their number."""
    return np.array([f"patient-{number}" for number in range(patients)], dtype=np.str_)


def test_one_line_recovers_a_known_distortion() -> None:
    """Logits that were doubled and shifted are brought back."""
    logits, labels = distorted(20_000, slope=1, intercept=0, seed=0)
    found = fit_platt(2 * logits + 1, labels)
    assert (found.slope, found.intercept) == (pytest.approx(0.5, abs=0.03), pytest.approx(-0.5, abs=0.05))


@pytest.mark.parametrize("labels", [[False] * 5, [True] * 5, []])
def test_one_outcome_alone_is_refused(labels: list[bool]) -> None:
    """All patients together need both; so says the message."""
    told = np.array(labels, dtype=bool)
    with pytest.raises(ValueError, match="expected both classes"):
        fit_platt(np.zeros(len(told)), told)
    with pytest.raises(ValueError, match="expected both classes"):
        fit_calibration({3: np.zeros(len(told))}, {3: told}, {3: named(len(told))})


def test_groups_with_many_events_keep_their_own_line() -> None:
    """What one scan says is worth less than what six say, and both are recovered."""
    found = fit(
        {1: distorted(8000, slope=0.3, intercept=-1, seed=1), 6: distorted(8000, slope=1.5, intercept=0.5, seed=2)}
    )
    assert [each.n_scans for each in found.groups] == [(1, 1), (4, 6)]
    assert found.line(1) == (pytest.approx(0.3, abs=0.05), pytest.approx(-1, abs=0.08))
    assert found.line(5) == (pytest.approx(1.5, abs=0.08), pytest.approx(0.5, abs=0.12))


def test_the_fewer_events_a_group_has_the_nearer_it_stays_to_the_pooled_line() -> None:
    """Five patients say little against ten thousand, a hundred much, three thousand nearly all there is to say."""
    many = distorted(10_000, slope=1.0, intercept=0, seed=3)
    logits, labels = distorted(3000, slope=0.2, intercept=-1.5, seed=4)
    apart = []
    for patients in (5, 100, 3000):
        found = fit({6: many, 1: (logits[:patients], labels[:patients])})
        slope, intercept = found.line(1)
        apart.append(abs(slope - found.slope) + abs(intercept - found.intercept))
    assert 2 * apart[0] < 1 < apart[1]  # of 2.3 between the two truths
    assert (slope, intercept) == (pytest.approx(0.2, abs=0.1), pytest.approx(-1.5, abs=0.15))


def test_a_group_of_one_outcome_is_drawn_from_the_pooled_line_and_finite() -> None:
    """Nobody with one scan had an event: lower than the pooled line, not certain."""
    found = fit({6: distorted(500, slope=1, intercept=0, seed=5), 1: (np.zeros(6), np.zeros(6, dtype=bool))})
    (group, _) = found.groups
    assert (group.n_patients, group.n_events) == (6, 0)
    assert 0.2 < float(calibrate(1, np.zeros(1), found)[0]) < 0.5


def test_a_patient_with_four_five_and_six_scans_counts_once() -> None:
    """The same rows three times in a group give the line of the rows once."""
    rows = distorted(200, slope=0.7, intercept=-0.3, seed=6)
    others = distorted(200, slope=1.2, intercept=0.4, seed=7)
    once, thrice = fit({1: others, 6: rows}), fit({1: others, 4: rows, 5: rows, 6: rows})
    assert thrice.groups[-1].n_patients == once.groups[-1].n_patients == 200
    few, many = once.line(6), thrice.line(6)
    assert many == (pytest.approx(few[0], abs=0.1), pytest.approx(few[1], abs=0.1))


def test_a_patient_with_four_scans_only_counts_as_much_as_one_with_six() -> None:
    """A tenth of the patients have 5 and 6 scans too, and say something else: they are a tenth of the group."""
    few = 10
    labels = np.arange(100) % 3 == 0
    logits = np.linspace(-2, 2, 100)
    found = fit(
        {1: (logits, labels), 4: (logits, labels), 5: (logits[:few], labels[:few]), 6: (logits[:few], labels[:few])}
    )
    assert (found.groups[-1].n_patients, found.groups[-1].n_events) == (100, 34)
    once = fit({1: (logits, labels), 4: (logits, labels)})
    assert found.line(4) == (pytest.approx(once.line(4)[0], abs=1e-6), pytest.approx(once.line(4)[1], abs=1e-6))


def test_rows_without_their_patients_are_refused() -> None:
    """Without them nobody could count once."""
    with pytest.raises(ValueError, match="calibration, 3 scans: expected a patient for each"):
        fit_calibration({3: np.zeros(2)}, {3: np.array([True, False])}, {})


def test_logits_that_rank_the_wrong_way_round_say_nothing() -> None:
    """The slope is 0 and everybody gets the base rate; nobody is turned round."""
    logits, labels = distorted(4000, slope=-1, intercept=-1, seed=8)
    found = fit_platt(logits, labels)
    assert found.slope == 0
    assert float(platt_probabilities(np.zeros(1), found)[0]) == pytest.approx(labels.mean(), abs=0.01)


def test_logits_that_separate_the_outcomes_give_a_finite_line() -> None:
    """Softened targets keep the fit from running away, however large the logits are."""
    labels = np.arange(200) < 100
    found = fit_platt(np.where(labels, 80.0, -80.0), labels)
    assert 0 < found.slope < 1
    assert np.isfinite(found.intercept)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [({3: np.array([0.0, np.nan])}, {3: np.array([True, False])}), ({3: np.zeros(2)}, {3: np.ones(3, dtype=bool)}),
     ({3: np.zeros(2)}, {})],
    ids=["not a number", "rows that do not match", "no labels"],
)  # fmt: skip
def test_rows_that_cannot_be_fitted_are_refused_by_their_number_of_scans(
    logits: dict[int, NDArray[np.float64]], labels: dict[int, NDArray[np.bool_]]
) -> None:
    """The message says where."""
    with pytest.raises(ValueError, match="calibration, 3 scans: expected"):
        fit_calibration(logits, labels, {3: named(2)})


def test_a_number_of_scans_without_a_group_takes_the_pooled_line() -> None:
    """Also in a bundle of before there were groups."""
    group = CalibrationGroup(n_scans=(4, 6), slope=2, intercept=1, n_patients=9, n_events=3)
    found = Calibration(slope=0.5, intercept=-1, groups=(group,))
    assert (found.line(3), found.line(4), found.line(7)) == ((0.5, -1), (2, 1), (0.5, -1))
    assert Calibration.model_validate({"slope": 0.5, "intercept": -1}).line(6) == (0.5, -1)


@pytest.mark.parametrize("groups", [((1, 2), (2, 3)), ((4, 6), (1, 1)), ((0, 1),), ((3, 2),)])
def test_groups_that_overlap_or_make_no_sense_are_refused(groups: tuple[tuple[int, int], ...]) -> None:
    """A time line belongs to one group or none."""
    content = [{"n_scans": each, "slope": 1, "intercept": 0, "n_patients": 1, "n_events": 1} for each in groups]
    with pytest.raises(ValueError, match="expected"):
        Calibration.model_validate({"groups": content})


@given(seed=st.integers(0, 1000), patients=st.integers(4, 60))
def test_any_calibration_keeps_the_order_of_logits(seed: int, patients: int) -> None:
    """A higher logit is never a lower probability, on any number of scans."""
    rng = np.random.default_rng(seed)
    rows = {k: (5 * rng.standard_normal(patients), rng.random(patients) < 0.4) for k in (1, 2, 3, 4)}
    rows[1][1][:2] = (True, False)
    found = fit(rows)
    for n_scans in range(1, 8):
        assert (np.diff(calibrate(n_scans, np.linspace(-9, 9, 30), found)) >= 0).all()
