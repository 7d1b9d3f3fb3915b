"""A whole node whose patient's older studies lie only in the PACS."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.ledger import runs
from dicom_node.ledger.database import Database
from sr_templates.read_report import read_report
from tests.factories.peers import (
    ISSUER,
    Orthanc,
    flair_uids,
    storescu,
    study_uid,
    wait_for_report,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.factories.peers import Node, PhantomStudies

pytestmark = pytest.mark.peer


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc, not yet started, for it has to know where the node listens."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed (Debian package orthanc)")
    folder = tmp_path / "orthanc"
    folder.mkdir()
    server = Orthanc(folder)
    yield server
    if server.process is not None:
        server.kill()


@pytest.fixture
def fresh_node(archive: Orthanc, make_node: Callable[..., Node], phantom: PhantomStudies) -> Callable[..., Node]:
    """Return a maker of running nodes that were installed today, the archive holding the first three studies."""

    def make(*methods: str) -> Node:
        node = make_node(
            pacs=[
                {
                    "name": "main",
                    "dimse": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": archive.dicom_port, "timeout_s": 5},
                    "orthanc": {"url": f"http://127.0.0.1:{archive.http_port}", "timeout_s": 5},
                    "default_issuer": ISSUER,
                    "priors": {"methods": list(methods)},
                    "retry": {"first_s": 0.5, "longest_s": 2},
                }
            ]
        )
        archive.node_port = node.port
        archive.start()
        for folder in phantom.folders[:3]:
            archive.client.upload_folder(str(folder))
        node.import_cohort(phantom.cohort_row)
        node.start()
        return node

    return make


def assert_all_four_scans_are_in_the_report(archive: Orthanc, phantom: PhantomStudies) -> None:
    """The only report names the FLAIR series of the three fetched studies and of the one that was sent."""
    (sr,) = archive.instances(Comprehensive3DSRStorage)
    report = read_report(sr)
    for folder in phantom.folders[:4]:
        assert flair_uids(folder) <= report.input_sop_instance_uids
    assert len(report.trajectory) == 4


@pytest.mark.usefixtures("dcmtk")
def test_a_node_installed_today_reports_on_a_patient_whose_first_three_scans_lie_only_in_the_pacs(
    archive: Orthanc, fresh_node: Callable[..., Node], phantom: PhantomStudies
) -> None:
    """The fourth study is sent; the others are looked up and moved to the node, and then one report is made."""
    node = fresh_node("c-move")
    storescu([phantom.folders[3]], node)
    wait_for_report(node)
    assert_all_four_scans_are_in_the_report(archive, phantom)
    assert node.status()["runs"] == {"reported": 1}
    assert node.verb("timeline", phantom.patient.patient_id).count(": fetched") == 3
    node.stop()
    log = node.log_path.read_text(encoding="utf-8")
    assert phantom.patient.patient_id not in log
    events = [each["event"] for each in node.log_lines()]
    assert events.count("priors.looked_up") == 1


@pytest.mark.usefixtures("dcmtk")
def test_an_archive_that_stops_in_the_middle_of_a_retrieval_and_comes_back_delays_the_run(
    archive: Orthanc, fresh_node: Callable[..., Node], phantom: PhantomStudies
) -> None:
    """Killed while instances come, started again later: the case waits, nothing is lost, and one run has all four."""
    node = fresh_node("orthanc", "c-get")
    storescu([phantom.folders[3]], node)
    sent = len(list(phantom.folders[3].rglob("*.dcm")))
    wait_until("the first fetched instance", lambda: files(node) > sent, every_s=0.005)
    archive.kill()
    wait_until("a failed attempt", lambda: "priors.delayed" in node.log_path.read_text(encoding="utf-8"))
    assert node.case()["state"] == "waiting"
    assert node.status()["runs"] == {}
    archive.start()
    wait_until("a run", lambda: node.status()["runs"], timeout_s=120)
    assert node.status()["files"]["indexed"] == sum(len(list(each.rglob("*.dcm"))) for each in phantom.folders[:4])
    database = Database(f"sqlite:///{node.folder / 'data' / 'ledger.sqlite'}")
    with database.read() as ledger:
        (run,) = runs.of_patient(ledger, 1)
    database.close()
    assert {study for point in run.inputs.time_points for study in point.studies} == {
        study_uid(folder) for folder in phantom.folders[:4]
    }


def files(node: Node) -> int:
    """Count the files the node has taken in."""
    return sum(node.status()["files"].values())
