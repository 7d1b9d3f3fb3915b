"""A scan taken back after the report: DCMTK sends the note, the node decides anew, Orthanc holds the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage

from sr_templates.read_report import read_report
from tests.factories.notes import PATIENT_SAFETY, note, write_note
from tests.factories.peers import flair_uids, storescu, wait_for_report, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.factories.peers import Node, Orthanc, PhantomStudies

pytestmark = pytest.mark.peer


def note_about(folder: Path, into: Path, **options: Any) -> Path:
    """Write a rejection note about every instance of a study into a folder of its own."""
    write_note(note(sorted(folder.rglob("*.dcm")), **options), into)
    return into


def codes(node: Node) -> list[str]:
    """Return the codes of the only case's reasons."""
    return [each["code"] for each in node.case().get("reasons", [])]


def text_of(node: Node, code: str) -> str:
    """Return the text of one reason of the only case."""
    return next(str(each["text"]) for each in node.case()["reasons"] if each["code"] == code)


@pytest.mark.usefixtures("dcmtk")
def test_a_rejected_scan_takes_its_report_back_into_question_and_the_next_is_made_without_it(
    orthanc: Orthanc, node: Node, phantom: PhantomStudies, tmp_path: Path
) -> None:
    """Two scans are too few and the report is named; a fourth scan makes a new one of the three that stand."""
    first, middle, third, fourth, _ = phantom.folders
    storescu([first, middle, third], node)
    wait_for_report(node)
    (old,) = orthanc.instances(Comprehensive3DSRStorage)
    assert flair_uids(middle) <= read_report(old).input_sop_instance_uids

    storescu([note_about(middle, tmp_path / "note", title=PATIENT_SAFETY)], node)
    wait_until("the case to wait for a scan", lambda: node.case()["state"] == "waiting")
    assert {"too-few-time-points", "report-unsupported"} <= set(codes(node))
    assert text_of(node, "too-few-time-points").startswith("2 of 3")
    count = len(list(middle.rglob("*.dcm")))
    (reason,) = node.status()["set_aside"]
    assert reason == {"state": "not-an-input", "reason": f"rejection note: 113037, {count} instances", "count": 1}

    storescu([middle, fourth], node)
    wait_for_report(node)
    reports = orthanc.instances(Comprehensive3DSRStorage)
    (new,) = [each for each in reports if each.SOPInstanceUID != old.SOPInstanceUID]
    used = read_report(new).input_sop_instance_uids
    for folder in (first, third, fourth):
        assert flair_uids(folder) <= used
    assert not flair_uids(middle) & used
    assert "report-unsupported" in codes(node)
    node.stop()
    log = node.log_path.read_text(encoding="utf-8")
    assert phantom.patient.patient_id not in log
    assert str(dcmread(next(middle.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID) not in log
