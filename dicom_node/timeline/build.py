"""Build a patient's time line from what the instances say. The order and number of their arrivals do not matter."""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.kinds import kind_of
from dicom_node.timeline.model import Candidate, Reason, Role, Study, TimeLine, TimePoint
from dicom_node.timeline.series import acquired, describe_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from dicom_node.timeline.model import CohortFacts, InstanceFacts, Series
    from dicom_node.timeline.selection import Selection
    from dicom_node.timeline.task import Task

WHOLE_BRAIN_MM = 140.0  # more coverage than this is no better
COVERAGE_STEP_MM = 10.0  # nearer than this, two coverages count as equal
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
    studies = _studies(by_uid.values(), selection, task, expected)
    surgery_days = {surgery.on for surgery in cohort.surgeries}
    groups: dict[tuple[date, str], list[Study]] = defaultdict(list)
    for study in studies:
        if study.acquired_on is not None:
            apart = study.study_instance_uid if study.acquired_on in surgery_days else ""
            groups[study.acquired_on, apart].append(study)
    points = [_time_point(day, group, task, cohort) for (day, _), group in groups.items()]
    return TimeLine(
        time_points=tuple(sorted(points, key=_position)),
        undated=tuple(study for study in studies if study.acquired_on is None),
    )


def _studies(
    instances: Iterable[InstanceFacts], selection: Selection, task: Task, expected: Mapping[str, int]
) -> list[Study]:
    """Group instances into studies, in order of UID."""
    by_series: dict[tuple[str, str], list[InstanceFacts]] = defaultdict(list)
    for each in instances:
        by_series[each.study_instance_uid, each.series_instance_uid].append(each)
    by_study: dict[str, list[Series]] = defaultdict(list)
    for study_uid, series_uid in sorted(by_series):
        found = by_series[study_uid, series_uid]
        by_study[study_uid].append(describe_series(found, selection, task, expected=expected.get(series_uid)))
    studies = []
    for study_uid, series in by_study.items():
        day, clock, _ = acquired(instance for each in series for instance in each.instances)
        studies.append(Study(study_instance_uid=study_uid, series=tuple(series), acquired_on=day, acquired_time=clock))
    return studies


def _position(point: TimePoint) -> tuple[date, str, tuple[str, ...]]:
    clock = point.acquired_time.isoformat() if point.acquired_time else ""
    return point.acquired_on, clock, point.study_instance_uids


def _time_point(day: date, studies: Sequence[Study], task: Task, cohort: CohortFacts) -> TimePoint:
    series = [each for study in studies for each in study.series]
    usable = [each for each in series if each.excluded is None]
    candidates = [
        candidate for role in task.roles.wanted for candidate in _candidates(role, usable, task.gates.preferred_plane)
    ]
    times = [study.acquired_time for study in studies if study.acquired_time is not None]
    clock = min(times) if times else None
    return TimePoint(
        acquired_on=day,
        acquired_time=clock,
        kind=kind_of(day, clock, cohort.surgeries, task.anchor),
        studies=tuple(sorted(studies, key=lambda study: study.study_instance_uid)),
        chosen={candidate.role: candidate.series for candidate in candidates if candidate.rank == 0},
        candidates=tuple(candidates),
        excluded=tuple((each.series_instance_uid, each.excluded) for each in series if each.excluded is not None),
        flags=_flags(studies, series),
    )


def _flags(studies: Sequence[Study], series: Sequence[Series]) -> tuple[Reason, ...]:
    flags = []
    if len(studies) > 1:
        flags.append(Reason(code="merged-studies", text=f"{len(studies)} studies on one day"))
    sources = sorted({each.acquired_from for each in series if each.excluded is None} - {""})
    weak = [source for source in sources if source in {"SeriesDate", "StudyDate"}]
    if weak:
        flags.append(Reason(code="weak-date", text=f"no acquisition date; day from {', '.join(weak)}"))
    return tuple(flags)


def _candidates(role: Role, usable: Sequence[Series], preferred_plane: str | None) -> list[Candidate]:
    """Rank the series of a role, best first."""
    ranked = sorted(
        (each for each in usable if each.verdict.role is role), key=lambda each: _rank(each, preferred_plane)
    )
    return [
        Candidate(
            role=role,
            series=each,
            rank=rank,
            because=f"covers {each.coverage_mm:.0f} mm, slices {each.spacing_mm:.2f} mm apart, {each.plane}, "
            f"{each.in_plane_mm:.2f} mm in plane, {each.slices} slices",
        )
        for rank, each in enumerate(ranked)
    ]


def _rank(series: Series, preferred_plane: str | None) -> tuple[object, ...]:
    """Coverage, thickness, completeness, plane, resolution; of a repeated acquisition the later; then the UID."""
    whole = min(series.coverage_mm, WHOLE_BRAIN_MM) // COVERAGE_STEP_MM
    clock = series.acquired_time
    later = -(clock.hour * 3600 + clock.minute * 60 + clock.second) if clock else 0
    return (
        -whole,
        round(series.spacing_mm, 1),
        series.incomplete is not None,
        preferred_plane is not None and series.plane != preferred_plane,
        round(series.in_plane_mm, 1),
        later,
        series.series_instance_uid,
    )
