"""`dicom-node demo` against a real archive: the files it leaves came back out of Orthanc."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from matplotlib import image
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, MultiFrameTrueColorSecondaryCaptureImageStorage

from sr_templates.read_report import read_report
from tests.factories.peers import DICOM_NODE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.factories.peers import Orthanc


@pytest.mark.peer
def test_the_demo_leaves_what_the_archive_holds(orthanc: Orthanc, tmp_path: Path) -> None:
    """Report, saliency, summary page, HTML and log; and the words "synthetic phantom" on the terminal."""
    out = tmp_path / "out"
    pacs = f"127.0.0.1:{orthanc.dicom_port}:ORTHANC"
    command = [*DICOM_NODE, "demo", "--out", str(out), "--pacs", pacs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "synthetic phantom" in done.stdout
    report = dcmread(out / "report.dcm")
    (held,) = orthanc.instances(Comprehensive3DSRStorage)
    assert report == held
    assert read_report(report).probability is not None
    assert any("PHANTOM" in line.upper() for line in read_report(report).summary)
    assert dcmread(out / "saliency.dcm").SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
    assert image.imread(out / "summary.png").shape[:2] == (1024, 1024)
    assert "synthetic" in (out / "report.html").read_text(encoding="utf-8").lower()
    assert "PHANTOM-" not in (out / "node.jsonl").read_text(encoding="utf-8")


def test_an_earlier_demo_is_not_overwritten(tmp_path: Path) -> None:
    """Its folder is named, and what to do about it."""
    (tmp_path / "data").mkdir()
    done = subprocess.run([*DICOM_NODE, "demo", "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "holds an earlier demo" in done.stderr
