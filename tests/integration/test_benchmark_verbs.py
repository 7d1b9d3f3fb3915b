"""`dicom-node benchmark`, each verb at its smallest, on real peers: its JSON has the shape that it is documented with.

How fast anything is is never asked here. DICOM_NODE_LONG=1 adds the verbs that take minutes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from dicom_node.benchmark.load import inferring
from dicom_node.benchmark.servers import engines, orthanc
from dicom_node.cli import main
from dicom_node.resources import task_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("dcmtk", "installed_orthanc")]


@pytest.fixture
def installed_orthanc() -> None:
    """Skip where there is no Orthanc, as the fixture of a running one does."""
    if not orthanc().is_installed:
        pytest.skip("Orthanc is not installed (Debian package orthanc)")


def measure(folder: Path, *arguments: object) -> dict[str, Any]:
    """Run a verb and return what it wrote."""
    path = folder / "figures.json"
    command = ["benchmark", *(str(each) for each in arguments), "--folder", str(folder), "--json", str(path)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert {"benchmark", "machine", "rounds"} <= set(found)
    assert not list(folder.glob("dicom-node-benchmark-*")), "it clears up behind itself"
    return found


def test_reception_is_measured_beside_every_peer_and_what_they_stored_is_compared(tmp_path: Path) -> None:
    """Each engine of ours and each peer in one run: rates, processor time, memory, every instance byte by byte."""
    plot = tmp_path / "rates.png"
    sizes = ("--rounds", 1, "--series", 2, "--slices", 4, "--associations", "2", "--no-nagle")
    found = measure(tmp_path, "ingest", *sizes, "--plot", plot)
    receivers = {*(f"node-{each}" for each in engines()), "orthanc", "storescp", "pynetdicom"}
    assert set(found["tables"]["nodelay"]) == receivers
    assert set(found["ratio"]) == {"orthanc", "storescp", "pynetdicom"}
    assert all(set(each) == {"2"} and each["2"] > 0 for each in found["ratio"].values())
    assert found["ours"] == f"node-{engines()[0]}"
    assert found["left_out"] == {}
    for each in found["rounds"]:
        assert each["stored"] == {"sent": 16, "missing": 0, "repeated": 0, "foreign": 0, "identical": 16, "altered": 0}
        assert each["rate"] > 0
        assert each["process_peak_mb"] > 1
        assert (each["processor_indexed_ms"] is not None) == each["receiver"].startswith("node-")
    assert plot.stat().st_size > 1000


@pytest.mark.long
def test_reception_is_measured_with_nagles_algorithm_too(tmp_path: Path) -> None:
    """Peers and senders as they are installed; a receiver's rate is told to its own without it."""
    sizes = ("--rounds", 1, "--series", 1, "--slices", 4, "--associations", "1")
    found = measure(tmp_path, "ingest", *sizes, "--engine", engines()[0], "--peer", "storescp")
    assert set(found["ratio_nagle"]) == {"storescp"}
    assert found["nagle_to_own_rate"][found["ours"]]["1"] > 0


def test_inference_as_a_neighbour_is_at_work_when_reception_begins() -> None:
    """The load says so itself, and is gone after the block."""
    with inferring():
        pass


def test_sending_is_measured_beside_storescu(tmp_path: Path) -> None:
    """A report with multi-frame and with single-frame saliency, Orthanc as installed and without Nagle's algorithm."""
    found = measure(tmp_path, "sending", "--rounds", 1, "--slices", 3)
    for receiver in ("as_installed", "nodelay"):
        assert set(found["ratio"]["storescu"][receiver]) == {"multi-frame", "single-frame", "report"}
        assert all(each > 0 for each in found["ratio"]["storescu"][receiver].values())
    objects = {each["saliency"]: each["objects"] for each in found["rounds"]}
    assert objects["multi-frame"] == 3, "saliency, summary page, report"
    assert objects["single-frame"] >= 3, "one capture for each slice on which there is something to show"
    assert len(found["rounds"]) == 8


@pytest.mark.long
def test_growth_of_the_ledger_is_measured(tmp_path: Path) -> None:
    """Rates, idle use, tick and status by size, each size over the smallest; and the queries that read whole tables."""
    found = measure(tmp_path, "scale", "--rounds", 1, "--rows", "20,60", "--series", 1, "--slices", 4)
    quantities = {"rate", "idle_processor_ms_per_s", "tick_ms", "status_ms", "settled_s"}
    assert set(found["tables"]) == set(found["ratio"]) == quantities
    assert all(set(each) == {"20", "60"} for each in found["tables"].values())
    assert all(set(each) == {"60"} for each in found["ratio"].values())
    assert {each["work"] for each in found["scans"]} <= {"reception", "tick", "status"}


@pytest.mark.long
def test_the_way_of_an_image_is_timed_cold_and_cached(tmp_path: Path) -> None:
    """One report of two time points at once, one of a second after the first; the archive holds both."""
    task = yaml.safe_load(task_file("glioma-recurrence").read_text(encoding="utf-8"))
    task["time_points"]["allow_fewer"] = True
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    options = ("--rounds", 1, "--time-points", 2, "--task", tmp_path / "task.yaml", "--quiet-period-s", 1)
    found = measure(tmp_path, "end-to-end", *options)
    assert set(found["seconds"]) == {"cold", "cached"}
    assert found["ratio"]["cold"]["cached"] > 0
    assert [each["kind"] for each in found["rounds"]] == ["cold", "cached"]
    assert all(each["objects"] >= 3 for each in found["rounds"]), "saliency, summary page, report"
