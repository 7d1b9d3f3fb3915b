"""Where a scan lies with respect to the surgeries."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Literal

from dicom_node.timeline.model import Surgery, TimePointKind

if TYPE_CHECKING:
    from collections.abc import Sequence

EARLY_HOURS = 72  # before scar and gliosis enhance; where no time is known, days 1 to 3
EARLY_DAYS = 3


def anchor_of(surgeries: Sequence[Surgery], which: Literal["first", "last"]) -> Surgery | None:
    """Return the surgery that follow-up is counted from."""
    if not surgeries:
        return None
    ordered = sorted(surgeries, key=lambda surgery: (surgery.on, surgery.at or time.min))
    return ordered[0] if which == "first" else ordered[-1]


def kind_of(on: date, at: time | None, surgeries: Sequence[Surgery], which: Literal["first", "last"]) -> TimePointKind:
    """Return the kind of a scan on day `on`, at `at` where the time is known.

    Before the anchoring surgery is pre-op. A scan on a day of surgery is told apart by the times, and is `unknown`
    without them. Early post-op counts from any surgery since the anchor.
    """
    anchor = anchor_of(surgeries, which)
    if anchor is None:
        return TimePointKind.UNKNOWN
    same_day = [surgery for surgery in surgeries if surgery.on == on]
    if any(surgery.at is None for surgery in same_day) or (same_day and at is None):
        return TimePointKind.UNKNOWN
    if on < anchor.on or (on == anchor.on and at is not None and anchor.at is not None and at < anchor.at):
        return TimePointKind.PRE_OP
    if any(_is_early(on, at, surgery) for surgery in surgeries if surgery.on >= anchor.on):
        return TimePointKind.EARLY_POST_OP
    return TimePointKind.FOLLOW_UP


def _is_early(on: date, at: time | None, surgery: Surgery) -> bool:
    if at is not None and surgery.at is not None:
        since = datetime.combine(on, at) - datetime.combine(surgery.on, surgery.at)
        return timedelta(0) <= since <= timedelta(hours=EARLY_HOURS)
    return 0 <= (on - surgery.on).days <= EARLY_DAYS
