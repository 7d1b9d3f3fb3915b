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
    for name in ("recurrence", "heads"):
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
