"""The short form of `python -m tests.soak crash`: a kill at one point of each stage, and nothing is lost or doubled.

With DICOM_NODE_LONG=1 at every point, and at random. `make soak` runs the long form.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.soak.crash import Crash, Plan, table
from tests.soak.inject.kill_points import POINTS

if TYPE_CHECKING:
    from pathlib import Path

LONG = os.environ.get("DICOM_NODE_LONG") == "1"
SHORT_POINTS = (
    "instance.synced",  # written, not named yet
    "arrival.entered",  # named, the row not committed
    "arrival.committed",  # promised to nobody yet
    "result.entered",  # inferred, not frozen
    "object.renamed",  # in the outbox, without a row
    "delivery.sent",  # the archive has it, we do not know
)


@pytest.mark.peer
@pytest.mark.timeout(4 * 3600)
def test_kills_at_named_points_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Scanners send until acknowledged, two archives fail one time in five, processes are killed where it hurts."""
    if LONG:
        plan = Plan(kills=200, patients=50, seed=1, minutes=180)
    else:
        plan = Plan(
            kills=len(SHORT_POINTS),
            patients=1,
            seed=1,
            points=SHORT_POINTS,
            at_once=len(SHORT_POINTS),
            random_share=0,
            group_share=0,
            patience_s=600,
        )
    report = Crash(plan=plan, folder=tmp_path).run()
    assert report["verdict"] == "kept", table(report) + str(report["broken"])
    assert report["not_reached"] == []


def test_every_seam_has_a_point() -> None:
    """Between write, sync, rename, commit and answer; in each step of the work; before and after an archive has it."""
    for wanted in (
        *SHORT_POINTS,
        *("instance.written", "instance.renamed", "instance.durable", "answer.sending", "answer.sent"),
        *("submission.committed", "inference.begun", "saliency.synced", "checkpoint.entered", "objects.committed"),
        *("delivery.sending", "delivery.answered", "receipt.entered", "receipt.committed"),
    ):
        assert wanted in POINTS
