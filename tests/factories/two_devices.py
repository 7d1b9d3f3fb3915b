"""Train on two devices (CPUs that talk over gloo), started by torchrun; each leaves its weights and statistics.

torchrun --nproc_per_node=2 tests/factories/two_devices.py FOLDER
"""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from inference.models import TemporalConfig, TemporalNetwork
from inference.training.fit import Schedule, Session, fit
from inference.training.lessons import heads_lesson, order_lesson, recurrence_lesson
from tests.factories.cohorts import cohort_of

SCANS = (1, 1, 1, 1, 3, 4, 3, 4, 2)  # four patients without an order to ask about


def main(folder: Path) -> None:
    """Run the three rounds, one of them again from its checkpoint, the last with scores that differ between devices."""
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    session, rank = Session(fabric=fabric, checkpoints=folder / "checkpoints"), fabric.global_rank
    volumes = np.random.default_rng(0).integers(1, 255, (sum(SCANS), 12, 16, 12)).astype(np.uint8)
    days = [range(-100 * (count - 1), 1, 100) for count in SCANS]
    cohort, everyone = cohort_of(volumes, days, [0, 1, 0, 1, 0, 1, 1, 0, 0]), np.arange(len(SCANS))
    torch.manual_seed(rank)
    network = TemporalNetwork(
        TemporalConfig(width=2, input_shape=(12, 16, 12), hidden=8, stem_kernel=3, standardise=True)
    )
    schedule = Schedule(epochs=2, encoder_rate=1e-3, head_rate=1e-2, batch_patients=1)
    network = fit(network, order_lesson(cohort, cohort, patients=everyone), schedule, session)
    schedule = replace(schedule, batch_patients=2)
    start, lesson = copy.deepcopy(network), recurrence_lesson(cohort, cohort, patients=everyone)
    network = fit(network, lesson, schedule, session)
    _keep(network, folder / f"recurrence-{rank}.pt")
    _keep(fit(start, lesson, schedule, session), folder / f"resumed-{rank}.pt")
    scores = iter([0.1, 0.5, 0.4] if rank == 0 else [0.9, 0.5, 0.6])
    heads = replace(heads_lesson(network, cohort, cohort, patients=everyone), score=lambda _: next(scores))
    _keep(fit(network, heads, schedule, session), folder / f"heads-{rank}.pt")


def _keep(network: TemporalNetwork, path: Path) -> None:
    torch.save(network.state_dict(), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
