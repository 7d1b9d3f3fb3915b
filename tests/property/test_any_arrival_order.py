"""Invariant 4: any arrival order, duplication or interleaving ends in the same inputs, result and final report.

The ledger, the indexer's entry, the reconciler, the steps and the encoder are the real ones; the clock is fixed, and
the predictor, which a Protocol names, is a fake that answers from the content it is given.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.factories.bench import NOW, Bench, flair_studies

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies of one synthetic patient, a file per slice."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def expected(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, tuple[bytes, ...]]:
    """What the plainest order, oldest study first, ends in."""
    bench = Bench(tmp_path_factory.mktemp("plain"))
    for path in files:
        bench.receive(path)
    return _finish(bench)


def _finish(bench: Bench) -> tuple[str, str, tuple[bytes, ...]]:
    bench.tick()
    bench.now = NOW + timedelta(minutes=5)
    bench.tick()
    outcome = bench.outcome()
    bench.database.close()
    return outcome


@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_arrival_order_ends_in_the_same_report(
    data: st.DataObject,
    files: list[Path],
    expected: tuple[str, str, tuple[bytes, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Shuffled, duplicated, with the reconciler looking in between: same inputs, same result, same bytes."""
    repeated = data.draw(st.lists(st.sampled_from(files), max_size=6), label="duplicates")
    order = data.draw(st.permutations([*files, *repeated]), label="order")
    looks = data.draw(st.sets(st.integers(0, len(order) - 1), max_size=3), label="looks")
    bench = Bench(tmp_path_factory.mktemp("shuffled"))
    for number, path in enumerate(order):
        bench.receive(path)
        if number in looks:
            bench.tick()
    assert _finish(bench) == expected
