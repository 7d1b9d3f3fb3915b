"""Order-free: however the same instances arrive, the time line, the decision and the run key are the same."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time

from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.decide import decide
from dicom_node.timeline.decision import Circumstances
from dicom_node.timeline.model import InstanceFacts
from tests.factories.facts import (
    BUNDLE_DIGEST,
    DWI,
    FLAIR,
    GLIOMA,
    PATIENT,
    SELECTION,
    SURGERY,
    T1,
    a_cohort,
    a_series,
    a_task,
    follow_ups,
    uid,
)

DAYS = (date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1))
NIGHT = date(2025, 11, 15)  # an exam across midnight, with a copy of an older one's series
DERIVED = {**FLAIR, "ImageType": ("DERIVED", "SECONDARY", "MPR")}
HISTORY = [
    *a_series(SURGERY, study="before", at=time(7, 0), slices=9),
    *a_series(SURGERY, study="after", at=time(20, 0), slices=9),
    *follow_ups(*DAYS, slices=18),
    *a_series(DAYS[1], study="B", name="other", slices=18),  # two equal candidates
    *a_series(DAYS[1], T1, name="t1", slices=9),
    *a_series(DAYS[2], DWI, name="dwi", slices=9),
    *a_series(DAYS[2], name="broken", slices=18)[1::3],
    *a_series(DAYS[1], T1, name="t1 again", study="C", slices=18, at=time(11, 0)),  # a split exam
    *a_series(NIGHT, T1, name="evening", slices=18, at=time(23, 50), study_instance_uid=uid("night")),
    *a_series(date(2025, 11, 16), name="morning", slices=18, at=time(0, 20), study_instance_uid=uid("night")),
    *a_series(date(2024, 5, 1), DERIVED, name="copy", slices=9, study_instance_uid=uid("night")),
]
CIRCUMSTANCES = Circumstances(patient=PATIENT, bundle_digest=BUNDLE_DIGEST)
NOW = datetime(2026, 1, 20, tzinfo=UTC)
TASK = a_task(roles={"optional": ["T1"]})


def _outcome(instances, task=TASK):
    line = build_time_line(instances, selection=SELECTION, task=task, cohort=a_cohort())
    return line, decide(line, task, a_cohort(), (), NOW, circumstances=CIRCUMSTANCES)


REFERENCE = _outcome(HISTORY)
SPREAD = a_task(roles={"optional": ["T1"]}, time_points={"choose": "spread", "maximum": 3})
REFERENCE_SPREAD = _outcome(HISTORY, SPREAD)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(), extra=st.lists(st.integers(0, len(HISTORY) - 1), max_size=30))
def test_any_order_and_duplication_is_one_time_line_and_one_decision(seed, extra) -> None:
    """Shuffled, with copies, and after a round trip through the ledger's text."""
    arrived = [*HISTORY, *(HISTORY[index] for index in extra)]
    random.Random(seed).shuffle(arrived)
    assert _outcome(arrived) == REFERENCE
    assert _outcome(arrived, SPREAD) == REFERENCE_SPREAD


def test_the_ledgers_text_is_the_same_fact() -> None:
    """`from_json` undoes `to_json`, and equal facts are equal text."""
    copies = [InstanceFacts.from_json(each.to_json()) for each in HISTORY]
    assert copies == HISTORY
    assert [each.to_json() for each in copies] == [each.to_json() for each in HISTORY]
    assert _outcome(copies) == REFERENCE


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(), cut=st.integers(0, len(HISTORY)))
def test_what_is_decided_on_the_way_does_not_change_the_end(seed, cut) -> None:
    """Decisions on part of the history never raise and leave no trace."""
    arrived = list(HISTORY)
    random.Random(seed).shuffle(arrived)
    _outcome(arrived[:cut])
    assert _outcome(arrived) == REFERENCE


def test_the_references_are_due() -> None:
    """The history of this test means something."""
    assert REFERENCE[1].inputs.dates == (*DAYS, NIGHT)
    assert REFERENCE_SPREAD[1].inputs.dates == (DAYS[0], DAYS[1], NIGHT)
    assert GLIOMA.digest() != TASK.digest()
