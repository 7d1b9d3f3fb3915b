"""What a radiologist sees of our results in OHIF over Orthanc: text, colour, and the correction first."""

from __future__ import annotations

import io
import os
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib import image
from pydicom import dcmread

from sr_templates.sources import InstanceRef, Predecessor
from tests.factories.issued import issue, source_images
from tests.factories.ohif import CHROMIUM, browser_page, ohif, open_study
from tests.factories.peers import DICOMWEB_PLUGIN, Orthanc
from tests.factories.results import DAYS, SLICES, answer, report_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

pytestmark = pytest.mark.peer

FOLDER = "DICOM_NODE_OHIF"
SHOTS = "DICOM_NODE_SCREENSHOTS"
KINDS = ("saliency", "summary", "report")  # of the SR classes a destination gets one
IMAGE_AT = (925, 550)  # where the image lies on the page


@pytest.fixture(scope="module")
def dist() -> Path:
    """Return OHIF's built files."""
    pytest.importorskip("playwright", reason="playwright is not installed (extra dev)")
    folder = os.environ.get(FOLDER, "")
    places = (Path(folder), Path(folder) / "package" / "dist")
    found = next((each for each in places if (each / "index.html").is_file()), None)
    if not folder or found is None:
        pytest.skip(f"{FOLDER} names no folder with OHIF's files (npm package @ohif/app)")
    needed = [CHROMIUM, DICOMWEB_PLUGIN]
    missing = [each for each in needed if not Path(each).is_file()]
    if missing or shutil.which("Orthanc") is None:
        pytest.skip(f"not installed: {missing or 'Orthanc'} (Debian packages chromium, orthanc, orthanc-dicomweb)")
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    """The newest study with its report and captures, and a correction of the report."""
    folder = tmp_path_factory.mktemp("study")
    images = source_images(folder / "images")
    context = report_context(answer(0.11))
    first = issue(context, folder / "first", images)
    wrong = dcmread(first["report"])
    reference = InstanceRef(
        sop_class_uid=wrong.SOPClassUID,
        sop_instance_uid=wrong.SOPInstanceUID,
        series_instance_uid=wrong.SeriesInstanceUID,
        study_instance_uid=wrong.StudyInstanceUID,
    )
    record = replace(
        context.record,
        version=2,
        run_key="cd" * 32,
        issued_at=context.record.issued_at + timedelta(hours=1),
        predecessor=Predecessor(reports=(reference,), issued=context.record.issued_at.date(), replaced=True),
    )
    second = issue(report_context(answer(0.88), record=record), folder / "second", images)
    newest = [each for each in images if dcmread(each).StudyInstanceUID == wrong.StudyInstanceUID]
    taken = [each for objects in (second, first) for kind, each in objects.items() if kind in KINDS]
    return str(wrong.StudyInstanceUID), [*newest, *taken]


@pytest.fixture(scope="module")
def page(dist: Path, study: tuple[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """OHIF with the study open."""
    server = Orthanc(tmp_path_factory.mktemp("orthanc"), dicomweb=True)
    server.start()
    try:
        for each in study[1]:
            server.client.upload(each.read_bytes())
        with ohif(dist, server.http_port) as url, browser_page() as found:
            open_study(found, url, study[0])
            yield found
    finally:
        server.stop()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go, for people to look at."""
    folder = Path(os.environ.get(SHOTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_series(page: Page, description: str, number: int = 0) -> None:
    """Open one of the series of a description, counted as the viewer lists them."""
    page.get_by_text(description, exact=False).nth(number).dblclick(timeout=20_000)


def colours(png: bytes) -> int:
    """Count the clearly coloured pixels in the middle of a screenshot, where the image is."""
    pixels = image.imread(io.BytesIO(png))[..., :3]
    height, width, _ = pixels.shape
    middle = pixels[height // 4 : 3 * height // 4, width // 3 : 3 * width // 4]
    return int(np.count_nonzero(np.ptp(middle, axis=-1) > 0.3))


def test_the_report_shows_the_corrected_risk_and_the_dates_as_text(page: Page, shots: Path) -> None:
    """The first report in the list is the correction, and it says whose place it takes."""
    open_series(page, "RUO AI brain temporal")
    page.get_by_text("RESEARCH USE ONLY", exact=False).first.wait_for(timeout=30_000)
    text = page.inner_text("body")
    page.screenshot(path=shots / "report.png")
    assert "88 %" in text
    assert "11 %" not in text
    assert DAYS[-1].date().isoformat() in text
    assert "replaces the report of 2024-10-18" in text.lower()


def test_the_saliency_is_shown_in_colour_on_the_anatomy(page: Page, shots: Path) -> None:
    """Scrolled from the first slice on: far from the peak there is no colour, at the peak there is."""
    open_series(page, "RUO AI saliency")
    page.wait_for_timeout(4_000)
    page.mouse.move(*IMAGE_AT)
    counts = []
    for _ in range(SLICES):
        counts.append(colours(page.screenshot(path=shots / f"saliency-{len(counts) + 1}.png")))
        page.mouse.wheel(0, 100)
        page.wait_for_timeout(1_000)
    assert counts[0] == 0
    assert max(counts) > 200


def test_the_newest_summary_page_is_shown(page: Page, shots: Path) -> None:
    """As an image that fills the viewport; that of the correction is listed before the one it replaces."""
    listed = re.findall(r"S:\s*(\d+)", page.inner_text("body"))
    assert listed.index("8903") < listed.index("9003")
    open_series(page, "RUO AI summary")
    page.wait_for_timeout(5_000)
    shot = page.screenshot(path=shots / "summary.png")
    assert colours(shot) > 200
