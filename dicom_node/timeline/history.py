"""What happened to one patient, in time: the events that a replay is made of, from the ledger or from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from dicom_node.timeline.model import CohortFacts, InstanceFacts, PatientFacts

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An instance came; a second copy changes nothing."""

    at: datetime
    facts: InstanceFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortChanged:
    """The cohort said something else from then on."""

    at: datetime
    cohort: CohortFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A rejection note took instances out of use, perhaps before they came."""

    at: datetime
    sop_instance_uids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradicted:
    """A file came that contradicts an instance held."""

    at: datetime


Event: TypeAlias = Arrived | CohortChanged | Rejected | Contradicted


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened to one patient; all times are tz-aware, the events may stand in any order.

    `cohort` is what it says at the beginning. The others count from the beginning: what a registry states of the
    patient's IDs, the values a person has accepted as one human's, and what archives say that series hold.
    """

    patient: tuple[str, str]  # (issuer, PatientID)
    events: tuple[Event, ...]
    cohort: CohortFacts = field(default_factory=CohortFacts)
    stated: tuple[PatientFacts, ...] = ()
    accepted: Mapping[str, Collection[str]] = field(default_factory=dict)
    expected: Mapping[str, int] = field(default_factory=dict)
