"""Which scans of a patient a model is shown, and which label they get; why each of the others is left out.

The rule is the node's, and decided where the node's is (`inference.selection`): scans of one role, of one kind
(follow-ups), before the event, the newest six. What only training needs comes on top: the label of the newest scan
shown must be known, so that a patient censored too early is looked at from an older scan, the newest with a whole
horizon of follow-up behind it.

Source: the later practice of the group behind Tak et al., NEJM AI 2025 (repository LongitudinalEFS), re-implemented
from its description. It takes scans from the second day after surgery on (`post-op` here); our default is the node's
`follow-up`, because early scans show the operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

from inference.selection import Candidate, Code, SelectionRule, Verdict, select
from inference.training.cohort import MAX_SCANS
from inference.training.labels import HORIZON_DAYS, label_at

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from inference.training.cohort_table import TablePatient, TableScan

Kind = Literal["follow-up", "post-op"]
# First day after the surgery's that counts: after 72 hours (the node's `follow-up` where no time is known), or after
# the day that follows surgery.
FIRST_DAY: dict[Kind, int] = {"follow-up": 4, "post-op": 2}
# The other kinds, in the node's words.
PRE_OP: Final = "pre-op"
EARLY_POST_OP: Final = "early-post-op"
UNKNOWN: Final = "unknown"


class Ground(StrEnum):
    """Why a scan is not shown to the model."""

    MISSING_ROLE = "missing-role"
    NOT_PREPARED = "not-prepared"
    SURGERY_UNKNOWN = "surgery-unknown"
    BEFORE_SURGERY = "before-surgery"
    EARLY_POST_OP = "early-post-op"
    ON_OR_AFTER_EVENT = "on-or-after-event"
    LABEL_UNKNOWN = "label-unknown"  # less than a horizon of follow-up after it, and no event
    OLDER = "older-than-the-newest"
    TOO_NEAR = "too-near"
    BEFORE_GAP = "before-gap"
    THINNED = "thinned"
    PATIENT_EXCLUDED = "patient-excluded"


_BY_CODE = {
    Code.AFTER_EVENT: Ground.ON_OR_AFTER_EVENT,
    Code.MISSING_ROLE: Ground.MISSING_ROLE,
    Code.OLDER: Ground.OLDER,
    Code.TOO_NEAR: Ground.TOO_NEAR,
    Code.BEFORE_GAP: Ground.BEFORE_GAP,
    Code.THINNED: Ground.THINNED,
}
_BY_KIND = {
    PRE_OP: Ground.BEFORE_SURGERY,
    EARLY_POST_OP: Ground.EARLY_POST_OP,
    UNKNOWN: Ground.SURGERY_UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Whom and what a model is trained on."""

    role: str
    kind: Kind = "follow-up"
    min_scans: int = 2
    max_scans: int | None = MAX_SCANS  # the newest; None: all, as landmark rows need
    horizon_days: int = HORIZON_DAYS
    surgery_needed: bool = True  # False: a patient without a surgery date keeps all scans
    unlabelled: bool = False  # True: patients whose label nobody knows stay, for the pretext
    choose: Literal["last", "spread"] = "last"  # the newest, or evenly thinned
    min_gap_days: int = 0
    max_gap_days: int | None = None

    @property
    def selection(self) -> SelectionRule:
        """Return what of this a node goes by too; a bundle pins it."""
        return SelectionRule(
            roles=(self.role,),
            kinds=(self.kind,) if self.surgery_needed else (self.kind, UNKNOWN),
            maximum=self.max_scans,
            choose=self.choose,
            min_gap_days=self.min_gap_days,
            max_gap_days=self.max_gap_days,
        )

    @property
    def counting(self) -> SelectionRule:
        """Return the rule without its numbers: which scans count at all."""
        return SelectionRule(roles=self.selection.roles, kinds=self.selection.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One patient under the rule: each scan's ground (None: shown), the label at the newest shown, why excluded."""

    patient: TablePatient
    grounds: tuple[Ground | None, ...]
    label: bool | None
    excluded: str = ""  # empty: included

    @property
    def shown(self) -> tuple[int, ...]:
        """Return the scans that the model is shown, oldest first, as places among the patient's scans."""
        return tuple(place for place, ground in enumerate(self.grounds) if ground is None)


def kind_of(day: date, surgery: date | None, kind: Kind) -> str:
    """Return the kind of a scan, in the node's words but for `post-op`; a table knows days and no times."""
    if surgery is None:
        return UNKNOWN
    since = (day - surgery).days
    if since < 0:
        return PRE_OP
    return EARLY_POST_OP if since < FIRST_DAY[kind] else kind


def choose(patient: TablePatient, rule: Rule, failed: Collection[int] = ()) -> Chosen:
    """Return which scans of a patient are shown, and its label; `failed` are lines that could not be prepared."""
    counting = _grounds(patient, rule, failed, selection=rule.counting)
    days = [scan.acquired for scan, ground in zip(patient.scans, counting, strict=True) if ground is None]
    known = [day for day in days if _label(patient, day, rule) is not None]
    for anchor in (*known[-1:], *(days[-1:] if rule.unlabelled else ())):
        seen = _grounds(patient, rule, failed, selection=rule.selection, until=anchor)
        grounds = [*seen, *(ground or Ground.LABEL_UNKNOWN for ground in counting[len(seen) :])]
        if grounds.count(None) >= rule.min_scans:
            return Chosen(patient=patient, grounds=tuple(grounds), label=_label(patient, anchor, rule))
    reason = _reason(patient, rule, days, known)
    grounds = [ground or Ground.PATIENT_EXCLUDED for ground in counting]
    return Chosen(patient=patient, grounds=tuple(grounds), label=None, excluded=reason)


def choose_all(
    patients: Sequence[TablePatient], rule: Rule, failed: Mapping[str, Collection[int]] | None = None
) -> tuple[Chosen, ...]:
    """Return the choice for every patient, included or not; `failed` holds lines by patient."""
    return tuple(choose(each, rule, (failed or {}).get(each.patient, ())) for each in patients)


def _grounds(
    patient: TablePatient,
    rule: Rule,
    failed: Collection[int],
    *,
    selection: SelectionRule,
    until: date = date.max,
) -> list[Ground | None]:
    """Return why each scan up to a day is not shown under the rule that all share, None for those that are."""
    scans = [scan for scan in patient.scans if scan.acquired <= until]
    candidates = [
        Candidate(
            day=scan.acquired,
            kind=kind_of(scan.acquired, patient.surgery, rule.kind),
            roles=frozenset() if scan.line in failed else frozenset(scan.series),
        )
        for scan in scans
    ]
    judged = zip(scans, candidates, select(candidates, selection, event=patient.event), strict=True)
    return [_ground(scan, candidate.kind, verdict, rule) for scan, candidate, verdict in judged]


def _ground(scan: TableScan, kind: str, verdict: Verdict, rule: Rule) -> Ground | None:
    """Say a verdict in the words of a table: why a scan is of no kind that counts, or lacks the role."""
    if verdict.kept:
        return None
    if verdict.code is Code.KIND:
        return _BY_KIND[kind]
    if verdict.code is Code.MISSING_ROLE and rule.role in scan.series:
        return Ground.NOT_PREPARED
    return _BY_CODE[verdict.code]


def _reason(patient: TablePatient, rule: Rule, days: Sequence[date], known: Sequence[date]) -> str:
    """Return the first reason that suffices to leave a patient out, whose scans count on `days`."""
    if patient.surgery is None and rule.surgery_needed:
        return "no surgery date"
    if not any(rule.role in scan.series for scan in patient.scans):
        return f"no {rule.role}"
    if len(days) < rule.min_scans:
        return f"fewer than {rule.min_scans} usable scans"
    if not known:
        return f"censored: no scan with {rule.horizon_days} days of follow-up"
    if len([day for day in days if day <= known[-1]]) < rule.min_scans:
        return f"censored: fewer than {rule.min_scans} scans with {rule.horizon_days} days of follow-up"
    return f"fewer than {rule.min_scans} scans within the gaps"


def _label(patient: TablePatient, day: date, rule: Rule) -> bool | None:
    """Return the label if the scan of `day` were the newest shown."""
    return label_at(
        0,
        event_day=None if patient.event is None else (patient.event - day).days,
        follow_up_day=(patient.last_follow_up - day).days,
        horizon_days=rule.horizon_days,
    )
