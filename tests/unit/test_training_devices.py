"""Training on several devices: two processes of one machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.factories import two_devices


def test_two_devices_end_with_the_same_network(tmp_path: Path) -> None:
    """Weights and running statistics are equal, though batches, start weights and scores of the devices differ."""
    root = Path(two_devices.__file__).parents[2]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", two_devices.__file__]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*run, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    left = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.glob("*.pt")}
    for first, second in (
        ("recurrence-0", "recurrence-1"),
        ("recurrence-0", "resumed-0"),
        ("resumed-0", "resumed-1"),
        ("heads-0", "heads-1"),
    ):
        assert [key for key in left[first] if not torch.equal(left[first][key], left[second][key])] == []
