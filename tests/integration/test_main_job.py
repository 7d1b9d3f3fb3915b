"""The main job on real components: DCMTK sends, the node answers, Orthanc holds the report."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from sr_templates.read_report import read_report
from tests.factories.peers import flair_uids, storescu, study_uid, wait_for_report, wait_until

if TYPE_CHECKING:
    from tests.factories.peers import Node, Orthanc, PhantomStudies

pytestmark = pytest.mark.peer


def assert_no_identity(node: Node, phantom: PhantomStudies) -> None:
    """No name, ID or date of the patient stands in the log."""
    log = node.log_path.read_text(encoding="utf-8")
    patient = phantom.patient
    dates = [each.acquired.isoformat() for each in patient.visits]
    for secret in (patient.patient_id, "PHANTOM^", patient.surgery.isoformat(), *dates[:-1]):
        assert secret not in log


@pytest.mark.usefixtures("dcmtk")
def test_four_shuffled_studies_make_one_report_and_a_fifth_makes_the_next(
    orthanc: Orthanc, node: Node, phantom: PhantomStudies
) -> None:
    """Four studies sent in shuffled order are reported once; a fifth is reported anew and names the first report."""
    storescu(random.Random(3).sample(phantom.folders[:4], k=4), node)
    wait_for_report(node)
    (case,) = json.loads(node.verb("status", "--json"))["cases"]
    assert [each["state"] for each in case["deliveries"]] == ["sent"]

    (sr,) = orthanc.instances(Comprehensive3DSRStorage)
    (saliency,) = orthanc.instances(MultiFrameTrueColorSecondaryCaptureImageStorage)
    (summary,) = orthanc.instances(SecondaryCaptureImageStorage)
    newest = study_uid(phantom.folders[3])
    assert {sr.StudyInstanceUID, saliency.StudyInstanceUID, summary.StudyInstanceUID} == {newest}
    report = read_report(sr)
    for folder in phantom.folders[:4]:
        assert flair_uids(folder) <= report.input_sop_instance_uids
    assert any("PHANTOM" in line.upper() for line in report.summary)
    assert len(report.trajectory) == 4

    storescu([phantom.folders[4]], node)
    wait_until("a second report", lambda: len(orthanc.instances(Comprehensive3DSRStorage)) == 2)
    wait_for_report(node)
    second = next(
        each for each in orthanc.instances(Comprehensive3DSRStorage) if each.SOPInstanceUID != sr.SOPInstanceUID
    )
    assert second.StudyInstanceUID == study_uid(phantom.folders[4])
    assert read_report(second).predecessor_sop_instance_uid == sr.SOPInstanceUID
    assert read_report(second).tracking_uid == report.tracking_uid
    node.stop()
    assert_no_identity(node, phantom)


@pytest.mark.usefixtures("dcmtk")
def test_the_same_images_sent_again_change_nothing(orthanc: Orthanc, node: Node, phantom: PhantomStudies) -> None:
    """Duplicates are answered with success and make no second report."""
    storescu(phantom.folders[:3], node)
    wait_for_report(node)
    storescu(phantom.folders[:3], node)
    wait_until("the duplicates to be read", lambda: not node.status()["files"].get("received"))
    status = node.status()
    assert status["files"]["duplicate"] == status["files"]["indexed"]
    assert status["runs"] == {"reported": 1}
    assert len(orthanc.instances(Comprehensive3DSRStorage)) == 1


@pytest.mark.usefixtures("dcmtk")
def test_a_pacs_that_is_down_delays_the_report_and_loses_nothing(
    orthanc: Orthanc, node: Node, phantom: PhantomStudies
) -> None:
    """The delivery is retried until the archive is back."""
    orthanc.stop()
    storescu(phantom.folders[:3], node)
    wait_until("a failed attempt", lambda: node.status()["deliveries"] == {"retrying": 1})
    assert node.case()["state"] == "running"
    orthanc.start()
    wait_for_report(node)
    assert len(orthanc.instances(Comprehensive3DSRStorage)) == 1
