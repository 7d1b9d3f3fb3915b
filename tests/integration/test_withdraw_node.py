"""A report's whole life on real processes and a real archive: sent, committed, withdrawn, rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom.uid import Comprehensive3DSRStorage, KeyObjectSelectionDocumentStorage

from dicom_node.demo_pacs import free_port
from tests.factories.peers import destination, storescu, wait_for_report, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.factories.peers import Node, Orthanc, PhantomStudies


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_orthanc_commits_to_a_report_and_is_told_when_it_is_withdrawn(
    orthanc: Orthanc, make_node: Callable[..., Node], phantom: PhantomStudies
) -> None:
    """Level-triggered to the end: nothing is done by hand but `withdraw`, and the node stops clean."""
    node = make_node(pacs=[{**destination(orthanc), "storage_commitment": True}])
    node.port = orthanc.node_port = free_port()
    orthanc.stop()
    orthanc.start()
    node.import_cohort(phantom.cohort_row)
    node.start()
    storescu(phantom.folders[:3], node)
    case = wait_for_report(node)
    wait_until("Orthanc to commit", lambda: node.status()["deliveries"] == {"committed": 1})
    (report,) = orthanc.instances(Comprehensive3DSRStorage)

    assert "rejection note for" in node.verb("withdraw", case["run_key"][:12], "--reason", "safety")
    wait_until("the case to be withdrawn", lambda: node.case()["state"] == "withdrawn", timeout_s=30)
    (note,) = wait_until("the note", lambda: orthanc.instances(KeyObjectSelectionDocumentStorage), timeout_s=60)
    wait_until("the note to be committed to", lambda: "rejection note committed" in str(node.case()["reasons"]))
    assert note.StudyInstanceUID == report.StudyInstanceUID
    assert report.SOPInstanceUID in {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in note.ContentSequence[1:]
    }
    assert node.status()["runs"] == {"withdrawn": 1}
    node.stop()
    assert phantom.patient.patient_id not in node.log_path.read_text(encoding="utf-8")
