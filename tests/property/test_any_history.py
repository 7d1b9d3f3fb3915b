"""Invariant 4 in the pure core: any order, any pauses, any copies, any placement of looks end in the same decision.

A history here is more than images: a rejection note, the cohort's word and a late series stand anywhere in it. The
clock is the replay's; the decisions are those of the node. That bytes follow is shown in `test_any_arrival_order`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.timeline.decision import Decision, Due, Held, UpToDate
from dicom_node.timeline.history import Arrived, CohortChanged, Contradicted, History, Rejected
from dicom_node.timeline.replay import Rules, Step, replay
from tests.factories.facts import BUNDLE_DIGEST, PATIENT, SELECTION, SURGERY, T1, a_cohort, a_series, a_task

if TYPE_CHECKING:
    from dicom_node.timeline.history import Event
    from dicom_node.timeline.model import InstanceFacts, Reason

NOW = datetime(2026, 1, 20, 8, tzinfo=UTC)
END = NOW + timedelta(days=2)
DAYS = (date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1), date(2026, 1, 8))
RULES = Rules(
    task=a_task(roles={"optional": ["T1"]}),
    selection=SELECTION,
    bundle_digest=BUNDLE_DIGEST,
    quiet_period_s=60,
    max_wait_s=900,
)
VISITS = [a_series(day, slices=18) for day in DAYS]
THIN = a_series(DAYS[2], name="thin", slices=36, spacing_mm=3.0)  # a better series of the same day
SECOND_STUDY = a_series(DAYS[3], T1, study="B", name="t1", slices=18)  # of the same day
AT_SURGERY = a_series(SURGERY, study="after", slices=18)
GAPPED = a_series(DAYS[0], T1, name="gapped", slices=18)[:6] + a_series(DAYS[0], T1, name="gapped", slices=18)[8:]
SERIES = [*VISITS, THIN, SECOND_STUDY, AT_SURGERY, GAPPED]
PAUSES_S = (0, 1, 20, 61, 700, 4000)
UNSUPPORTED = "report-unsupported"  # names reports made on the way, and so depends on the way


def rejection(series: list[InstanceFacts]) -> Rejected:
    """Return a note that rejects a series; its time is set when it is placed."""
    return Rejected(at=NOW, sop_instance_uids=frozenset(each.sop_instance_uid for each in series))


def outcome(step: Step) -> tuple[type[Decision], tuple[Reason, ...], str | None, object]:
    """Return what must not depend on the way: the decision with its reasons, its run, its inputs."""
    key = step.decision.run_key if isinstance(step.decision, UpToDate) else None
    reasons = tuple(each for each in step.decision.reasons if each.code != UNSUPPORTED)
    return type(step.decision), reasons, key, step.inputs


def plainly(others: list[Event], series: list[list[InstanceFacts]]) -> list[Step]:
    """Replay everything at once: the reference."""
    arrived = [Arrived(at=NOW, facts=each) for found in series for each in found]
    history = History(patient=PATIENT.key, events=(*others, *arrived), cohort=a_cohort(surgeries=()))
    return replay(history, RULES, until=END)


@dataclass(frozen=True)
class Part:
    """A part of a series, or one other event, and what follows it: small, so that a failing way can be read."""

    series: int | None  # None: one of the other events
    other: int = 0
    seed: int = 0  # of the order of the instances
    begin: float = 0.0
    end: float = 1.0
    pause_s: int = 0
    look_after_s: int | None = None


@st.composite
def ways(draw: st.DrawFn, *, others: int, series: int = len(SERIES)) -> list[Part]:
    """Cut every series in two, send some part twice, put all in any order with any pauses, let the node look."""
    parts = [Part(series=None, other=number) for number in range(others)]
    for number in range(series):
        seed, cut = draw(st.integers(0, 99)), draw(st.sampled_from((0.0, 0.3, 0.5, 0.9)))
        halves = [Part(series=number, seed=seed, end=cut), Part(series=number, seed=seed, begin=cut)]
        parts += [*halves[cut == 0 :], *draw(st.lists(st.sampled_from(halves), max_size=1))]
    pauses, looks = st.sampled_from(PAUSES_S), st.none() | st.sampled_from(PAUSES_S)
    return [replace(part, pause_s=draw(pauses), look_after_s=draw(looks)) for part in draw(st.permutations(parts))]


def lay_out(way: list[Part], others: list[Event], series: list[list[InstanceFacts]]) -> tuple[History, list[datetime]]:
    """Turn a way into a history and the moments at which the node happens to look."""
    at, events, looks = NOW, [], []
    for part in way:
        at += timedelta(seconds=part.pause_s)
        if part.series is None:
            events.append(_at(others[part.other], at))
        else:
            found = series[part.series]
            order = random.Random(part.seed).sample(found, len(found))
            these = order[round(part.begin * len(found)) : round(part.end * len(found))]
            events += [Arrived(at=at, facts=each) for each in these]
        if part.look_after_s is not None:
            looks.append(at + timedelta(seconds=part.look_after_s))
    return History(patient=PATIENT.key, events=tuple(events), cohort=a_cohort(surgeries=())), looks


def replayed(way: list[Part], others: list[Event], series: list[list[InstanceFacts]] = SERIES) -> list[Step]:
    """Replay a way."""
    history, looks = lay_out(way, others, series)
    return replay(history, RULES, until=END, looks=looks)


def _at(event: Event, at: datetime) -> Event:
    if isinstance(event, Arrived):
        return Arrived(at=at, facts=event.facts)
    if isinstance(event, CohortChanged):
        return CohortChanged(at=at, cohort=event.cohort)
    if isinstance(event, Rejected):
        return Rejected(at=at, sop_instance_uids=event.sop_instance_uids)
    return Contradicted(at=at)


COHORT = CohortChanged(at=NOW, cohort=a_cohort())
OTHERS: list[Event] = [COHORT, rejection(VISITS[1])]
PLAIN = plainly(OTHERS, SERIES)
REFERENCE = PLAIN[-1]
(PLAIN_REPORT,) = (step.decision for step in PLAIN if isinstance(step.decision, Due))


@settings(max_examples=30, deadline=None)
@given(ways(others=len(OTHERS)))
def test_any_way_ends_in_the_same_decision_run_and_inputs(way: list[Part]) -> None:
    """Images in parts and twice, a better series late, a note before its images, the cohort last: one end."""
    assert outcome(replayed(way, OTHERS)[-1]) == outcome(REFERENCE)


@settings(max_examples=30, deadline=None)
@given(ways(others=len(OTHERS)))
def test_reports_on_the_way_form_one_chain(way: list[Part]) -> None:
    """Each names the one before; where none was made before everything had come, the only one is the plain one."""
    history, looks = lay_out(way, OTHERS, SERIES)
    made = [
        (step.at, step.decision)
        for step in replay(history, RULES, until=END, looks=looks)
        if isinstance(step.decision, Due)
    ]
    reports = [report for _, report in made]
    assert [each.version for each in reports] == list(range(1, len(reports) + 1))
    assert [each.predecessor for each in reports[1:]] == [each.run_key for each in reports[:-1]]
    assert len({each.run_key for each in reports}) == len(reports)
    if made and made[0][0] >= max(each.at for each in history.events):
        assert reports == [PLAIN_REPORT]


@settings(max_examples=8, deadline=None)
@given(ways(others=3))
def test_a_contradicting_file_holds_the_case_whenever_it_comes(way: list[Part]) -> None:
    """Before its image, after it, after the report."""
    last = replayed(way, [*OTHERS, Contradicted(at=NOW)])[-1]
    assert isinstance(last.decision, Held)
    assert last.decision.reasons[0].code == "instance-conflict"


@settings(max_examples=12, deadline=None)
@given(ways(others=3))
def test_too_few_scans_are_too_few_in_any_order(way: list[Part]) -> None:
    """Two of four scans are rejected: whatever was reported on the way, the case waits in the end."""
    others: list[Event] = [COHORT, rejection(VISITS[0]), rejection(VISITS[1])]
    last = replayed(way, others)[-1]
    assert outcome(last) == outcome(plainly(others, SERIES)[-1])
    assert last.decision.reasons[0].code == "too-few-time-points"


@settings(max_examples=12, deadline=None)
@given(ways(others=1, series=4))
def test_a_newer_scan_without_flair_holds_the_case_in_any_order(way: list[Part]) -> None:
    """Whether a report of the older scans was made before it came or not."""
    last = replayed(way, [COHORT], [*VISITS[:3], a_series(DAYS[3], T1, slices=18)])[-1]
    assert isinstance(last.decision, Held)
    assert last.decision.reasons[0].code == "newer-exam-not-used"


def test_the_reference_means_something() -> None:
    """Three days go in, the rejected one not; the thin series and the second study are used."""
    assert REFERENCE.inputs is not None
    assert REFERENCE.inputs.dates == (DAYS[0], *DAYS[2:])
    assert isinstance(REFERENCE.decision, UpToDate)
    used = {each.series_instance_uid for point in REFERENCE.inputs.time_points for each in point.series}
    assert THIN[0].series_instance_uid in used
    assert GAPPED[0].series_instance_uid not in used
