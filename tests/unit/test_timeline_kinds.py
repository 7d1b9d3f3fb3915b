"""Where a scan lies with respect to the surgeries."""

from __future__ import annotations

from datetime import date, time

import pytest

from dicom_node.timeline.kinds import kind_of
from dicom_node.timeline.model import Surgery

DAY = date(2025, 3, 10)
ONCE = (Surgery(on=DAY),)
TIMED = (Surgery(on=DAY, at=time(12, 0)),)
SAME_DAY = (Surgery(on=DAY, at=time(8, 0)), Surgery(on=DAY, at=time(15, 0)))  # a revision in the afternoon
TIMED_TWICE = (Surgery(on=DAY), Surgery(on=date(2026, 3, 10), at=time(12, 0)))
TWICE = (Surgery(on=DAY), Surgery(on=date(2026, 3, 10)))


@pytest.mark.parametrize(
    ("surgeries", "anchor", "on", "at", "kind"),
    [
        ((), "first", date(2025, 6, 1), None, "unknown"),
        (ONCE, "first", date(2025, 3, 9), None, "pre-op"),
        (ONCE, "first", DAY, time(20, 0), "unknown"),
        (TIMED, "first", DAY, None, "unknown"),
        (TIMED, "first", DAY, time(8, 0), "pre-op"),
        (TIMED, "first", DAY, time(20, 0), "early-post-op"),
        (ONCE, "first", date(2025, 3, 11), None, "early-post-op"),
        (ONCE, "first", date(2025, 3, 13), None, "early-post-op"),
        (ONCE, "first", date(2025, 3, 14), None, "follow-up"),
        (TIMED, "first", date(2025, 3, 13), time(11, 59), "early-post-op"),
        (TIMED, "first", date(2025, 3, 13), time(12, 1), "follow-up"),
        (TWICE, "first", date(2026, 3, 1), None, "follow-up"),
        (TWICE, "first", date(2026, 3, 10), None, "unknown"),
        (TWICE, "first", date(2026, 3, 12), None, "early-post-op"),
        (TWICE, "last", date(2026, 3, 1), None, "pre-op"),
        (TWICE, "last", date(2025, 3, 11), None, "pre-op"),
        (TWICE, "last", date(2026, 6, 1), None, "follow-up"),
        (TIMED_TWICE, "first", date(2026, 3, 10), time(8, 0), "follow-up"),
        (TIMED_TWICE, "first", date(2026, 3, 10), time(20, 0), "early-post-op"),
        (TIMED_TWICE, "last", date(2026, 3, 10), time(8, 0), "pre-op"),
        (SAME_DAY, "first", DAY, time(12, 0), "early-post-op"),
        (SAME_DAY, "last", DAY, time(12, 0), "pre-op"),
        (SAME_DAY, "last", DAY, time(16, 0), "early-post-op"),
        (TIMED, "first", date(2025, 3, 13), None, "early-post-op"),
        (TIMED, "first", date(2025, 3, 14), None, "follow-up"),
    ],
)
def test_the_kind_follows_from_the_surgeries(surgeries, anchor, on, at, kind) -> None:
    """Days 0 to 3 without times, 72 hours with them; a day of surgery needs both times."""
    assert kind_of(on, at, surgeries, anchor) == kind
    assert kind_of(on, at, surgeries[::-1], anchor) == kind
