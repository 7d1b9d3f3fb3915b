"""What holds for every phantom, whatever its seed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.phantom import make_patient

SEEDS = st.integers(min_value=0, max_value=999_999)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, nuisance_seed=SEEDS)
def test_the_label_depends_on_the_disease_alone(seed: int, nuisance_seed: int) -> None:
    """No nuisance changes history, label or dates."""
    one, other = make_patient(seed), make_patient(seed, nuisance_seed=nuisance_seed)
    assert one.history == other.history
    assert [visit.acquired for visit in one.visits] == [visit.acquired for visit in other.visits]


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_label_event_and_follow_up_agree(seed: int) -> None:
    """Yes means an observed event in time; unknown means that follow-up ended before the horizon."""
    patient = make_patient(seed)
    history, horizon = patient.history, patient.dials.horizon_days
    if history.label:
        assert history.event_day is not None
        assert history.event_day <= horizon
    elif history.label is None:
        assert history.event_day is None
        assert history.last_follow_up_day < horizon
    else:
        assert history.last_follow_up_day >= horizon
