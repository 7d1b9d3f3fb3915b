"""Decide what is to be done for one case (patient, task): a pure function of what is known now.

The questions are asked in this order, and the first that is not satisfied decides: is the patient eligible, is
surveillance going on, does a person have to act first, is the surgery date known, has everything arrived, are there
enough time points, could the newest exam be used, does the run exist already, is its newest scan recent enough.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.admission import why_not_asked
from dicom_node.timeline.consistency import consistency_flags, radiotherapy_flags
from dicom_node.timeline.decision import Circumstances, Decision, Due, Held, UpToDate, Waiting
from dicom_node.timeline.model import Reason, RunState
from dicom_node.timeline.readiness import Question, ask, matters, passed_over, why_not_run
from dicom_node.timeline.run_key import inputs_key
from dicom_node.timeline.support import unsupported_reports

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime

    from dicom_node.timeline.choose import Choice
    from dicom_node.timeline.model import CohortFacts, RunFacts, TimeLine
    from dicom_node.timeline.task import Task


MOST_NAMED: Final = 6  # exams left out, in a report; `timeline` lists them all


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
    runs = tuple(runs)
    decision = why_not_asked(time_line, task, cohort, now, circumstances)
    if decision is None:
        question = ask(time_line, task, cohort, runs, now=now, circumstances=circumstances)
        decision = why_not_run(question) or _run(question)
    marks = unsupported_reports(time_line, runs)
    return replace(decision, reasons=(*decision.reasons, *marks)) if marks else decision


def _run(question: Question) -> Decision:
    """Say that the run of these inputs exists, is not worth making any more, or is due."""
    existing = question.existing
    if existing is not None:
        return _existing(existing, passed_over(question.reception.line, question.choice, question.task))
    inputs = question.inputs
    stale = _stale(question.task, inputs.dates[-1], question.now.date())
    if stale is not None:
        return Waiting(reasons=(stale,))
    runs = question.runs
    reported = [run for run in runs if run.state is RunState.REPORTED]
    last = max(reported, key=lambda run: run.version) if reported else None
    return Due(
        run_key=question.run_key,
        inputs_key=inputs_key(inputs),
        inputs=inputs,
        version=max((run.version for run in runs), default=0) + 1,
        flags=_flags(question),
        predecessor=last.run_key if last else None,
        correction=last is not None and last.time_points[-1] == inputs.dates[-1],
        reasons=(Reason(code="due", text=f"{len(inputs.time_points)} time points to {inputs.dates[-1].isoformat()}"),),
    )


def _existing(run: RunFacts, newer: tuple[Reason, ...]) -> Decision:
    """Say where the run of these inputs stands; exams that came after it and could not be used are named beside it."""
    if run.state is RunState.FAILED:
        text = f"run failed: {run.error or 'no reason recorded'}; `retry` after it is mended"
        return Held(reasons=(Reason(code="run-failed", text=text),))
    texts = {
        RunState.REPORTED: "reported, nothing newer",
        RunState.WITHDRAWN: "withdrawn or purged by hand; these inputs are not reported again",
    }
    reason = Reason(code=str(run.state), text=texts.get(run.state, str(run.state)))
    return UpToDate(run_key=run.run_key, reasons=(reason, *newer))


def _stale(task: Task, newest: date, today: date) -> Reason | None:
    limit = task.gates.max_age_of_newest_scan_days
    age_days = (today - newest).days
    if limit is None or age_days <= limit:
        return None
    text = f"newest scan of {newest.isoformat()} is {age_days} days old (at most {limit})"
    return Reason(code="newest-scan-too-old", text=text)


def _not_used(choice: Choice, task: Task) -> list[Reason]:
    """Name the exams among and before the used ones that were left out, the newest first, and count the rest."""
    newest = choice.points[-1].acquired_on
    texts = [
        each.reason.text
        for each in reversed(choice.left_out)
        if each.point.acquired_on <= newest
        and each.reason.code not in {"kind", "after-event"}
        and matters(each.point.studies, task)
    ]
    named = [Reason(code="exam-not-used", text=f"exam not used: {text}") for text in texts[:MOST_NAMED]]
    if len(texts) > MOST_NAMED:
        named.append(Reason(code="exam-not-used", text=f"{len(texts) - MOST_NAMED} further older exams not used"))
    return named


def _flags(question: Question) -> tuple[Reason, ...]:
    """Collect what the reader of the report must know of the inputs."""
    task, points, circumstances = question.task, question.choice.points, question.circumstances
    flags = [
        Reason(code=flag.code, text=f"{point.acquired_on.isoformat()}: {flag.text}")
        for point in points
        for flag in point.flags
    ]
    flags += consistency_flags(points, task)
    flags += radiotherapy_flags(points, question.cohort)
    flags += question.reception.flags
    flags += _not_used(question.choice, task)
    if len(points) < task.time_points.minimum:
        text = f"{len(points)} time points, fewer than the {task.time_points.minimum} asked for"
        flags.append(Reason(code="short-history", text=text))
    if circumstances.priors.failed or circumstances.priors.open:
        flags.append(Reason(code="priors-missing", text="not every older study could be fetched from the archives"))
    if circumstances.forced:
        flags += question.reception.waiting
        flags.append(Reason(code="forced", text="started by hand, not by the node"))
    return (*flags, *passed_over(question.reception.line, question.choice, question.task))
