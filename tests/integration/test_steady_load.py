"""The short form of `python -m tests.soak steady`: it loads a node, samples every process, and keeps every promise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.soak.steady import Plan, Steady, table

if TYPE_CHECKING:
    from pathlib import Path

LONG = os.environ.get("DICOM_NODE_LONG") == "1"


@pytest.mark.peer
@pytest.mark.timeout(7200)
def test_a_loaded_node_is_sampled_and_plotted(tmp_path: Path) -> None:
    """Studies come at a steady rate; memory, handles, threads and databases of each process are looked at."""
    plan = Plan(minutes=60 if LONG else 0.2, studies_per_minute=10, seed=1)
    report = Steady(plan, tmp_path).run()
    assert report["verdict"] == ("flat" if LONG else "kept"), table(report) + str(report["broken"])
    assert {"node", "supervisor", "worker"} <= set(report["samples"][-1]["processes"])
    assert (tmp_path / "steady.png").stat().st_size > 10_000
