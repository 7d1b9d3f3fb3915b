"""What can wait, waits for a lull in reception, and not for ever."""

from __future__ import annotations

import pytest

from dicom_node.receive.lull import LONGEST_S, QUIET_S, Lull


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock to move."""
    return Clock()


@pytest.fixture
def lull(clock: Clock) -> Lull:
    """A lull by that clock."""
    return Lull(clock=clock)


def test_before_anything_came_there_is_a_lull(lull: Lull) -> None:
    """A node that starts reads what it finds at once."""
    assert lull.is_now()


def test_while_something_comes_in_there_is_none(lull: Lull, clock: Clock) -> None:
    """And there is one a moment after the last."""
    lull.came()
    assert not lull.is_now()
    clock.now += QUIET_S
    assert lull.is_now()


def test_what_comes_without_end_is_read_all_the_same(lull: Lull, clock: Clock) -> None:
    """After the longest wait, until reading has caught up; then it waits anew."""
    waited_s = 0.0
    while not lull.is_now() or not waited_s:
        lull.came()
        clock.now += QUIET_S / 2
        waited_s += QUIET_S / 2
    assert waited_s == pytest.approx(LONGEST_S, abs=QUIET_S)
    lull.came()
    assert lull.is_now()
    lull.caught_up()
    assert not lull.is_now()


def test_short_pauses_do_not_make_it_wait_anew(lull: Lull, clock: Clock) -> None:
    """A sender that pauses for a moment now and then would starve reading, which needs longer than that."""
    lull.came()
    assert not lull.is_now()
    clock.now += QUIET_S
    assert lull.is_now()
    clock.now += LONGEST_S - QUIET_S
    lull.came()
    assert lull.is_now()
