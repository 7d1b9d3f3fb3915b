"""Which scans of a patient a model is shown, and which label they get; why each of the others is left out.

The rule is the node's: scans of one role, of one kind (follow-ups), before the event, the newest six. What only
training needs comes on top: the label of the newest scan shown must be known, so that a patient censored too early is
looked at from an older scan, the newest with a whole horizon of follow-up behind it.

Source: the later practice of the group behind Tak et al., NEJM AI 2025 (repository LongitudinalEFS), re-implemented
from its description. It takes scans from the second day after surgery on (`post-op` here); our default is the node's
`follow-up`, because early scans show the operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from inference.training.cohort import MAX_SCANS
from inference.training.labels import HORIZON_DAYS, label_at

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date

    from inference.training.cohort_table import TablePatient

Kind = Literal["follow-up", "post-op"]
# First day after the surgery's that counts: after 72 hours (the node's `follow-up` where no time is known), or after
# the day that follows surgery.
FIRST_DAY: dict[Kind, int] = {"follow-up": 4, "post-op": 2}


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
    PATIENT_EXCLUDED = "patient-excluded"


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


def scan_grounds(
    days: Sequence[date], *, surgery: date | None, event: date | None, kind: Kind = "follow-up", last: int | None = None
) -> list[Ground | None]:
    """Return why each scan of one role is not shown to a model, None for those that are.

    The one place that decides which scans of a patient a model sees.

    Args:
        days: of the scans, ascending.
        surgery: None lets every scan count as one after surgery.
        event: scans on this day or later are never shown.
        kind: how soon after surgery scans begin to count.
        last: how many of the newest are shown; None for all.
    """
    grounds = [_ground(day, surgery, event, kind) for day in days]
    counted = [place for place, ground in enumerate(grounds) if ground is None]
    for place in counted[: max(0, len(counted) - last)] if last is not None else ():
        grounds[place] = Ground.OLDER
    return grounds


def _ground(day: date, surgery: date | None, event: date | None, kind: Kind) -> Ground | None:
    """Return why a scan of this day does not count."""
    since = None if surgery is None else (day - surgery).days
    if since is not None and since < 0:
        return Ground.BEFORE_SURGERY
    if event is not None and day >= event:
        return Ground.ON_OR_AFTER_EVENT
    if since is not None and since < FIRST_DAY[kind]:
        return Ground.EARLY_POST_OP
    return None


def choose(patient: TablePatient, rule: Rule, failed: Collection[int] = ()) -> Chosen:
    """Return which scans of a patient are shown, and its label; `failed` are lines that could not be prepared."""
    usable = _usable(patient, rule, failed)
    days = [patient.scans[place].acquired for place, ground in enumerate(usable) if ground is None]
    known = [day for day in days if _label(patient, day, rule) is not None]
    anchor = max(known, default=None)
    if anchor is None or len([day for day in days if day <= anchor]) < rule.min_scans:
        if not rule.unlabelled or len(days) < rule.min_scans:
            return _excluded(patient, rule, usable, anchor)
        anchor = days[-1]
    return Chosen(
        patient=patient, grounds=tuple(_shown(patient, rule, usable, anchor)), label=_label(patient, anchor, rule)
    )


def choose_all(
    patients: Sequence[TablePatient], rule: Rule, failed: Mapping[str, Collection[int]] | None = None
) -> tuple[Chosen, ...]:
    """Return the choice for every patient, included or not; `failed` holds lines by patient."""
    return tuple(choose(each, rule, (failed or {}).get(each.patient, ())) for each in patients)


def _usable(patient: TablePatient, rule: Rule, failed: Collection[int]) -> list[Ground | None]:
    """Return the grounds that have nothing to do with labels or numbers of scans."""
    if patient.surgery is None and rule.surgery_needed:
        return [Ground.SURGERY_UNKNOWN] * len(patient.scans)
    by_day = scan_grounds(
        [scan.acquired for scan in patient.scans], surgery=patient.surgery, event=patient.event, kind=rule.kind
    )
    grounds: list[Ground | None] = []
    for scan, ground in zip(patient.scans, by_day, strict=True):
        if ground is None and rule.role not in scan.series:
            grounds.append(Ground.MISSING_ROLE)
        elif ground is None and scan.line in failed:
            grounds.append(Ground.NOT_PREPARED)
        else:
            grounds.append(ground)
    return grounds


def _shown(patient: TablePatient, rule: Rule, usable: Sequence[Ground | None], anchor: date) -> list[Ground | None]:
    """Return all grounds once the newest scan is fixed."""
    grounds = list(usable)
    places = [place for place, ground in enumerate(usable) if ground is None]
    kept = [place for place in places if patient.scans[place].acquired <= anchor]
    newest = scan_grounds(
        [patient.scans[place].acquired for place in kept],
        surgery=patient.surgery,
        event=patient.event,
        kind=rule.kind,
        last=rule.max_scans,
    )
    for place in places:
        grounds[place] = Ground.LABEL_UNKNOWN
    for place, ground in zip(kept, newest, strict=True):
        grounds[place] = ground
    return grounds


def _excluded(patient: TablePatient, rule: Rule, usable: Sequence[Ground | None], anchor: date | None) -> Chosen:
    """Return the choice for a patient who is left out, with the first reason that suffices."""
    counted = sum(ground is None for ground in usable)
    if patient.surgery is None and rule.surgery_needed:
        reason = "no surgery date"
    elif not any(rule.role in scan.series for scan in patient.scans):
        reason = f"no {rule.role}"
    elif counted < rule.min_scans:
        reason = f"fewer than {rule.min_scans} usable scans"
    elif anchor is None:
        reason = f"censored: no scan with {rule.horizon_days} days of follow-up"
    else:
        reason = f"censored: fewer than {rule.min_scans} scans with {rule.horizon_days} days of follow-up"
    grounds = tuple(ground or Ground.PATIENT_EXCLUDED for ground in usable)
    return Chosen(patient=patient, grounds=grounds, label=None, excluded=reason)


def _label(patient: TablePatient, day: date, rule: Rule) -> bool | None:
    """Return the label if the scan of `day` were the newest shown."""
    return label_at(
        0,
        event_day=None if patient.event is None else (patient.event - day).days,
        follow_up_day=(patient.last_follow_up - day).days,
        horizon_days=rule.horizon_days,
    )
