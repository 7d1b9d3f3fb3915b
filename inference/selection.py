"""Which scans of a patient a model is shown: one rule for the node, for training and for evaluation.

A scan counts if it lies before the event, is of a kind that the rule names, and has every role. Of those that count,
the newest are shown, or some that spread evenly over the whole history, with the gaps between them within limits. A
bundle pins the rule that its network was trained under, so that a node can see whether its task asks the same.

What depends on labels (how far back a censored patient is looked at from) or on reading DICOM (what a scan's day, kind
and roles are) is the caller's. Pure Python: no torch, no numpy, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from inference.bundle_parts import Part
from inference.thin import thin_evenly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

Days = Annotated[int, Field(ge=0)]


class Code(StrEnum):
    """What became of a scan."""

    KEPT = "kept"
    AFTER_EVENT = "after-event"  # on its day, or later
    KIND = "kind"
    MISSING_ROLE = "missing-role"
    OLDER = "older"  # than the newest `maximum`
    BEFORE_GAP = "before-gap"  # beyond a gap that is too long, or farther back than scans reach
    TOO_NEAR = "too-near"  # to one that is kept
    THINNED = "thinned"


class SelectionRule(Part):
    """Which scans count, how many of them are shown, and which."""

    roles: tuple[str, ...] = ()  # all of them at every scan
    kinds: tuple[str, ...] = ()  # "follow-up", ...; empty: any
    maximum: Annotated[int, Field(ge=1)] | None = None  # None: all
    choose: Literal["last", "spread"] = "last"  # the newest, or evenly thinned, the oldest and the newest kept
    min_gap_days: Days = 0
    max_gap_days: Days | None = None  # None: no limit

    @model_validator(mode="after")
    def _possible(self) -> SelectionRule:
        """Refuse limits that no two scans can keep."""
        if self.max_gap_days is not None and self.max_gap_days < self.min_gap_days:
            msg = f"max_gap_days: expected at least min_gap_days ({self.min_gap_days}), found {self.max_gap_days}"
            raise ValueError(msg)
        if self.choose == "spread" and self.maximum == 1:
            msg = "choose: spread keeps the oldest and the newest; expected a maximum of 2 or more, found 1"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One scan as the rule sees it."""

    day: date
    kind: str = ""
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a scan, with the numbers that tell why.

    `gap_days` is the gap that broke a limit: of `too-near`, the days to the scan kept that is nearest; of `before-gap`,
    where the newest are chosen, the gap that lies between. `missing` are the roles it lacks, in the rule's order.
    """

    code: Code
    gap_days: int | None = None
    missing: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Return whether the model is shown the scan."""
        return self.code is Code.KEPT


_KEPT = Verdict(code=Code.KEPT)


def select(candidates: Sequence[Candidate], rule: SelectionRule, *, event: date | None) -> tuple[Verdict, ...]:
    """Return what becomes of each scan.

    Args:
        candidates: oldest first; a day may stand twice.
        rule: which count, and which of those are shown.
        event: scans on this day or later are never shown.
    """
    verdicts = [_unusable(each, rule, event) for each in candidates]
    places = [place for place, refused in enumerate(verdicts) if refused is None]
    pick = _spread if rule.choose == "spread" else _newest
    picked = dict(zip(places, pick([candidates[place].day for place in places], rule), strict=True))
    return tuple(refused or picked[place] for place, refused in enumerate(verdicts))


def _unusable(scan: Candidate, rule: SelectionRule, event: date | None) -> Verdict | None:
    """Return why a scan does not count, None if it does."""
    if event is not None and scan.day >= event:
        return Verdict(code=Code.AFTER_EVENT)
    if rule.kinds and scan.kind not in rule.kinds:
        return Verdict(code=Code.KIND)
    if missing := tuple(role for role in rule.roles if role not in scan.roles):
        return Verdict(code=Code.MISSING_ROLE, missing=missing)
    return None


def _newest(days: Sequence[date], rule: SelectionRule) -> list[Verdict]:
    """Walk from the newest day back, keeping the gaps, until there are enough."""
    verdicts: list[Verdict] = []
    kept = 0
    oldest: date | None = None  # of those kept
    broken: Verdict | None = None  # once a gap was too long, nothing before it is shown
    for day in reversed(days):
        gap_days = 0 if oldest is None else (oldest - day).days
        if kept == rule.maximum:
            verdict = Verdict(code=Code.OLDER)
        elif broken is not None:
            verdict = broken
        elif oldest is not None and gap_days < rule.min_gap_days:
            verdict = Verdict(code=Code.TOO_NEAR, gap_days=gap_days)
        elif rule.max_gap_days is not None and gap_days > rule.max_gap_days:
            verdict = broken = Verdict(code=Code.BEFORE_GAP, gap_days=gap_days)
        else:
            verdict, kept, oldest = _KEPT, kept + 1, day
        verdicts.append(verdict)
    return verdicts[::-1]


def _spread(days: Sequence[date], rule: SelectionRule) -> list[Verdict]:
    """Thin the days evenly, and say of each that falls out why."""
    maximum = len(days) if rule.maximum is None else rule.maximum
    places = thin_evenly(days, maximum=maximum, min_gap_days=rule.min_gap_days, max_gap_days=rule.max_gap_days)
    kept = [days[place] for place in places]
    return [_KEPT if place in places else _thinned(day, kept, rule) for place, day in enumerate(days)]


def _thinned(day: date, kept: Sequence[date], rule: SelectionRule) -> Verdict:
    """Return why a day is not among those kept, which ascend."""
    nearest_days = min(abs((each - day).days) for each in kept)
    if nearest_days < rule.min_gap_days:
        return Verdict(code=Code.TOO_NEAR, gap_days=nearest_days)
    if day < kept[0] and rule.max_gap_days is not None:
        return Verdict(code=Code.BEFORE_GAP)
    return Verdict(code=Code.THINNED)
