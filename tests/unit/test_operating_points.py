"""Operating points: thresholds for a target, what they reach elsewhere, predictive values only with a prevalence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.bundle_parts import OperatingPoint, Target
from inference.evaluation.operating import TARGETS, Threshold, choose_threshold, reached

PROBABILITIES = np.array([0.9, 0.8, 0.7, 0.3, 0.6, 0.5, 0.2, 0.1])
LABELS = np.array([True, True, True, True, False, False, False, False])


def test_a_sensitivity_of_three_in_four_costs_as_little_specificity_as_it_must() -> None:
    """The highest threshold that keeps three of four events."""
    found = choose_threshold("rule-out", Target(measure="sensitivity", at_least=0.75), PROBABILITIES, LABELS)
    point = reached(found, PROBABILITIES, LABELS)
    assert (point.threshold, point.sensitivity, point.specificity) == (0.7, 0.75, 1.0)
    assert (point.n_patients, point.predictive_values) == (8, None)


def test_a_specificity_of_three_in_four_lets_one_alarm_pass() -> None:
    """The lowest threshold above three of four others."""
    found = choose_threshold("rule-in", Target(measure="specificity", at_least=0.75), PROBABILITIES, LABELS)
    assert 0.5 < found.value < 0.5001
    assert reached(found, PROBABILITIES, LABELS).specificity == 0.75


@given(seed=st.integers(0, 1000), name=st.sampled_from(sorted(TARGETS)))
def test_the_target_is_met_on_the_patients_it_was_chosen_on(seed: int, name: str) -> None:
    """Also with ties."""
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.integers(0, 8, 40) / 8, rng.random(40) < 0.4
    labels[:2] = (True, False)
    target = TARGETS[name]
    point = reached(choose_threshold(name, target, probabilities, labels), probabilities, labels)
    assert getattr(point, target.measure) >= target.at_least


def test_predictive_values_follow_from_the_declared_prevalence() -> None:
    """Bayes' rule, by hand: of 1,000 people 100 have an event."""
    point = reached(Threshold(name="even", value=0.55), PROBABILITIES, LABELS, prevalence=0.1)
    assert point.predictive_values is not None
    assert point.predictive_values.prevalence == 0.1
    assert point.predictive_values.ppv == pytest.approx(75 / (75 + 225))
    assert point.predictive_values.npv == pytest.approx(675 / (675 + 25))


def test_a_threshold_that_nobody_reaches_has_no_positive_predictive_value() -> None:
    """None, not a division by nothing."""
    point = reached(Threshold(name="never", value=1.0), PROBABILITIES, LABELS, prevalence=0.1)
    assert point.predictive_values is not None
    assert (point.predictive_values.ppv, point.predictive_values.npv) == (None, pytest.approx(0.9))


def test_one_outcome_alone_is_refused() -> None:
    """There is no sensitivity without an event."""
    with pytest.raises(ValueError, match="rule-out"):
        choose_threshold("rule-out", TARGETS["rule-out"], PROBABILITIES[:4], LABELS[:4])


def test_predictive_values_without_a_prevalence_are_refused() -> None:
    """A bundle that states one without the other is not read."""
    content = {"name": "even", "threshold": 0.5, "sensitivity": 1, "specificity": 1, "predictive_values": {"ppv": 0.9}}
    with pytest.raises(ValueError, match="prevalence"):
        OperatingPoint.model_validate(content)
