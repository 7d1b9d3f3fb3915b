"""What an attempt to deliver is about, and how it ended: done, try again, or never again without a person."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.ledger.encodings import Encoding
    from dicom_node.settings import Retry


class Verdict(Enum):
    """What follows from an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    VOID = "void"  # the archive corrected the patient meanwhile: encoded anew, then sent
    MISFILED = "misfiled"  # the archive files the study under somebody else: sent to nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of one attempt; `reason` never quotes a data set. `encoding` says what to make of a void report.

    `taken` are the SOP Instance UIDs that the archive holds of it or may hold, for their answer was lost; None: nobody
    knows. `report_class` is the SOP class in which it takes the report, where that was settled.
    """

    verdict: Verdict
    reason: str = ""
    encoding: Encoding | None = None
    taken: tuple[str, ...] | None = ()
    report_class: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One encoded object on its way."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one attempt sends: every object, then the report in the first of its SOP classes that the archive takes."""

    objects: tuple[Parcel, ...]
    reports: tuple[Parcel, ...] = ()

    @property
    def parcels(self) -> tuple[Parcel, ...]:
        """Everything that may be sent."""
        return (*self.objects, *self.reports)


def judge_store_status(status: int) -> Outcome:
    """Say what a C-STORE response status means for the delivery (PS3.4 B.2.3, PS3.7 annex C).

    Success and warnings (0xBxxx, 0x0001, 0x0107, 0x0116) deliver; so does 0x0111, for the same UID always means our
    same bytes. 0xA7xx (out of resources) and 0x0110/0x0213 may pass; everything else will fail again.
    """
    if status in {0x0000, 0x0001, 0x0107, 0x0111, 0x0116} or 0xB000 <= status <= 0xBFFF:
        return Outcome(verdict=Verdict.DELIVERED)
    if 0xA700 <= status <= 0xA7FF or status in {0x0110, 0x0213}:
        return Outcome(verdict=Verdict.RETRY, reason=f"status 0x{status:04X}: the archive lacks resources")
    return Outcome(verdict=Verdict.FAILED, reason=f"status 0x{status:04X}: refused by the archive")


def next_wait(attempts: int, retry: Retry) -> timedelta:
    """Return how long to wait after so many failed attempts: doubling, bounded, with up to 10 % jitter."""
    wait_s = min(retry.first_s * 2 ** min(attempts, 30), retry.longest_s)
    return timedelta(seconds=wait_s * random.uniform(0.9, 1.0))  # noqa: S311 - spreads load, guards nothing
