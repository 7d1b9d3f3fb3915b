"""Decide what is to be done for one case (patient, task): a pure function of what is known now.

The questions are asked in this order, and the first that is not satisfied decides: is the patient eligible, is
surveillance going on, does a person have to act first, is the surgery date known, has everything arrived, are there
enough time points, could the newest exam be used, does the run exist already, is its newest scan recent enough.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dicom_node.timeline.choose import Choice, LeftOut, choose_time_points, ending_event
from dicom_node.timeline.decision import (
    Circumstances,
    Decision,
    Due,
    Ended,
    Held,
    Ineligible,
    Missing,
    UpToDate,
    Waiting,
)
from dicom_node.timeline.eligibility import why_ineligible
from dicom_node.timeline.identity import IdentityState
from dicom_node.timeline.model import Reason, RunState, TimePointKind
from dicom_node.timeline.run_key import freeze_inputs, inputs_key, run_key
from dicom_node.timeline.task import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from dicom_node.timeline.model import CohortFacts, RunFacts, Study, TimeLine
    from dicom_node.timeline.task import Task

ON_THEIR_WAY = frozenset({RunState.QUEUED, RunState.RUNNING})


def decide(
    time_line: TimeLine,
    task: Task,
    cohort: CohortFacts,
    runs: Iterable[RunFacts],
    now: datetime,
    *,
    circumstances: Circumstances,
) -> Decision:
    """Decide for one case.

    Args:
        time_line: built for this task and cohort.
        task: the question.
        cohort: what the images do not say.
        runs: earlier runs of this task for this patient.
        now: tz-aware; its calendar day is compared with the scanners' days.
        circumstances: who the patient is, which model would run, what is still arriving.
    """
    early = _before_choosing(time_line, task, cohort, now, circumstances)
    if early is not None:
        return early
    choice = choose_time_points(time_line, task, cohort, now.date())
    late = _before_running(time_line, task, choice, now, circumstances)
    if late is not None:
        return late
    return _run(
        choice, task, cohort, tuple(runs), now, circumstances=circumstances, named=_passed_over(time_line, choice)
    )


def _before_choosing(
    time_line: TimeLine, task: Task, cohort: CohortFacts, now: datetime, circumstances: Circumstances
) -> Decision | None:
    """Ask what does not depend on the single scans."""
    ineligible = why_ineligible(time_line, task, cohort, circumstances.patient, now.date())
    if ineligible:
        return Ineligible(reasons=ineligible)
    event = ending_event(task, cohort, now.date())
    if event is not None:
        return Ended(reasons=(Reason(code="event", text=f"{event.kind} on {event.on.isoformat()}"),))
    if circumstances.hold is not None:
        return Held(reasons=(circumstances.hold,))
    identity = circumstances.identity
    if identity.state is not IdentityState.CLEAR:
        code = "identity-conflict" if identity.state is IdentityState.CONFLICT else "identity-name"
        advice = "" if identity.state is IdentityState.CONFLICT else "; one human? then `patient accept`"
        text = f"studies differ in {', '.join(identity.fields)}{advice}"
        return Held(reasons=(Reason(code=code, text=text),))
    return _surgery(task, cohort)


def _surgery(task: Task, cohort: CohortFacts) -> Decision | None:
    if task.eligibility.surgery is not Requirement.REQUIRED:
        return None
    if not cohort.surgeries:
        return Waiting(reasons=(Reason(code="surgery-date-unknown", text="surgery date unknown"),))
    if not cohort.surgery_confirmed:
        text = f"surgery date from {cohort.surgery_source} is to be confirmed in the cohort"
        return Held(reasons=(Reason(code="surgery-date-unconfirmed", text=text),))
    return None


def _before_running(
    time_line: TimeLine, task: Task, choice: Choice, now: datetime, circumstances: Circumstances
) -> Decision | None:
    """Ask whether everything has arrived, is enough, and is not passed over by a newer exam."""
    lacking = [each for each in choice.left_out if each.reason.code == "missing-role"]
    count = _count(task, choice)
    quiet_at = _quiet_at(time_line, task, circumstances)
    if quiet_at is not None and quiet_at > now:
        text = f"still arriving; next look at {quiet_at.isoformat(timespec='seconds')}"
        reasons = (Reason(code="quiet-period", text=text), *((count,) if count else ()))
        return Waiting(reasons=reasons, next_check_at=quiet_at, missing=_missing(lacking))
    if count is not None:
        others = [each for each in choice.left_out if each.reason.code in {"too-near", "before-gap"}]
        reasons = (count, *(each.reason for each in (*lacking, *others)))
        return Waiting(reasons=reasons, missing=_missing(lacking))
    passed_over = _passed_over(time_line, choice)
    if passed_over and task.gates.newest_exam_unusable == "hold":
        return Held(reasons=passed_over)
    return None


def _count(task: Task, choice: Choice) -> Reason | None:
    """Say how many time points there are, if they are too few."""
    needed = 1 if task.time_points.allow_fewer else task.time_points.minimum
    if len(choice.points) >= needed:
        return None
    kinds = task.time_points.kinds
    noun = f"{kinds[0]}s" if len(kinds) == 1 and kinds[0] is not TimePointKind.UNKNOWN else "time points"
    return Reason(code="too-few-time-points", text=f"{len(choice.points)} of {needed} {noun}")


def _quiet_at(time_line: TimeLine, task: Task, circumstances: Circumstances) -> datetime | None:
    """Return when the last study that matters will have been quiet for long enough."""
    quiet = timedelta(seconds=circumstances.quiet_period_s)
    relevant = {
        study.study_instance_uid
        for point in time_line.time_points
        if point.kind in task.time_points.kinds
        for study in point.studies
    } | {study.study_instance_uid for study in time_line.undated}
    longest = timedelta(seconds=circumstances.max_wait_s)
    times = [
        min(each.last_received_at + quiet, each.burst_started_at + longest)
        for uid, each in circumstances.received.items()
        if uid in relevant
    ]
    return max(times) if times else None


def _passed_over(time_line: TimeLine, choice: Choice) -> tuple[Reason, ...]:
    """Name the exams newer than the newest used scan, and those without a date (invariant: never stale)."""
    newest = choice.points[-1].acquired_on
    reasons = [
        Reason(code="newer-exam-not-used", text=f"newer exam not used: {each.reason.text}")
        for each in choice.left_out
        if each.point.acquired_on > newest and _matters(each.point.studies)
    ]
    if _matters(time_line.undated):
        reasons.append(Reason(code="undated-exam", text=f"exams without a date: {len(time_line.undated)}"))
    return tuple(reasons)


def _matters(studies: Sequence[Study]) -> bool:
    """Tell whether any series is of the body part that the task is about."""
    excluded = [series.excluded for study in studies for series in study.series]
    return any(reason is None or reason.code != "body-part" for reason in excluded)


def _run(
    choice: Choice,
    task: Task,
    cohort: CohortFacts,
    runs: tuple[RunFacts, ...],
    now: datetime,
    *,
    circumstances: Circumstances,
    named: tuple[Reason, ...],
) -> Decision:
    """Say that the run of these inputs exists, is not worth making any more, or is due."""
    inputs = freeze_inputs(choice.points, task, cohort)
    key = run_key(
        circumstances.patient.key,
        task.name,
        inputs,
        bundle_digest=circumstances.bundle_digest,
        task_digest=task.digest(),
    )
    existing = next((run for run in runs if run.run_key == key), None)
    if existing is not None and existing.state is not RunState.SUPERSEDED:
        return _existing(existing)
    stale = _stale(task, inputs.dates[-1], now.date())
    if stale is not None:
        return Waiting(reasons=(stale,))
    reported = [run for run in runs if run.state is RunState.REPORTED]
    last = max(reported, key=lambda run: run.version) if reported else None
    return Due(
        run_key=key,
        inputs_key=inputs_key(inputs),
        inputs=inputs,
        version=max((run.version for run in runs), default=0) + 1,
        flags=(*_flags(choice, task), *named),
        predecessor=last.run_key if last else None,
        correction=last is not None and last.time_points == inputs.dates,
        supersedes=tuple(sorted(run.run_key for run in runs if run.state in ON_THEIR_WAY)),
        reasons=(Reason(code="due", text=f"{len(inputs.time_points)} time points to {inputs.dates[-1].isoformat()}"),),
    )


def _existing(run: RunFacts) -> Decision:
    if run.state is RunState.FAILED:
        text = f"run failed: {run.error or 'no reason recorded'}; `retry` after it is mended"
        return Held(reasons=(Reason(code="run-failed", text=text),))
    texts = {
        RunState.REPORTED: "reported, nothing newer",
        RunState.WITHDRAWN: "withdrawn by hand; these inputs are not reported again",
    }
    reason = Reason(code=str(run.state), text=texts.get(run.state, str(run.state)))
    return UpToDate(run_key=run.run_key, reasons=(reason,))


def _stale(task: Task, newest: date, today: date) -> Reason | None:
    limit = task.gates.max_age_of_newest_scan_days
    age_days = (today - newest).days
    if limit is None or age_days <= limit:
        return None
    text = f"newest scan of {newest.isoformat()} is {age_days} days old (at most {limit})"
    return Reason(code="newest-scan-too-old", text=text)


def _flags(choice: Choice, task: Task) -> tuple[Reason, ...]:
    """Collect what the reader of the report must know of the inputs."""
    flags = [
        Reason(code=flag.code, text=f"{point.acquired_on.isoformat()}: {flag.text}")
        for point in choice.points
        for flag in point.flags
    ]
    if len(choice.points) < task.time_points.minimum:
        text = f"{len(choice.points)} time points, fewer than the {task.time_points.minimum} asked for"
        flags.append(Reason(code="short-history", text=text))
    return tuple(flags)


def _missing(lacking: Iterable[LeftOut]) -> tuple[Missing, ...]:
    return tuple(missing for each in lacking for missing in each.missing)
