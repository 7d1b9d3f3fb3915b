"""Which series of a time point fill its roles: the best of each, but rather all from one place than each from its own.

The best is decided by coverage, slice spacing, completeness, plane, resolution, and of equals the later, since what
failed is repeated. Where a day holds several studies, or a study several frames of reference (the patient left the
table in between), series of one frame of reference of one study are taken before those of one study, and these before
those of several: a split exam is put together only where no single study holds every required role.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from dicom_node.timeline.model import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dicom_node.timeline.model import Role, Series
    from dicom_node.timeline.task import Task

WHOLE_BRAIN_MM = 140.0  # more coverage than this is no better
COVERAGE_STEP_MM = 10.0  # coverages in one step count as equal

Key: TypeAlias = tuple[float | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Criterion:
    """One criterion of the ranking: what is compared (less is better), and how a loser is told from the winner."""

    key: Callable[[Series, str | None], float | str]
    tell: Callable[[Series, Series], str]


def rank_candidates(series: Sequence[Series], task: Task) -> tuple[Candidate, ...]:
    """Rank the usable series of a time point for each role that the task asks for; rank 0 fills the role."""
    plane = task.gates.preferred_plane
    of_role: dict[Role, list[Series]] = {role: [] for role in task.roles.wanted}
    for each in sorted(series, key=lambda each: _key(each, plane)):
        if each.excluded is None and each.verdict.role in of_role:
            of_role[each.verdict.role].append(each)
    chosen = _choose(of_role, task)
    return tuple(
        candidate for role, ranked in of_role.items() if ranked for candidate in _told(role, ranked, chosen[role], task)
    )


def _choose(of_role: Mapping[Role, Sequence[Series]], task: Task) -> dict[Role, Series]:
    """Choose one series per role, from as few places as the required roles allow."""
    widening: tuple[Callable[[Series], tuple[str, ...]], ...] = (_frame, _study, _anywhere)
    chosen: dict[Role, Series] = {}
    for number, place in enumerate(widening):
        best = _best_place(of_role, task, place)
        if best is not None:
            for wider in widening[number:]:  # an optional role may come from farther off
                for role, ranked in of_role.items():
                    near = [each for each in ranked if wider(each) == wider(best)]
                    if near:
                        chosen.setdefault(role, near[0])
            return chosen
    return {role: ranked[0] for role, ranked in of_role.items() if ranked}


def _best_place(
    of_role: Mapping[Role, Sequence[Series]], task: Task, place: Callable[[Series], tuple[str, ...]]
) -> Series | None:
    """Return a series of the place that holds every required role best, None where no place holds them all."""
    first: dict[tuple[str, ...], dict[Role, Series]] = defaultdict(dict)
    for role, ranked in of_role.items():
        for each in ranked:
            first[place(each)].setdefault(role, each)
    whole = [found for found in first.values() if all(role in found for role in task.roles.required)]
    if not whole:
        return None
    plane = task.gates.preferred_plane

    best = min(whole, key=lambda found: [_key(found[role], plane) for role in task.roles.required])
    return best[task.roles.required[0]]


def _frame(series: Series) -> tuple[str, ...]:
    return series.study_instance_uid, series.instances[0].frame_of_reference_uid


def _study(series: Series) -> tuple[str, ...]:
    return (series.study_instance_uid,)


def _anywhere(series: Series) -> tuple[str, ...]:  # noqa: ARG001 - one of three ways to name a place
    return ()


def _told(role: Role, ranked: Sequence[Series], chosen: Series, task: Task) -> list[Candidate]:
    """Put the chosen series first, and tell of every other what speaks against it."""
    others = [each for each in ranked if each is not chosen]
    plane = task.gates.preferred_plane
    candidates = [Candidate(role=role, series=chosen, rank=0, because=_figures(chosen))]
    for rank, each in enumerate(others, start=1):
        because = f"{_figures(each)}; {_why_not(each, chosen, plane)}"
        candidates.append(Candidate(role=role, series=each, rank=rank, because=because))
    return candidates


def _figures(series: Series) -> str:
    return (
        f"covers {series.coverage_mm:.0f} mm, slices {series.spacing_mm:.2f} mm apart, {series.plane}, "
        f"{series.in_plane_mm:.2f} mm in plane, {series.slices} slices"
    )


def _why_not(loser: Series, winner: Series, plane: str | None) -> str:
    """Tell the first criterion that the winner meets better, or that the loser lies in the wrong place."""
    for criterion in _CRITERIA:
        lost, won = criterion.key(loser, plane), criterion.key(winner, plane)
        if lost > won:  # type: ignore[operator]  # the values of one criterion are of one type
            return criterion.tell(loser, winner)
        if lost < won:  # type: ignore[operator]  # as above
            break
    if _study(loser) != _study(winner):
        return "of another study of this day than the series chosen together"
    return "of another frame of reference than the series chosen together"


def _key(series: Series, plane: str | None) -> Key:
    return tuple(criterion.key(series, plane) for criterion in _CRITERIA)


def _coverage(series: Series, _: str | None) -> float:
    return -(min(series.coverage_mm, WHOLE_BRAIN_MM) // COVERAGE_STEP_MM)


def _spacing(series: Series, _: str | None) -> float:
    return round(series.spacing_mm, 1)


def _incomplete(series: Series, _: str | None) -> float:
    return float(series.incomplete is not None)


def _other_plane(series: Series, plane: str | None) -> float:
    return float(plane is not None and series.plane != plane)


def _in_plane(series: Series, _: str | None) -> float:
    return round(series.in_plane_mm, 1)


def _earlier(series: Series, _: str | None) -> float:
    """Return minus the seconds since year 1, since the later is better; an unknown time is the day's beginning."""
    day, clock = series.acquired_on, series.acquired_time
    seconds = clock.hour * 3600 + clock.minute * 60 + clock.second if clock else 0
    return -float(day.toordinal() * 86_400 + seconds) if day else 0.0


def _uid(series: Series, _: str | None) -> str:
    return series.series_instance_uid


_CRITERIA: tuple[_Criterion, ...] = (
    _Criterion(
        key=_coverage,
        tell=lambda lost, won: f"covers {won.coverage_mm - lost.coverage_mm:.0f} mm less than the chosen",
    ),
    _Criterion(
        key=_spacing, tell=lambda lost, won: f"{lost.spacing_mm - won.spacing_mm:.1f} mm thicker slices than the chosen"
    ),
    _Criterion(key=_incomplete, tell=lambda lost, _: f"incomplete: {lost.incomplete.text if lost.incomplete else ''}"),
    _Criterion(key=_other_plane, tell=lambda lost, won: f"{lost.plane}, where {won.plane} is preferred"),
    _Criterion(
        key=_in_plane, tell=lambda lost, won: f"{lost.in_plane_mm - won.in_plane_mm:.1f} mm coarser than the chosen"
    ),
    _Criterion(key=_earlier, tell=lambda _, __: "acquired before the chosen, which is taken as its repetition"),
    _Criterion(key=_uid, tell=lambda _, __: "equal to the chosen; the order of the UIDs decides"),
)
