"""Order verification: which windows, which wrong orders, in what balance."""

from __future__ import annotations

import numpy as np
import pytest

from inference.pretext.order import misorder, order_examples, windows


def test_all_contiguous_windows_of_two_to_six_scans_are_found() -> None:
    """Five scans give 4 + 3 + 2 + 1 windows."""
    found = windows([-400, -300, -200, -100, 0])
    assert len(found) == 10
    assert {len(each) for each in found} == {2, 3, 4, 5}
    assert all(each.step == 1 for each in found)


def test_windows_end_at_six_scans() -> None:
    """Eight scans give no window of seven."""
    assert max(len(each) for each in windows(list(range(0, 800, 100)))) == 6


def test_scans_of_one_day_have_no_order() -> None:
    """A window that holds two scans of the same day is skipped."""
    assert [list(each) for each in windows([-100, 0, 0])] == [[0, 1]]


@pytest.mark.parametrize("length", [2, 3, 6])
def test_a_wrong_order_is_never_the_true_one(length: int) -> None:
    """Every draw is a permutation of the window and differs from it."""
    rng = np.random.default_rng(0)
    drawn = {misorder(range(length), rng) for _ in range(200)}
    assert tuple(range(length)) not in drawn
    assert all(sorted(each) == list(range(length)) for each in drawn)


def test_reversals_and_swaps_of_neighbours_are_among_the_wrong_orders() -> None:
    """The easiest and the hardest wrong order both occur."""
    rng = np.random.default_rng(0)
    drawn = {misorder(range(4), rng) for _ in range(200)}
    assert {(3, 2, 1, 0), (1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2)} <= drawn


def test_half_of_the_examples_are_in_order() -> None:
    """Each window gives one true and one false order."""
    examples = order_examples([-300, -200, -100, 0], np.random.default_rng(0), max_windows=100)
    assert len(examples) == 12
    assert sum(each.in_order for each in examples) == 6
    assert all(each.in_order == (list(each.places) == sorted(each.places)) for each in examples)


def test_a_patient_gives_no_more_windows_than_asked_for() -> None:
    """The cap counts windows; one scan gives none."""
    rng = np.random.default_rng(0)
    assert len(order_examples([-300, -200, -100, 0], rng, max_windows=2)) == 4
    assert order_examples([0], rng, max_windows=2) == []
