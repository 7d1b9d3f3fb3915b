"""Build a patient's time line from what the instances say. The order and number of their arrivals do not matter."""

from __future__ import annotations

from collections import Counter, defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.candidates import rank_candidates
from dicom_node.timeline.exams import NIGHT, exams_of
from dicom_node.timeline.kinds import kind_of
from dicom_node.timeline.model import Reason, Study, TimeLine, TimePoint
from dicom_node.timeline.series import describe_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from dicom_node.timeline.model import CohortFacts, InstanceFacts, Series
    from dicom_node.timeline.selection import Selection
    from dicom_node.timeline.task import Task

NOTHING_EXPECTED: Final[Mapping[str, int]] = MappingProxyType({})


def build_time_line(
    instances: Iterable[InstanceFacts],
    *,
    selection: Selection,
    task: Task,
    cohort: CohortFacts,
    expected: Mapping[str, int] = NOTHING_EXPECTED,
) -> TimeLine:
    """Group instances into series, studies and time points, and choose one series per role that the task asks for.

    Studies of one calendar day are one time point, except on a day of surgery.

    Args:
        instances: what is known, in any order, duplicates included.
        selection: what a series is.
        task: what is asked for.
        cohort: what the images do not say.
        expected: how many instances an archive says a series has, by Series Instance UID.
    """
    by_uid: dict[str, InstanceFacts] = {}
    for each in instances:
        known = by_uid.setdefault(each.sop_instance_uid, each)
        if known is not each and (each.content_digest, each.to_json()) < (known.content_digest, known.to_json()):
            by_uid[each.sop_instance_uid] = each
    exams = _studies(by_uid.values(), selection, task, expected)
    surgery_days = {surgery.on for surgery in cohort.surgeries}
    groups: dict[tuple[date, str], list[Study]] = defaultdict(list)
    for study in exams:
        if study.acquired_on is not None:
            apart = study.study_instance_uid if study.acquired_on in surgery_days else ""
            groups[study.acquired_on, apart].append(study)
    seen = Counter(study.study_instance_uid for study in exams)
    parted = frozenset(uid for uid, count in seen.items() if count > 1)
    points = [_time_point(day, group, task, cohort, parted=parted) for (day, _), group in groups.items()]
    return TimeLine(
        time_points=tuple(sorted(points, key=_position)),
        undated=tuple(study for study in exams if study.acquired_on is None),
    )


def _studies(
    instances: Iterable[InstanceFacts], selection: Selection, task: Task, expected: Mapping[str, int]
) -> list[Study]:
    """Group instances into studies, in order of UID; one that holds exams of days apart is told as several."""
    by_series: dict[tuple[str, str], list[InstanceFacts]] = defaultdict(list)
    for each in instances:
        by_series[each.study_instance_uid, each.series_instance_uid].append(each)
    by_study: dict[str, list[Series]] = defaultdict(list)
    for study_uid, series_uid in sorted(by_series):
        found = by_series[study_uid, series_uid]
        by_study[study_uid].extend(describe_series(found, selection, task, expected=expected.get(series_uid)))
    return [exam for study_uid, series in by_study.items() for exam in exams_of(study_uid, series)]


def _position(point: TimePoint) -> tuple[date, str, tuple[str, ...]]:
    clock = point.acquired_time.isoformat() if point.acquired_time else ""
    return point.acquired_on, clock, point.study_instance_uids


def _time_point(
    day: date, studies: Sequence[Study], task: Task, cohort: CohortFacts, *, parted: frozenset[str]
) -> TimePoint:
    series = [each for study in studies for each in study.series]
    candidates = rank_candidates(series, task)
    chosen = {candidate.role: candidate.series for candidate in candidates if candidate.rank == 0}
    times = [study.acquired_time for study in studies if study.acquired_time is not None]
    clock = min(times) if times else None
    return TimePoint(
        acquired_on=day,
        acquired_time=clock,
        kind=kind_of(day, clock, cohort.surgeries, task.anchor),
        studies=tuple(sorted(studies, key=lambda study: study.study_instance_uid)),
        chosen=chosen,
        candidates=candidates,
        excluded=tuple((each.series_instance_uid, each.excluded) for each in series if each.excluded is not None),
        flags=_flags(day, studies, list(chosen.values()), parted),
    )


def _flags(day: date, studies: Sequence[Study], chosen: Sequence[Series], parted: frozenset[str]) -> tuple[Reason, ...]:
    """Tell what the reader must know of the series that fill the roles of a day."""
    flags = []
    if len(studies) > 1:
        flags.append(Reason(code="merged-studies", text=f"{len(studies)} studies on one day"))
    if len({each.study_instance_uid for each in chosen}) > 1:
        roles = ", ".join(str(each.verdict.role) for each in chosen)
        flags.append(Reason(code="split-exam", text=f"{roles} are of several studies of this day"))
    usable = [each for study in studies for each in study.series if each.excluded is None]
    sources = sorted({each.acquired_from for each in usable} - {""})
    weak = [source for source in sources if source in {"SeriesDate", "StudyDate"}]
    if weak:
        flags.append(Reason(code="weak-date", text=f"no acquisition date; day from {', '.join(weak)}"))
    if parted & {study.study_instance_uid for study in studies}:
        flags.append(Reason(code="parted-study", text="one study holds scans of days apart; each counts on its own"))
    far = sorted({str(each.acquired_on) for each in chosen if each.acquired_on and abs(each.acquired_on - day) > NIGHT})
    if far:
        flags.append(Reason(code="far-apart", text=f"used with a series dated {', '.join(far)}"))
    return tuple(flags)
