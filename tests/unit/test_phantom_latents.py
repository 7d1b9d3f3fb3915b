"""The lesion process keeps its promises: ceilings, causality, dates."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from inference.phantom import Dials, bayes_ceiling, draw_history, make_patient, order_ceiling


@pytest.mark.parametrize(("n_scans", "expected"), [(1, 0.56), (2, 0.70), (3, 0.80), (4, 0.85), (5, 0.87)])
def test_the_bayes_ceilings_are_those_of_the_design(n_scans: int, expected: float) -> None:
    """The published dials give the published upper bounds."""
    assert bayes_ceiling(Dials(), n_scans) == pytest.approx(expected, abs=0.01)


def test_without_correlation_a_single_scan_knows_nothing() -> None:
    """With rho = 0 the ceiling of one scan is chance."""
    dials = Dials(last_log_volume_z_correlation=0.0)
    assert bayes_ceiling(dials, 1) == pytest.approx(0.5, abs=0.01)


def test_a_ceiling_of_no_scan_is_refused() -> None:
    """Zero scans have no ceiling."""
    with pytest.raises(ValueError, match="n_scans >= 1, found 0"):
        bayes_ceiling(Dials(), 0)


def test_thirty_percent_have_the_event_and_growth_tells_who() -> None:
    """The event rate is the dial's, and fast growers carry it."""
    histories = [draw_history(np.random.default_rng([seed, 0]), Dials()) for seed in range(3000)]
    known = [each for each in histories if each.label is not None]
    assert np.mean([each.label for each in known]) == pytest.approx(0.30, abs=0.04)
    assert np.mean([each.z for each in known if each.label]) > 0.6
    assert np.mean([each.z for each in known if not each.label]) < -0.2


def test_the_number_of_visits_tells_nothing_of_growth() -> None:
    """Counts are drawn independently of z and stay within the dials."""
    histories = [draw_history(np.random.default_rng([seed, 0]), Dials()) for seed in range(3000)]
    counts = np.array([len(each.visit_days) for each in histories])
    assert {counts.min(), counts.max()} == {2, 8}
    assert abs(np.corrcoef(counts, [each.z for each in histories])[0, 1]) < 0.05


def test_suspicion_shortens_gaps_only_when_switched_on() -> None:
    """The positive control links gaps to z; by default they are independent."""

    def correlation(dials: Dials) -> float:
        histories = [draw_history(np.random.default_rng([seed, 0]), dials, n_visits=2) for seed in range(1500)]
        gaps = [-each.visit_days[0] for each in histories]
        return float(np.corrcoef(np.log(gaps), [each.z for each in histories])[0, 1])

    assert abs(correlation(Dials())) < 0.07
    assert correlation(Dials(gap_log_shift_per_z=-0.4)) < -0.4


def test_another_nuisance_seed_keeps_the_disease() -> None:
    """Scanner, pose and noise change nothing of what is true."""
    one, other = make_patient(7), make_patient(7, nuisance_seed=8)
    assert one.history == other.history
    assert (one.label, one.event, one.surgery) == (other.label, other.event, other.surgery)
    assert one.visits[0].nuisance.noise_seed != other.visits[0].nuisance.noise_seed


def test_dates_run_from_surgery_to_the_last_follow_up() -> None:
    """Every visit is post-operative, and the event comes after the last."""
    for seed in range(40):
        patient = make_patient(seed, n_visits=4, last_visit=date(2026, 3, 4))
        days = [visit.acquired for visit in patient.visits]
        assert patient.born < patient.surgery < days[0]
        assert days == sorted(set(days))
        assert days[-1] == date(2026, 3, 4)
        assert patient.last_follow_up >= (patient.event or patient.last_follow_up) > days[-1]
        assert patient.patient_id == f"PHANTOM-{seed:06d}"


def test_a_seed_out_of_range_is_refused() -> None:
    """Patient IDs hold six digits."""
    with pytest.raises(ValueError, match="found 1000000"):
        make_patient(1_000_000)


@pytest.mark.parametrize(("mean_growth", "expected"), [(0.0, 0.50), (0.6, 0.60), (1.2, 0.69)])
def test_mean_growth_says_how_much_order_there_is_to_learn(mean_growth: float, expected: float) -> None:
    """Calling the larger lesion later is right as often as designed; the ideal reader is hardly better."""
    ideal, larger_is_later = order_ceiling(Dials(slope_mean_per_year=mean_growth), patients=50_000)
    assert larger_is_later == pytest.approx(expected, abs=0.01)
    assert larger_is_later - 0.005 <= ideal <= larger_is_later + 0.03
