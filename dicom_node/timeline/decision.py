"""What a decision can be. Every kind carries reasons as data: a stable code, and a text without name or ID."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TypeAlias

from dicom_node.timeline.identity import CLEAR, Identity
from dicom_node.timeline.model import Inputs, PatientFacts, Reason, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyClock:
    """When a study arrived: the start of its latest burst of instances, and its newest instance. Both tz-aware."""

    burst_started_at: datetime
    last_received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorsState:
    """How far the search for older studies is: nobody to ask, still open, or over; `text` says so in one line."""

    open: bool = False  # a question or a retrieval is under way or about to be
    failed: bool = False  # an archive could not be asked, or something wanted could not be fetched
    since: datetime | None = None  # when the oldest of what is open was begun
    next_look_at: datetime | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else a decision needs: who the patient is, which model would run, and what is still arriving.

    `received` maps Study Instance UIDs to when they arrived; a study that is not in it has been quiet for long.
    `hold` keeps a case from running, an admin's or the node's own; `forced` is an admin's order to run with what there
    is.
    """

    patient: PatientFacts
    bundle_digest: str
    identity: Identity = CLEAR
    received: Mapping[str, StudyClock] = field(default_factory=dict)
    quiet_period_s: float = 0.0
    max_wait_s: float = 0.0  # 0: an incomplete study is judged as soon as it is quiet
    priors: PriorsState = PriorsState()
    hold: Reason | None = None
    forced: bool = False


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

    `predecessor` is the newest report before; `correction` tells that its newest day is the same. `flags` must be shown
    with the answer. Runs still on their way are taken back for this one.
    """

    run_key: str
    inputs_key: str
    inputs: Inputs
    version: int
    flags: tuple[Reason, ...] = ()
    predecessor: str | None = None
    correction: bool = False
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
