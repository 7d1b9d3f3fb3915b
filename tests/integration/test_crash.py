"""SIGKILL in each pipeline step with the shipped model and a real Orthanc: one report, nothing lost (invariant 2).

`test_crash_points.py` is the short form, with a model that answers at once.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from sr_templates.read_report import read_report
from tests.factories.peers import flair_uids, storescu, wait_for_report, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.factories.peers import Node, Orthanc, PhantomStudies

pytestmark = [pytest.mark.peer, pytest.mark.long]

ENDS = {"infer": "step.finished", "encode": "run.finished", "deliver": "delivery.sent"}  # what each step logs last


@pytest.fixture
def volume_cache(tmp_path: Path) -> Path:
    """Return an empty cache, so that inference takes long enough to be killed in."""
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def logged(node: Node, event: str, step: str | None = None) -> bool:
    """Say whether the log holds this event, of this step if one is named."""
    return any(line.get("event") == event and step in {None, line.get("step")} for line in node.log_lines())


def kill_in(step: str, node: Node) -> None:
    """Kill every process of the node while it is at work on a step."""
    wait_until(f"step {step} to start", lambda: logged(node, "step.started", step), timeout_s=180, every_s=0.01)
    node.kill()
    assert not logged(node, ENDS[step]), f"step {step} was over before the kill"


@pytest.mark.usefixtures("dcmtk")
def test_a_kill_in_each_step_leaves_one_report(orthanc: Orthanc, node: Node, phantom: PhantomStudies) -> None:
    """The node is killed while it receives, infers, encodes and delivers, and restarted each time."""
    storescu(phantom.folders[:2], node)
    node.kill()  # while it is still reading what it answered for
    node.start()
    storescu(phantom.folders[2:4], node)
    for step in ENDS:
        kill_in(step, node)
        node.start()
    wait_for_report(node)
    (sr,) = orthanc.instances(Comprehensive3DSRStorage)
    assert len(orthanc.instances(MultiFrameTrueColorSecondaryCaptureImageStorage)) == 1
    assert len(orthanc.instances(SecondaryCaptureImageStorage)) == 1
    for folder in phantom.folders[:4]:
        assert flair_uids(folder) <= read_report(sr).input_sop_instance_uids
    status = node.status()
    assert status["runs"] == {"reported": 1}
    assert status["deliveries"] == {"sent": 1}


@pytest.mark.usefixtures("dcmtk")
def test_a_dead_worker_is_replaced_and_never_blocks_reception(
    orthanc: Orthanc, node: Node, phantom: PhantomStudies
) -> None:
    """The worker alone is killed while it infers: the node goes on receiving, a new worker finishes the run."""
    storescu(phantom.folders[:3], node)
    wait_until("the run to be at work", lambda: logged(node, "step.started", "infer"))
    os.kill(worker_pid(node), signal.SIGKILL)
    storescu(phantom.folders[:1], node)  # duplicates: answered while nobody infers
    wait_for_report(node)
    assert node.status()["runs"] == {"reported": 1}
    node.stop()


def worker_pid(node: Node) -> int:
    """Return the process of the worker that was started last."""
    started = [line for line in node.log_lines() if line.get("event") == "process.started" and line.get("pid")]
    return int([line["pid"] for line in started if line["role"] == "worker"][-1])
