"""What is due, and if nothing is, why: one row per reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.choose import choose_time_points
from dicom_node.timeline.decide import decide
from dicom_node.timeline.decision import Circumstances, Due, Ended, Held, Ineligible, StudyClock, UpToDate, Waiting
from dicom_node.timeline.explain import explain_decision, explain_time_line
from dicom_node.timeline.identity import Identity, IdentityState
from dicom_node.timeline.model import Event, Inputs, Reason, Role, RunFacts, RunState, Surgery
from dicom_node.timeline.run_key import inputs_key, run_key
from tests.factories.facts import (
    BUNDLE_DIGEST,
    DWI,
    FLAIR,
    GLIOMA,
    PATIENT,
    SELECTION,
    SURGERY,
    a_cohort,
    a_series,
    a_task,
    follow_ups,
)

APRIL, JULY, OCTOBER, JANUARY = date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1), date(2026, 1, 5)
THREE = (APRIL, JULY, OCTOBER)
NOW = datetime(2026, 1, 20, 12, 0, tzinfo=UTC)
CIRCUMSTANCES = Circumstances(patient=PATIENT, bundle_digest=BUNDLE_DIGEST)


def _decide(instances, *, task=GLIOMA, cohort=None, runs=(), now=NOW, **circumstances):
    cohort = cohort or a_cohort()
    line = build_time_line(instances, selection=SELECTION, task=task, cohort=cohort)
    return decide(line, task, cohort, runs, now, circumstances=replace(CIRCUMSTANCES, **circumstances))


def _codes(decision):
    return [reason.code for reason in decision.reasons]


def _a_run(due: Due, state: RunState, version: int = 1, **changes) -> RunFacts:
    run = RunFacts(
        run_key=due.run_key,
        inputs_key=due.inputs_key,
        task=GLIOMA.name,
        state=state,
        version=version,
        time_points=due.inputs.dates,
    )
    return replace(run, **changes)


def test_three_follow_ups_are_due_oldest_first() -> None:
    """The main path: inputs frozen by day, role, UID and content, instances by position."""
    due = _decide(follow_ups(*THREE[::-1]))
    assert isinstance(due, Due)
    assert due.inputs.dates == THREE
    assert [point.days_since_surgery for point in due.inputs.time_points] == [81, 172, 264]
    assert [series.role for point in due.inputs.time_points for series in point.series] == [Role.FLAIR] * 3
    assert (due.version, due.predecessor, due.correction, due.flags) == (1, None, False, ())
    assert Inputs.from_json(due.inputs.to_json()) == due.inputs


def test_two_follow_ups_wait_for_the_third_and_say_which_flair_is_missing() -> None:
    """The status page tells what is there and what is needed."""
    decision = _decide([*follow_ups(APRIL, JULY), *a_series(OCTOBER, DWI)])
    assert isinstance(decision, Waiting)
    assert [reason.text for reason in decision.reasons] == [
        "2 of 3 follow-ups; next due after 2025-07-15",
        "needs FLAIR on 2025-10-01",
    ]
    assert [(each.acquired_on, each.role) for each in decision.missing] == [(OCTOBER, Role.FLAIR)]


def test_a_flair_that_failed_its_gate_is_named_with_the_reason() -> None:
    """A failed gate is a reason, never a number."""
    decision = _decide([*follow_ups(APRIL, JULY), *a_series(OCTOBER, spacing_mm=9.0)])
    assert decision.reasons[1].text == "needs FLAIR on 2025-10-01 (slices 9.0 mm apart (at most 7 mm))"


def test_scans_before_and_just_after_surgery_do_not_count() -> None:
    """Pre-op and early post-op are not follow-ups."""
    around = follow_ups(SURGERY - timedelta(days=3), SURGERY, SURGERY + timedelta(days=1))
    decision = _decide([*around, *follow_ups(APRIL, JULY)])
    assert [reason.text for reason in decision.reasons] == ["2 of 3 follow-ups; next due after 2025-07-15"]


def test_the_last_six_are_used() -> None:
    """More than the model takes: the newest."""
    days = [date(2025, 2, 1) + timedelta(days=40 * number) for number in range(8)]
    due = _decide(follow_ups(*days))
    assert due.inputs.dates == tuple(days[2:])


@pytest.mark.parametrize(
    ("diagnosis", "code"),
    [("", "diagnosis-unknown"), ("  ", "diagnosis-unknown"), ("meningioma", "diagnosis"), ("Low-Grade Glioma", None)],
)
def test_only_whom_the_task_is_for(diagnosis, code) -> None:
    """An unknown diagnosis is not eligible; case does not count."""
    decision = _decide(follow_ups(*THREE), cohort=a_cohort(diagnosis=diagnosis))
    if code is None:
        assert isinstance(decision, Due)
    else:
        assert isinstance(decision, Ineligible)
        assert _codes(decision) == [code]


def test_a_knee_is_not_eligible() -> None:
    """A patient of whom only a knee was imaged neither waits nor asks the PACS."""
    decision = _decide(a_series(APRIL, {**FLAIR, "BodyPartExamined": "KNEE"}))
    assert isinstance(decision, Ineligible)
    assert _codes(decision) == ["body-part"]


@pytest.mark.parametrize(
    ("limits", "birth_date", "age", "code"),
    [
        ([0, 20], "20100203", "", None),
        ([0, 15], "20100203", "", None),  # 15 and a half
        ([0, 14], "20100203", "", "age"),
        ([18, 90], "20100203", "", "age"),
        ([18, 90], "", "", "age-unknown"),
        ([18, 90], "", "045Y", None),
        ([18, 90], "", "016M", "age"),
        ([18, 90], "garbage", "odd", "age-unknown"),
    ],
)
def test_age_at_the_newest_scan(limits, birth_date, age, code) -> None:
    """Birth date first, else Patient's Age; unknown is not eligible."""
    task = a_task(eligibility={"age_years": limits})
    instances = follow_ups(*THREE, attributes={**FLAIR, "PatientAge": age})
    decision = _decide(instances, task=task, patient=replace(PATIENT, birth_date=birth_date))
    assert _codes(decision) == [code or "due"]


def test_without_a_surgery_date_the_case_waits() -> None:
    """The date is asked for, unless the task says it needs none."""
    nobody = a_cohort(surgeries=())
    assert _codes(_decide(follow_ups(*THREE), cohort=nobody)) == ["surgery-date-unknown"]
    task = a_task(eligibility={"surgery": "not-needed"}, time_points={"kinds": ["unknown", "follow-up"]})
    assert isinstance(_decide(follow_ups(*THREE), task=task, cohort=nobody), Due)


def test_a_surgery_date_from_a_text_rule_is_confirmed_by_a_person() -> None:
    """A guess is shown as such and holds the case."""
    guessed = a_cohort(surgery_source="StudyDescription", surgery_confirmed=False)
    decision = _decide(follow_ups(*THREE), cohort=guessed)
    assert isinstance(decision, Held)
    told = "surgery date 2025-01-10 from StudyDescription is to be confirmed: `cohort confirm`"
    assert decision.reasons[0].text == told


def test_an_event_ends_surveillance() -> None:
    """From a recorded recurrence on nothing is computed; an event that is still to come is not known yet."""
    cohort = a_cohort(events=(Event(on=date(2025, 9, 1)),))
    decision = _decide(follow_ups(*THREE), cohort=cohort)
    assert isinstance(decision, Ended)
    assert decision.reasons[0].text == "recurrence on 2025-09-01"
    before = _decide(follow_ups(APRIL, JULY), cohort=cohort, now=datetime(2025, 8, 1, tzinfo=UTC))
    assert isinstance(before, Waiting)


def test_scans_on_or_after_an_event_are_never_inputs() -> None:
    """Even a forced choice leaves them out."""
    cohort = a_cohort(events=(Event(on=OCTOBER),))
    line = build_time_line(follow_ups(*THREE, JANUARY), selection=SELECTION, task=GLIOMA, cohort=cohort)
    choice = choose_time_points(line, GLIOMA, cohort, NOW.date())
    assert [point.acquired_on for point in choice.points] == [APRIL, JULY]
    assert [each.reason.code for each in choice.left_out] == ["after-event", "after-event"]


def test_an_event_before_the_anchoring_surgery_is_over() -> None:
    """The recurrence that led to the second operation does not end the surveillance after it."""
    cohort = a_cohort(
        surgeries=(Surgery(on=date(2024, 1, 1)), Surgery(on=SURGERY)), events=(Event(on=date(2024, 12, 1)),)
    )
    task = a_task(anchor="last")
    assert isinstance(_decide(follow_ups(*THREE), task=task, cohort=cohort), Due)


def test_an_admins_hold_and_identity_conflicts_hold_the_case() -> None:
    """Reasons name fields, never values."""
    hold = Reason(code="held-by-hand", text="held by hand")
    assert _codes(_decide(follow_ups(*THREE), hold=hold)) == ["held-by-hand"]
    conflict = Identity(state=IdentityState.CONFLICT, fields=("PatientBirthDate",))
    decision = _decide(follow_ups(*THREE), identity=conflict)
    assert isinstance(decision, Held)
    assert decision.reasons[0].text.startswith("studies differ in PatientBirthDate; see `patient show`")
    ask = Identity(state=IdentityState.ASK, fields=("PatientName",))
    assert "patient accept" in _decide(follow_ups(*THREE), identity=ask).reasons[0].text


def _clock(at: datetime) -> StudyClock:
    return StudyClock(burst_started_at=at, last_received_at=at)


def test_a_study_still_arriving_is_waited_for() -> None:
    """The quiet period says when to look again; a study of no matter to the task does not delay it."""
    instances = follow_ups(*THREE)
    newest = instances[-1].study_instance_uid
    arriving = {newest: _clock(NOW - timedelta(seconds=20))}
    decision = _decide(instances, received=arriving, quiet_period_s=60, max_wait_s=3600)
    assert isinstance(decision, Waiting)
    assert _codes(decision) == ["quiet-period"]
    assert decision.next_check_at == NOW + timedelta(seconds=40)
    assert isinstance(_decide(instances, received=arriving, quiet_period_s=20, max_wait_s=3600), Due)
    pre_op = a_series(SURGERY - timedelta(days=9), study="pre")
    arriving = {pre_op[0].study_instance_uid: _clock(NOW)}
    assert isinstance(_decide([*instances, *pre_op], received=arriving, quiet_period_s=60, max_wait_s=3600), Due)


def test_scans_too_near_to_the_next_are_skipped() -> None:
    """Of a repeated exam the newer counts."""
    decision = _decide(follow_ups(APRIL, JULY, JULY + timedelta(days=5)))
    assert [reason.text for reason in decision.reasons] == [
        "2 of 3 follow-ups; next due after 2025-07-20",
        "2025-07-01 is 5 days before the next (at least 14)",
    ]


def test_history_before_a_long_gap_is_not_used() -> None:
    """The model saw no such gap."""
    task = a_task(gates={"max_gap_days": 100})
    decision = _decide(follow_ups(APRIL, JULY, JANUARY), task=task)
    assert _codes(decision) == ["too-few-time-points", "before-gap", "before-gap"]


def test_fewer_are_allowed_by_config_and_flagged() -> None:
    """One scan is enough then, and the report says so."""
    due = _decide(follow_ups(OCTOBER), task=a_task(time_points={"allow_fewer": True}))
    assert isinstance(due, Due)
    assert [flag.code for flag in due.flags] == ["short-history"]


def test_a_newer_exam_that_cannot_be_used_holds_the_case() -> None:
    """Never stale: a risk that overlooks the newest exam is not sent."""
    instances = [*follow_ups(*THREE), *a_series(JANUARY, DWI)]
    decision = _decide(instances)
    assert isinstance(decision, Held)
    assert decision.reasons[0].text == "newer exam not used: needs FLAIR on 2026-01-05"


def test_a_newer_exam_is_named_where_the_task_says_so() -> None:
    """The other policy: report, and name it."""
    instances = [*follow_ups(*THREE), *a_series(JANUARY, DWI)]
    due = _decide(instances, task=a_task(gates={"newest_exam_unusable": "name"}))
    assert isinstance(due, Due)
    assert [flag.text for flag in due.flags] == ["newer exam not used: needs FLAIR on 2026-01-05"]


def test_a_newer_knee_does_not_hold_the_case() -> None:
    """An exam of another body part is no newer exam of the brain."""
    instances = [*follow_ups(*THREE), *a_series(JANUARY, {**FLAIR, "BodyPartExamined": "KNEE"})]
    assert isinstance(_decide(instances), Due)


def test_an_undated_exam_holds_the_case() -> None:
    """It might be the newest."""
    undated = a_series(JANUARY, acquired_on=None, acquired_time=None)
    assert _codes(_decide([*follow_ups(*THREE), *undated])) == ["undated-exam"]


def test_a_back_fill_whose_year_is_over_is_not_reported() -> None:
    """The horizon runs from the newest scan."""
    late = datetime(2026, 10, 2, tzinfo=UTC)
    decision = _decide(follow_ups(*THREE), now=late)
    assert isinstance(decision, Waiting)
    assert decision.reasons[0].text == "newest scan of 2025-10-01 is 366 days old (at most 365)"
    assert isinstance(_decide(follow_ups(*THREE), now=late - timedelta(days=1)), Due)


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING, RunState.REPORTED, RunState.WITHDRAWN])
def test_a_run_that_exists_is_not_made_again(state) -> None:
    """Same inputs, same key; a withdrawn run is a tombstone. Age does not matter any more."""
    due = _decide(follow_ups(*THREE))
    decision = _decide(follow_ups(*THREE), runs=[_a_run(due, state)], now=NOW + timedelta(days=900))
    assert isinstance(decision, UpToDate)
    assert _codes(decision) == [str(state)]
    assert decision.run_key == due.run_key


def test_a_failed_run_is_held_with_its_error() -> None:
    """A person retries it."""
    due = _decide(follow_ups(*THREE))
    decision = _decide(follow_ups(*THREE), runs=[_a_run(due, RunState.FAILED, error="out of memory")])
    assert isinstance(decision, Held)
    assert decision.reasons[0].text.startswith("run failed: out of memory")


def test_a_newer_scan_makes_a_new_report_that_names_the_older() -> None:
    """New days: the predecessor stays valid."""
    first = _decide(follow_ups(*THREE))
    second = _decide(follow_ups(*THREE, JANUARY), runs=[_a_run(first, RunState.REPORTED)])
    assert isinstance(second, Due)
    assert (second.version, second.predecessor, second.correction) == (2, first.run_key, False)


def test_a_late_series_corrects_the_report_of_the_same_days() -> None:
    """Same days, other inputs: a correction."""
    first = _decide(follow_ups(*THREE))
    late = a_series(OCTOBER, name="2", slices=140, spacing_mm=1.0)
    second = _decide([*follow_ups(*THREE), *late], runs=[_a_run(first, RunState.REPORTED)])
    assert (second.version, second.predecessor, second.correction) == (2, first.run_key, True)


def test_inputs_that_were_superseded_can_come_back() -> None:
    """What was never issued is no tombstone."""
    due = _decide(follow_ups(*THREE))
    again = _decide(follow_ups(*THREE), runs=[_a_run(due, RunState.SUPERSEDED)])
    assert isinstance(again, Due)


def test_the_run_key_names_patient_task_inputs_and_model() -> None:
    """A change of any of them is another run; a change of order is not possible, since inputs are ordered."""
    due = _decide(follow_ups(*THREE))
    key = {"bundle_digest": BUNDLE_DIGEST, "task_digest": GLIOMA.digest()}
    assert run_key(PATIENT.key, GLIOMA.name, due.inputs, **key) == due.run_key
    others = {
        run_key(("OTHER", PATIENT.patient_id), GLIOMA.name, due.inputs, **key),
        run_key(PATIENT.key, "other", due.inputs, **key),
        run_key(PATIENT.key, GLIOMA.name, due.inputs, **{**key, "bundle_digest": "sha256:1"}),
        run_key(PATIENT.key, GLIOMA.name, due.inputs, **{**key, "task_digest": "sha256:1"}),
    }
    changed = follow_ups(*THREE)
    changed[0] = replace(changed[0], content_digest="sha256:other")
    other_inputs = _decide(changed)
    assert inputs_key(other_inputs.inputs) != due.inputs_key
    assert len({due.run_key, other_inputs.run_key, *others}) == 6


def test_no_reason_and_no_explained_decision_holds_identity() -> None:
    """Texts go to status pages and logs: dates and roles only."""
    decisions = [
        _decide(follow_ups(*THREE)),
        _decide(follow_ups(APRIL)),
        _decide(follow_ups(*THREE), cohort=a_cohort(diagnosis="")),
        _decide(follow_ups(*THREE), identity=Identity(state=IdentityState.ASK, fields=("PatientName",))),
    ]
    for decision in decisions:
        assert "SENTINEL" not in repr(explain_decision(decision))


def test_an_explanation_tells_every_series_every_rule_and_every_choice() -> None:
    """`explain` and `timeline` need no more than this."""
    instances = [
        *follow_ups(*THREE),
        *a_series(JULY, DWI, name="2"),
        *a_series(JULY + timedelta(days=9), DWI, at=time(8)),
    ]
    line = build_time_line(instances, selection=SELECTION, task=GLIOMA, cohort=a_cohort())
    explained = explain_time_line(line, choose_time_points(line, GLIOMA, a_cohort(), NOW.date()))
    assert [each["used"] for each in explained["time_points"]] == [True, True, False, True]
    assert explained["time_points"][2]["left_out"]["code"] == "missing-role"
    series = explained["time_points"][1]["studies"][0]["series"]
    assert sorted(each["is"] for each in series) == ["DWI", "FLAIR"]
    assert all(each["rules"][-1]["matched"] for each in series)
    assert explain_decision(_decide(follow_ups(APRIL)))["state"] == "waiting"
