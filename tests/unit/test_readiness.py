"""Never half a study: incomplete series, archives still to be asked, orders by hand, reports that lost their ground."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.completeness import ARCHIVE_HOLDS_MORE
from dicom_node.timeline.decide import decide
from dicom_node.timeline.decision import Circumstances, Decision, Due, Held, PriorsState, StudyClock, UpToDate, Waiting
from dicom_node.timeline.model import Reason, Role, RunFacts, RunState, TimeLine
from dicom_node.timeline.run_key import inputs_key
from tests.factories.facts import BUNDLE_DIGEST, GLIOMA, PATIENT, SELECTION, T1, a_cohort, a_series, a_task, follow_ups

if TYPE_CHECKING:
    from dicom_node.timeline.model import InstanceFacts
    from dicom_node.timeline.task import Task

NOW = datetime(2025, 10, 8, 12, tzinfo=UTC)
APRIL, JULY, OCTOBER = THREE = (date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1))
LONGEST_S = 3600.0


def a_line(
    instances: list[InstanceFacts], task: Task = GLIOMA, *, incomplete: dict[date, str] | None = None
) -> TimeLine:
    """Build a time line in which the FLAIR of some days is not all there, for the reason of that code."""
    line = build_time_line(instances, selection=SELECTION, task=task, cohort=a_cohort())
    points = []
    for point in line.time_points:
        code = (incomplete or {}).get(point.acquired_on)
        if code is not None:
            whole = point.chosen[Role.FLAIR]
            part = replace(whole, incomplete=Reason(code=code, text="20 of 24 slices"))
            studies = tuple(
                replace(study, series=tuple(part if each is whole else each for each in study.series))
                for study in point.studies
            )
            point = replace(point, studies=studies, chosen={Role.FLAIR: part})  # noqa: PLW2901 - the same, with a hole
        points.append(point)
    return replace(line, time_points=tuple(points))


def decided(line: TimeLine, *, task: Task = GLIOMA, runs: tuple[RunFacts, ...] = (), **circumstances: Any) -> Decision:
    """Decide on a line, by default with nothing arriving and nobody to ask."""
    usual = Circumstances(patient=PATIENT, bundle_digest=BUNDLE_DIGEST, quiet_period_s=60, max_wait_s=LONGEST_S)
    return decide(line, task, a_cohort(), runs, NOW, circumstances=replace(usual, **circumstances))


def codes(decision: Decision) -> list[str]:
    """Return the codes of the reasons."""
    return [reason.code for reason in decision.reasons]


def arrived(instances: list[InstanceFacts], ago: timedelta) -> dict[str, StudyClock]:
    """Say that the newest study came in one burst, so long ago."""
    at = NOW - ago
    return {instances[-1].study_instance_uid: StudyClock(burst_started_at=at, last_received_at=at)}


def a_report(due: Due, version: int = 1, **changes: Any) -> RunFacts:
    """Return the reported run of a due decision."""
    series = [each for point in due.inputs.time_points for each in point.series]
    run = RunFacts(
        run_key=due.run_key,
        inputs_key=inputs_key(due.inputs),
        task=GLIOMA.name,
        state=RunState.REPORTED,
        version=version,
        time_points=due.inputs.dates,
        instances=frozenset(instance.sop_instance_uid for each in series for instance in each.instances),
    )
    return replace(run, **changes)


def test_an_incomplete_series_is_waited_for_until_the_longest_wait_is_over() -> None:
    """The reason says what is missing and until when; time alone brings the next look."""
    instances = follow_ups(*THREE)
    line = a_line(instances, incomplete={OCTOBER: "gap"})
    decision = decided(line, received=arrived(instances, timedelta(minutes=10)))
    assert isinstance(decision, Waiting)
    assert codes(decision) == ["incomplete-series"]
    assert decision.next_check_at == NOW + timedelta(minutes=50)
    assert "FLAIR on 2025-10-01: 20 of 24 slices, waited for until" in decision.reasons[0].text


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("wait", Waiting), ("proceed", Due), ("discard", Waiting)],
)
def test_after_the_longest_wait_the_task_says_what_happens(policy: str, expected: type) -> None:
    """Wait on, proceed and say so, or leave the study out and say so (here two are left, too few)."""
    instances = follow_ups(*THREE)
    task = a_task(completeness={"when_overdue": policy})
    line = a_line(instances, task, incomplete={OCTOBER: "gap"})
    decision = decided(line, task=task, received=arrived(instances, timedelta(hours=2)))
    assert isinstance(decision, expected)
    if isinstance(decision, Due):
        assert [flag.code for flag in decision.flags] == ["incomplete-series"]
    elif policy == "discard":
        assert decision.reasons[0].text.startswith("2 of 3 follow-ups")
        assert "stayed incomplete and was left out" in decision.reasons[1].text
    else:
        assert codes(decision) == ["incomplete-series"]


def test_an_aborted_series_beside_a_complete_one_is_not_waited_for() -> None:
    """Scanners leave aborted series behind; only an archive that holds more of one is a reason to wait."""
    instances = [*follow_ups(*THREE), *a_series(OCTOBER, name="aborted", slices=23)]
    line = build_time_line(instances, selection=SELECTION, task=GLIOMA, cohort=a_cohort())
    received = arrived(instances, timedelta(minutes=10))

    def with_code(code: str) -> TimeLine:
        point = line.time_points[-1]
        part = point.candidates[1].series
        assert part is not point.chosen[Role.FLAIR]
        marked = replace(part, incomplete=Reason(code=code, text="23 of 24"))
        studies = tuple(
            replace(study, series=tuple(marked if each is part else each for each in study.series))
            for study in point.studies
        )
        return replace(line, time_points=(*line.time_points[:-1], replace(point, studies=studies)))

    assert isinstance(decided(with_code("gap"), received=received), Due)
    assert codes(decided(with_code(ARCHIVE_HOLDS_MORE), received=received)) == ["incomplete-series"]


def test_an_open_search_for_priors_is_waited_for_but_not_for_ever() -> None:
    """Two follow-ups or three: the archives are asked first, until the longest wait is over."""
    asked = PriorsState(open=True, since=NOW - timedelta(minutes=5), text="prior lookup at 12:00: under way")
    decision = decided(a_line(follow_ups(*THREE)), priors=asked)
    assert isinstance(decision, Waiting)
    assert (codes(decision), decision.reasons[0].text) == (["priors"], "prior lookup at 12:00: under way")
    assert decision.next_check_at == NOW + timedelta(minutes=55)
    late = replace(asked, since=NOW - timedelta(hours=2))
    due = decided(a_line(follow_ups(*THREE)), priors=late)
    assert isinstance(due, Due)
    assert [flag.code for flag in due.flags] == ["priors-missing"]
    patient = a_task(completeness={"priors_overdue": "wait"})
    assert isinstance(decided(a_line(follow_ups(*THREE), patient), task=patient, priors=late), Waiting)


def test_a_waiting_case_says_what_the_archives_answered() -> None:
    """`2 of 3 follow-ups; next due after ...; prior lookup at ...`."""
    over = PriorsState(text="prior lookup at 12:00: found 1, fetched 1", next_look_at=NOW + timedelta(hours=6))
    decision = decided(a_line(follow_ups(APRIL, JULY)), priors=over)
    assert isinstance(decision, Waiting)
    assert [reason.text for reason in decision.reasons] == [
        "2 of 3 follow-ups; next due after 2025-07-15",
        "prior lookup at 12:00: found 1, fetched 1",
    ]
    assert decision.next_check_at == NOW + timedelta(hours=6)


def test_a_forced_run_uses_what_there_is_and_says_so() -> None:
    """By hand, and for nobody who is not eligible; afterwards it counts as made."""
    line = a_line(follow_ups(APRIL, JULY))
    due = decided(line, forced=True)
    assert isinstance(due, Due)
    assert [flag.code for flag in due.flags] == ["short-history", "forced"]
    assert isinstance(decided(line, runs=(a_report(due),)), UpToDate)
    assert isinstance(decided(a_line([]), forced=True), Waiting)
    assert isinstance(decided(line, forced=True, hold=Reason(code="held-by-hand", text="held by hand")), Held)


def test_a_report_whose_scan_is_gone_is_replaced_or_named() -> None:
    """A rejected scan: with enough left, a correction takes its place; with too few, the old report is named."""
    four = follow_ups(date(2025, 2, 1), *THREE)
    first = decided(a_line(four))
    assert isinstance(first, Due)
    report = a_report(first)
    without_july = [each for each in four if each.acquired_on != JULY]
    decision = decided(a_line(without_july), runs=(report,))
    assert isinstance(decision, Due)
    assert decision.correction
    assert decision.predecessor == report.run_key
    assert "withdraw it" in decision.reasons[-1].text
    settled = decided(a_line(without_july), runs=(report, a_report(decision, version=2)))
    assert codes(settled) == ["reported"]
    too_few = decided(a_line(follow_ups(APRIL, OCTOBER)), runs=(report,))
    assert codes(too_few) == ["too-few-time-points", "report-unsupported"]
    assert "48 images" in too_few.reasons[1].text


def test_a_new_time_point_leaves_the_older_report_valid() -> None:
    """A correction answers for the same newest scan; a newer scan is a new answer."""
    first = decided(a_line(follow_ups(*THREE)))
    assert isinstance(first, Due)
    second = decided(a_line(follow_ups(*THREE, date(2025, 10, 20))), runs=(a_report(first),))
    assert isinstance(second, Due)
    assert (second.predecessor, second.correction) == (first.run_key, False)
    more_history = decided(a_line(follow_ups(date(2025, 2, 1), *THREE)), runs=(a_report(first),))
    assert isinstance(more_history, Due)
    assert more_history.correction


def test_an_unusable_exam_after_the_report_is_named_beside_it() -> None:
    """Where the task says `name`, the report that was issued before it cannot say so any more: the case does."""
    task = a_task(gates={"newest_exam_unusable": "name"})
    first = decided(a_line(follow_ups(*THREE), task), task=task)
    assert isinstance(first, Due)
    newer = [*follow_ups(*THREE), *a_series(date(2025, 10, 6), T1)]
    later = decided(a_line(newer, task), task=task, runs=(a_report(first),))
    assert isinstance(later, UpToDate)
    assert codes(later) == ["reported", "newer-exam-not-used"]


def test_the_report_names_the_exams_it_did_not_use() -> None:
    """One too near to the next, one with thick slices: both between the scans that were used."""
    near, thick = date(2025, 6, 25), date(2025, 5, 10)
    instances = [*follow_ups(*THREE, near), *a_series(thick, spacing_mm=12.0)]
    due = decided(a_line(instances))
    assert isinstance(due, Due)
    texts = [flag.text for flag in due.flags if flag.code == "exam-not-used"]
    assert len(texts) == 2
    assert "2025-06-25 is 6 days before the next" in texts[0]
    assert "needs FLAIR on 2025-05-10 (slices 12.0 mm apart" in texts[1]
