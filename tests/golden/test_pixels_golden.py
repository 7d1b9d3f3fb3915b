"""The pixels of a stored result's capture and page: a change of what a radiologist sees is looked at before it counts.

After a wanted change: `UPDATE_GOLDEN=1 pytest tests/golden/test_pixels_golden.py`, then look at both pictures.
Letters are drawn by matplotlib, whose versions differ in a few grey values, so pictures with letters have a tolerance.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.results import Result
from sr_templates.drawing import margins
from sr_templates.saliency_capture import build_saliency
from sr_templates.summary_page import render_summary
from sr_templates.template import load_template
from tests.factories.results import DAYS, MATRIX, mr_header, report_context, saliency_map

FOLDER = Path(__file__).parent
TEMPLATE = load_template("glioma_recurrence")


@pytest.fixture(scope="module")
def result() -> Result:
    """Return the stored result, as a ledger would give it back."""
    return Result.from_json((FOLDER / "result.json").read_text(encoding="utf-8"))


def golden(name: str, found: np.ndarray) -> np.ndarray:
    """Return the reviewed picture."""
    path = FOLDER / f"{name}.png"
    if os.environ.get("UPDATE_GOLDEN"):
        Image.fromarray(found).save(path, optimize=True)
    with Image.open(path) as picture:
        return np.array(picture)


def assert_alike(found: np.ndarray, reviewed: np.ndarray) -> None:
    """Compare the mean of every 16 x 16 pixels: the edge of a letter may move within it, another digit shows."""
    assert found.shape == reviewed.shape
    rows, columns = (each // 16 * 16 for each in found.shape[:2])
    ours, theirs = (
        each[:rows, :columns].reshape(rows // 16, 16, columns // 16, 16, 3).mean(axis=(1, 3))
        for each in (found, reviewed)
    )
    assert np.abs(ours - theirs).max() < 12


def test_the_capture_looks_as_reviewed(result: Result) -> None:
    """The frame with the peak: its slice pixel by pixel, its legend by tolerance."""
    header = mr_header(DAYS[-1], "T1c", 0)
    frame = build_saliency(report_context(result), saliency_map(), header, template=TEMPLATE).pixel_array[3]
    reviewed = golden("saliency_frame", frame)
    above, beside = margins(4 * MATRIX, 4 * MATRIX)
    ours, theirs = (each[above:, :-beside].astype(int) for each in (frame, reviewed))
    assert np.abs(ours - theirs).max() <= 1  # a last bit of interpolation
    assert_alike(frame, reviewed)


def test_the_page_looks_as_reviewed(result: Result) -> None:
    """The whole page by tolerance."""
    page = render_summary(report_context(result), TEMPLATE, saliency_map())
    assert_alike(page, golden("summary_page", page))


def test_the_tolerance_is_too_small_for_another_number(result: Result) -> None:
    """One other probability in the answer is another page: the check can fail."""
    reviewed = golden("summary_page", render_summary(report_context(result), TEMPLATE, saliency_map()))
    other = Result.from_json(result.to_json().replace("0.713", "0.313"))
    with pytest.raises(AssertionError):
        assert_alike(render_summary(report_context(other), TEMPLATE, saliency_map()), reviewed)
