"""A task that could never choose anything is refused when it is read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.factories.facts import a_task


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"time_points": {"choose": "spread", "minimum": 1, "maximum": 1}},
            "spread keeps the oldest and the newest; expected a maximum of 2 or more, found 1",
        ),
        (
            {"gates": {"min_gap_days": 30, "max_gap_days": 14}},
            r"max_gap_days: expected at least min_gap_days \(30\), found 14",
        ),
        ({"time_points": {"minimum": 4, "maximum": 3}}, r"minimum: expected at most maximum \(3\), found 4"),
    ],
)
def test_contradictory_rules_are_told(sections, message) -> None:
    """With what is expected and what was found."""
    with pytest.raises(ValidationError, match=message):
        a_task(**sections)


def test_equal_gaps_and_two_spread_scans_are_the_least_that_goes() -> None:
    """The limits themselves are allowed."""
    task = a_task(
        time_points={"choose": "spread", "minimum": 2, "maximum": 2}, gates={"min_gap_days": 30, "max_gap_days": 30}
    )
    assert (task.time_points.maximum, task.gates.max_gap_days) == (2, 30)
