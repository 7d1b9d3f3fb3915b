"""What a decision can be. Every kind carries reasons as data: a stable code, and a text without name or ID."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TypeAlias

from dicom_node.timeline.identity import CLEAR, Identity
from dicom_node.timeline.model import Inputs, PatientFacts, Reason, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else a decision needs: who the patient is, which model would run, and what is still arriving.

    `last_received` maps Study Instance UIDs to the tz-aware time of their newest arrival; a study that is not in it
    has been quiet for long. `hold` is an admin's.
    """

    patient: PatientFacts
    bundle_digest: str
    identity: Identity = CLEAR
    last_received: Mapping[str, datetime] = field(default_factory=dict)
    quiet_period_s: float = 0.0
    hold: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A role that a time point lacks."""

    acquired_on: date
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Something must come first; `next_check_at` says when time alone may change the answer."""

    reasons: tuple[Reason, ...]
    next_check_at: datetime | None = None
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A run is to be made of these inputs.

    `predecessor` is the newest report before; `correction` tells that it covers the same days. `supersedes` are the
    runs still on their way that this one makes pointless. `flags` must be shown with the answer.
    """

    run_key: str
    inputs_key: str
    inputs: Inputs
    version: int
    flags: tuple[Reason, ...] = ()
    predecessor: str | None = None
    correction: bool = False
    supersedes: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A person must act."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpToDate:
    """The run of these inputs exists; the reason's code is its state."""

    run_key: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ineligible:
    """The task is not for this patient, or it is not known to be."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Surveillance is over."""

    reasons: tuple[Reason, ...]


Decision: TypeAlias = Waiting | Due | Held | UpToDate | Ineligible | Ended
