"""A replayed history: when the node would have looked, what it would have decided, which report followed which."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dicom_node.timeline.decision import Due, Ended, Held, Ineligible, UpToDate, Waiting
from dicom_node.timeline.history import Arrived, CohortChanged, Contradicted, History, Rejected
from dicom_node.timeline.model import CohortFacts, Event, Reason
from dicom_node.timeline.replay import Occasion, Rules, Step, replay
from tests.factories.facts import BUNDLE_DIGEST, GLIOMA, PATIENT, SELECTION, T1, a_cohort, a_series, a_task, follow_ups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.timeline.model import InstanceFacts

DAYS = (date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1), date(2026, 1, 8))
QUIET = timedelta(seconds=60)
RULES = Rules(task=GLIOMA, selection=SELECTION, bundle_digest=BUNDLE_DIGEST, quiet_period_s=60, max_wait_s=3600)
HOLD = Reason(code="model-trained-on-phantoms", text="for phantoms only")


def on(day: date, hours: float = 10) -> datetime:
    """Return a moment of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours)


def arrivals(instances: Iterable[InstanceFacts], at: datetime) -> list[Arrived]:
    """Let instances arrive one second after another."""
    return [Arrived(at=at + timedelta(seconds=number), facts=each) for number, each in enumerate(instances)]


def a_history(*events: Any, **changes: Any) -> History:
    """Return the history of the patient of the factories."""
    return History(patient=PATIENT.key, events=events, **{"cohort": a_cohort(), **changes})


def rejection(day: date, at: datetime) -> Rejected:
    """Return a note that rejects the scan of a day."""
    return Rejected(at=at, sop_instance_uids=frozenset(each.sop_instance_uid for each in a_series(day)))


def kinds(steps: Iterable[Step]) -> list[tuple[Occasion, type[object]]]:
    """Reduce steps to why they were taken and what came out."""
    return [(step.occasion, type(step.decision)) for step in steps]


def reports(steps: Iterable[Step]) -> list[Due]:
    """Return the decisions that made a report."""
    return [step.decision for step in steps if isinstance(step.decision, Due)]


VISITS = [each for day in DAYS for each in arrivals(a_series(day), on(day))]


def test_every_visit_is_waited_for_and_then_decided() -> None:
    """Two looks a visit: when the last image is there, and when the quiet period is over."""
    steps = replay(a_history(*VISITS), RULES)
    wait, check = (Occasion.ARRIVAL, Waiting), Occasion.CHECK
    assert kinds(steps) == [
        *(wait, (check, Waiting)) * 2,
        *(wait, (check, Due)) * 2,
        (Occasion.END, UpToDate),
    ]  # fmt: skip
    assert [step.decision.reasons[0].code for step in steps[:4]] == ["quiet-period", "too-few-time-points"] * 2
    last_image = on(DAYS[0]) + timedelta(seconds=23)
    assert [step.at for step in steps[:2]] == [last_image, last_image + QUIET]


def test_a_report_names_the_one_before() -> None:
    """The second stands on one scan more, and is no correction."""
    first, second = reports(replay(a_history(*VISITS), RULES))
    assert (first.version, first.predecessor, first.inputs.dates) == (1, None, DAYS[:3])
    assert (second.version, second.predecessor, second.inputs.dates) == (2, first.run_key, DAYS)
    assert not second.correction


def test_a_late_series_makes_a_correction() -> None:
    """A better FLAIR of the newest scan, a day late."""
    late = arrivals(a_series(DAYS[2], name="thin", spacing_mm=3.0, slices=50), on(DAYS[2], 34))
    first, second = reports(replay(a_history(*VISITS[:72], *late), RULES))
    assert second.predecessor == first.run_key
    assert second.correction
    assert second.run_key != first.run_key


def test_slices_that_trickle_in_are_one_study() -> None:
    """Pauses shorter than the quiet period are no reason to look."""
    slow = [Arrived(at=on(DAYS[0]) + 50 * timedelta(seconds=n), facts=each) for n, each in enumerate(a_series(DAYS[0]))]
    assert [step.occasion for step in replay(a_history(*slow), RULES)] == [
        Occasion.ARRIVAL, Occasion.CHECK, Occasion.END,
    ]  # fmt: skip


def test_the_order_of_the_events_in_the_list_means_nothing() -> None:
    """Time decides."""
    assert replay(a_history(*VISITS[::-1]), RULES) == replay(a_history(*VISITS), RULES)


def test_a_second_copy_changes_nothing() -> None:
    """Neither what is held nor when the study was heard last."""
    again = [Arrived(at=each.at + timedelta(seconds=30), facts=each.facts) for each in VISITS]
    assert replay(a_history(*VISITS, *again), RULES)[-1].decision == replay(a_history(*VISITS), RULES)[-1].decision
    assert replay(a_history(*VISITS, *again), RULES)[-1].instances == len(VISITS)


def test_a_surgery_date_that_comes_late_is_waited_for() -> None:
    """Everything is there, and the case waits until the cohort knows the patient."""
    later = on(DAYS[3]) + timedelta(days=3)
    steps = replay(a_history(*VISITS, CohortChanged(at=later, cohort=a_cohort()), cohort=a_cohort(surgeries=())), RULES)
    assert {step.decision.reasons[0].code for step in steps if step.at < later} == {"surgery-date-unknown"}
    (report,) = reports(steps)
    assert report.inputs.dates == DAYS
    assert [step.occasion for step in steps if step.at == later] == [Occasion.COHORT, Occasion.END]


def test_nobody_unknown_is_answered() -> None:
    """An empty cohort makes nobody eligible."""
    steps = replay(a_history(*VISITS, cohort=CohortFacts()), RULES)
    assert {type(step.decision) for step in steps} == {Ineligible}


def test_an_event_ends_surveillance_when_it_is_recorded() -> None:
    """The reports before it stay, none comes after."""
    event = CohortChanged(at=on(DAYS[2], 40), cohort=a_cohort(events=(Event(on=DAYS[2]),)))
    steps = replay(a_history(*VISITS, event), RULES)
    assert [each.inputs.dates for each in reports(steps)] == [DAYS[:3]]
    assert isinstance(steps[-1].decision, Ended)


def test_a_rejected_scan_goes_out_of_the_inputs() -> None:
    """Four scans, the second is rejected after the report: three are left, the older report is named."""
    steps = replay(a_history(*VISITS, rejection(DAYS[1], on(DAYS[3], 40))), RULES)
    assert [each.inputs.dates for each in reports(steps)] == [DAYS[:3], DAYS, (DAYS[0], *DAYS[2:])]
    assert steps[-1].inputs is not None
    assert steps[-1].inputs.dates == (DAYS[0], *DAYS[2:])


def test_a_rejection_note_may_come_before_the_images() -> None:
    """What it names is never used."""
    (report,) = reports(replay(a_history(rejection(DAYS[1], on(DAYS[0], 1)), *VISITS), RULES))
    assert report.inputs.dates == (DAYS[0], *DAYS[2:])


def test_a_contradicting_file_holds_the_case() -> None:
    """From then on."""
    steps = replay(a_history(*VISITS, Contradicted(at=on(DAYS[3], 40))), RULES)
    assert isinstance(steps[-1].decision, Held)
    assert steps[-1].decision.reasons[0].code == "instance-conflict"


def test_a_model_trained_on_phantoms_answers_for_nobody_else() -> None:
    """What would go in is told all the same; a phantom is answered."""
    rules = Rules(task=GLIOMA, selection=SELECTION, bundle_digest=BUNDLE_DIGEST, quiet_period_s=60, phantoms_only=HOLD)
    last = replay(a_history(*VISITS), rules)[-1]
    assert isinstance(last.decision, Held)
    assert last.decision.reasons[0] == HOLD
    assert last.inputs is not None
    assert last.inputs.dates == DAYS


def test_scans_that_are_too_old_when_they_come_are_not_reported() -> None:
    """A back-fill two years later: the clock is the history's own."""
    old = arrivals([each.facts for each in VISITS], on(date(2028, 2, 1)))
    last = replay(a_history(*old), RULES)[-1]
    assert isinstance(last.decision, Waiting)
    assert last.decision.reasons[0].code == "newest-scan-too-old"


def test_looks_in_between_make_reports_but_no_other_end() -> None:
    """A look after every single slice ends as one at the end."""
    everything = arrivals([each.facts for each in VISITS], on(DAYS[3]))
    looks = [each.at for each in everything]
    plain, busy = replay(a_history(*everything), RULES), replay(a_history(*everything), RULES, looks=looks)
    assert busy[-1] == plain[-1]
    assert len(busy) > len(plain) + len(everything) - 5


def test_without_instances_there_is_no_decision() -> None:
    """A patient of whom nothing is held has no case, as at the node."""
    assert replay(a_history(), RULES) == []
    assert replay(a_history(CohortChanged(at=on(DAYS[0]), cohort=a_cohort())), RULES) == []


def test_the_last_look_is_taken_when_it_is_asked_for() -> None:
    """A check that falls later is not taken."""
    end = on(DAYS[0]) + timedelta(days=30)
    last = replay(a_history(*VISITS[:24]), RULES, until=end)[-1]
    assert (last.at, last.occasion) == (end, Occasion.END)


def test_a_scan_without_flair_holds_the_case() -> None:
    """The newest exam cannot be used, and nobody is told a risk that ignores it."""
    without = arrivals(a_series(DAYS[3], T1), on(DAYS[3]))
    last = replay(a_history(*VISITS[:72], *without), RULES)[-1]
    assert isinstance(last.decision, Held)
    assert last.decision.reasons[0].code == "newer-exam-not-used"
    named = a_task(gates={"newest_exam_unusable": "name"})
    rules = Rules(task=named, selection=SELECTION, bundle_digest=BUNDLE_DIGEST)
    assert isinstance(replay(a_history(*VISITS[:72], *without), rules)[-1].decision, UpToDate)


def test_many_follow_ups_keep_the_last_six() -> None:
    """Nine scans: every report from the third on, the newest with six."""
    days = [DAYS[0] + timedelta(days=60 * number) for number in range(9)]
    events = [each for day in days for each in arrivals(follow_ups(day), on(day))]
    made = reports(replay(a_history(*events), RULES))
    assert [len(each.inputs.dates) for each in made] == [3, 4, 5, 6, 6, 6, 6]
    assert [each.version for each in made] == list(range(1, 8))
