"""Whether a run may be made now: has everything arrived, is there enough, is a newer exam passed over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dicom_node.timeline.choose import Choice, LeftOut, choose_time_points
from dicom_node.timeline.completeness import Reception, judge_reception
from dicom_node.timeline.decision import Circumstances, Decision, Held, Missing, Waiting
from dicom_node.timeline.model import CohortFacts, Inputs, Reason, RunFacts, RunState, TimePointKind
from dicom_node.timeline.run_key import freeze_inputs, run_key
from dicom_node.timeline.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dicom_node.timeline.model import Study, TimeLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the later questions are asked of: the scans that would go in, and the run that they make or made."""

    task: Task
    cohort: CohortFacts
    runs: tuple[RunFacts, ...]
    now: datetime
    circumstances: Circumstances
    reception: Reception
    choice: Choice
    inputs: Inputs
    run_key: str
    existing: RunFacts | None  # the run of these very inputs, if it was made and still counts

    @property
    def lacking(self) -> list[LeftOut]:
        """The time points that lack a role."""
        return [each for each in self.choice.left_out if each.reason.code == "missing-role"]


def ask(
    time_line: TimeLine,
    task: Task,
    cohort: CohortFacts,
    runs: tuple[RunFacts, ...],
    *,
    now: datetime,
    circumstances: Circumstances,
) -> Question:
    """Choose the scans and name their run."""
    reception = judge_reception(time_line, task, circumstances, now)
    choice = choose_time_points(reception.line, task, cohort, now.date())
    inputs = freeze_inputs(choice.points, task, cohort)
    key = run_key(
        circumstances.patient.key,
        task.name,
        inputs,
        bundle_digest=circumstances.bundle_digest,
        task_digest=task.digest(),
    )
    return Question(
        task=task,
        cohort=cohort,
        runs=runs,
        now=now,
        circumstances=circumstances,
        reception=reception,
        choice=choice,
        inputs=inputs,
        run_key=key,
        existing=next((run for run in runs if run.run_key == key and run.state is not RunState.SUPERSEDED), None),
    )


def why_not_run(question: Question) -> Decision | None:
    """Ask whether everything has arrived, is enough, and is not passed over by a newer exam."""
    forced = question.circumstances.forced and bool(question.choice.points)
    if forced:
        return None
    waiting = _still_coming(question)
    if waiting is not None:
        return waiting
    count = _count(question)
    if count is not None and question.existing is None:  # else it was started by hand: what there is was enough
        others = [each for each in question.choice.left_out if each.reason.code in {"too-near", "before-gap"}]
        reasons = (count, *_told(question), *(each.reason for each in (*question.lacking, *others)))
        next_look_at = question.circumstances.priors.next_look_at
        return Waiting(reasons=reasons, next_check_at=next_look_at, missing=_missing(question.lacking))
    newer = passed_over(question.reception.line, question.choice, question.task)
    if newer and question.task.gates.newest_exam_unusable == "hold":
        return Held(reasons=newer)
    return None


def _still_coming(question: Question) -> Waiting | None:
    """Ask whether instances, or older studies from an archive, are on their way."""
    reception, priors = question.reception, question.circumstances.priors
    count = _count(question)
    counted = (count,) if count else ()
    if reception.waiting:
        return Waiting(
            reasons=(*reception.waiting, *counted, *_told(question)),
            next_check_at=reception.next_check_at,
            missing=_missing(question.lacking),
        )
    if not priors.open or question.existing is not None:
        return None
    overdue_at = _priors_overdue_at(question)
    if overdue_at is not None and overdue_at <= question.now:
        return None
    reason = Reason(code="priors", text=priors.text or "older studies are being looked up")
    checks = [at for at in (overdue_at, priors.next_look_at) if at is not None and at > question.now]
    return Waiting(
        reasons=(reason, *counted), next_check_at=min(checks, default=None), missing=_missing(question.lacking)
    )


def _priors_overdue_at(question: Question) -> datetime | None:
    """Return when the archives have been waited for long enough, None if there is no end."""
    since = question.circumstances.priors.since
    if question.task.completeness.priors_overdue == "wait" or since is None:
        return None
    return since + timedelta(seconds=question.circumstances.max_wait_s)


def _told(question: Question) -> tuple[Reason, ...]:
    """Say how the search for older studies stands, where there is one."""
    text = question.circumstances.priors.text
    return (Reason(code="priors", text=text),) if text else ()


def _count(question: Question) -> Reason | None:
    """Say how many time points there are and when a further one would count, if they are too few."""
    task, points = question.task, question.choice.points
    needed = 1 if task.time_points.allow_fewer else task.time_points.minimum
    if len(points) >= needed:
        return None
    kinds = task.time_points.kinds
    noun = f"{kinds[0]}s" if len(kinds) == 1 and kinds[0] is not TimePointKind.UNKNOWN else "time points"
    text = f"{len(points)} of {needed} {noun}"
    if points:
        next_day = points[-1].acquired_on + timedelta(days=task.gates.min_gap_days)
        text += f"; next due after {next_day.isoformat()}"
    return Reason(code="too-few-time-points", text=text)


def passed_over(time_line: TimeLine, choice: Choice, task: Task) -> tuple[Reason, ...]:
    """Name the exams newer than the newest used scan, and those without a date (invariant: never stale)."""
    newest = choice.points[-1].acquired_on
    reasons = [
        Reason(code="newer-exam-not-used", text=f"newer exam not used: {each.reason.text}")
        for each in choice.left_out
        if each.point.acquired_on > newest and matters(each.point.studies, task)
    ]
    if matters(time_line.undated, task):
        reasons.append(Reason(code="undated-exam", text=f"exams without a date: {len(time_line.undated)}"))
    return tuple(reasons)


def matters(studies: Sequence[Study], task: Task) -> bool:
    """Tell whether any series is of the body part that the task is about, or may be.

    Where the body part is not told, a series counts if it could fill a role that every time point needs.
    """
    return any(
        each.excluded is None
        or (each.excluded.code == "body-part-unknown" and each.verdict.role in task.roles.required)
        or not each.excluded.code.startswith("body-part")
        for study in studies
        for each in study.series
    )


def _missing(lacking: Iterable[LeftOut]) -> tuple[Missing, ...]:
    return tuple(missing for each in lacking for missing in each.missing)
