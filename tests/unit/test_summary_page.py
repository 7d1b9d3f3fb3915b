"""The summary page is readable, deterministic and free of names."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

from sr_templates.headers import to_bytes
from sr_templates.orthogonal_views import orthogonal_views
from sr_templates.summary_page import build_summary, render_summary
from sr_templates.template import load_template
from tests.factories.results import DAYS, answer, no_answer, report_context, saliency_map, time_point

TEMPLATE = load_template("glioma_recurrence")


def test_the_page_is_the_same_pixels_every_time_and_leaves_matplotlib_as_it_was() -> None:
    """No pyplot state is used or left behind."""
    before = dict(mpl.rcParams)
    first = render_summary(report_context(), TEMPLATE, saliency_map())
    second = render_summary(report_context(), TEMPLATE, saliency_map())
    assert first.shape == (1024, 1024, 3)
    assert np.array_equal(first, second)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("result", [no_answer(), replace(answer(), trajectory=())], ids=["abstention", "no trajectory"])
def test_a_run_without_saliency_or_trajectory_still_has_a_page(result) -> None:  # type: ignore[no-untyped-def]
    """What is missing is said, not drawn."""
    assert render_summary(report_context(result), TEMPLATE, None).std() > 0


def test_one_scan_and_many_remarks_fit_on_the_page() -> None:
    """The date axis has a width, and small print that does not fit is counted."""
    result = replace(answer(), trajectory=(), flags=())
    remarks = tuple(f"remark number {n} " + "word " * 40 for n in range(20))
    context = report_context(result, time_points=(time_point(DAYS[-1]),), remarks=remarks)
    page = render_summary(context, TEMPLATE, None)
    assert np.array_equal(page[-8:], np.broadcast_to(page[-1, -1], page[-8:].shape))


def test_the_synthetic_page_differs_and_says_so_at_the_top() -> None:
    """Two more lines of warning stand above the answer."""
    real = render_summary(report_context(), TEMPLATE, None)
    synthetic = render_summary(report_context(answer(synthetic=True), phantom=True), TEMPLATE, None)
    assert synthetic[35:70].max() > 200
    assert real[35:70].max() < 40


def test_the_capture_of_the_page_is_a_declared_secondary_capture() -> None:
    """Right class, dates declared as burned in, sources named, equal bytes."""
    context = report_context()
    page = render_summary(context, TEMPLATE, saliency_map())
    ds = build_summary(context, page, template=TEMPLATE)
    assert np.array_equal(ds.pixel_array, page)
    assert (ds.Modality, ds.ConversionType, ds.BurnedInAnnotation) == ("OT", "WSD", "YES")
    assert len(ds.SourceImageSequence) == 8
    assert to_bytes(ds) == to_bytes(build_summary(context, page, template=TEMPLATE))


def test_the_views_show_the_peak_in_radiological_orientation() -> None:
    """The spot is on the patient's left and front: right of the middle and in the upper half of the axial cut."""
    saliency = saliency_map(peak=(2, 16, 44))
    axial, coronal, sagittal = orthogonal_views(saliency, threshold=0.4, size_px=220)
    for view, expected in ((axial, (48, 36)), (coronal, (0, 36)), (sagittal, (0, -48))):
        warm = np.argwhere(np.ptp(view.pixels.astype(int), axis=-1) > 40) - 109.5
        row, column = warm.mean(axis=0)
        assert column == pytest.approx(expected[1], abs=3), view.name
        assert row == pytest.approx(-expected[0], abs=3), view.name
