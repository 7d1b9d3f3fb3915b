"""The summary page says what the report says, legibly, without names, and the same pixels every time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from inference.results import PrefixRisk, Result, SaliencyMap
from sr_templates import wording
from sr_templates.headers import to_bytes
from sr_templates.orthogonal_views import orthogonal_views
from sr_templates.page_text import width_px, wrapped
from sr_templates.sources import ReportContext
from sr_templates.summary_page import build_summary, draw_summary, render_summary
from sr_templates.template import load_template
from sr_templates.trajectory_chart import WATERMARK
from tests.factories.results import DAYS, ContextBuilder, answer, no_answer, report_context, saliency_map, time_point

TEMPLATE = load_template("glioma_recurrence")
GERMAN = load_template("glioma_recurrence.de")
LONG = "gap in the slices after slice 12 (expected 3.0 mm, found 9.0 mm) " * 3


def texts(figure: Figure) -> list[Text]:
    """Return every text that is seen on a page."""
    return [each for each in figure.findobj(Text) if each.get_visible() and each.get_text().strip()]


def assert_legible(figure: Figure) -> None:
    """Hold a page to what a reader needs: letters large enough, all on the page, none on another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [each for each in texts(figure) if each.get_gid() != WATERMARK]
    assert min(each.get_fontsize() for each in found) >= 9
    boxes = [(each.get_text(), each.get_window_extent(canvas.get_renderer())) for each in found]
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= 1024, text
        assert box.y1 <= 1024, text
    for (one, box), (other, its) in combinations(boxes, 2):
        width = min(box.x1, its.x1) - max(box.x0, its.x0)
        height = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert width <= 1 or height <= 3, (one, other)  # boxes reach beyond their letters


def history(gaps: list[int], risks: list[float], **changes: object) -> ReportContext:
    """Return a context of scans so many days apart with a probability after each."""
    day = datetime(2019, 3, 4, 9, 30, tzinfo=UTC)
    days = [day := day + timedelta(days=gap) for gap in gaps]
    trajectory = tuple(
        PrefixRisk(n_scans=n + 1, acquired=each.date(), probability=risk)
        for n, (each, risk) in enumerate(zip(days, risks, strict=False))
    )
    result = replace(answer(risks[len(days) - 1]), trajectory=trajectory, flags=())
    return ContextBuilder(result=result, days=tuple(days)).build(**changes)


def test_the_page_is_the_same_pixels_every_time_and_leaves_matplotlib_as_it_was() -> None:
    """No pyplot state is used or left behind."""
    before = dict(mpl.rcParams)
    first = render_summary(report_context(), TEMPLATE, saliency_map())
    second = render_summary(report_context(), TEMPLATE, saliency_map())
    assert first.shape == (1024, 1024, 3)
    assert np.array_equal(first, second)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("template", "saliency"), [(GERMAN, saliency_map()), (TEMPLATE, None)], ids=["German", "without saliency"]
)
@pytest.mark.parametrize(
    "result",
    [answer(), answer(0.42, synthetic=True), no_answer(), replace(answer(), trajectory=())],
    ids=["answer", "synthetic", "abstention", "no trajectory"],
)
def test_every_kind_of_page_is_legible(result: Result, saliency: SaliencyMap | None, template) -> None:  # type: ignore[no-untyped-def]
    """Nothing is too small, off the page or on top of another, however much there is to say."""
    context = report_context(result, phantom=True, remarks=(LONG,) * 9)
    assert_legible(draw_summary(context, template, saliency))


@given(
    gaps=st.lists(st.integers(1, 900), min_size=1, max_size=9),
    risks=st.lists(st.floats(0, 1), min_size=9, max_size=9),
    remarks=st.lists(st.text(max_size=400), max_size=8),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_and_any_remarks_make_a_legible_page(
    gaps: list[int], risks: list[float], remarks: list[str]
) -> None:
    """Scans a day or years apart, probabilities at the edges, remarks in any script, with dollar signs and breaks."""
    assert_legible(draw_summary(history(gaps, risks, remarks=tuple(remarks)), GERMAN, None))


@pytest.mark.parametrize(
    "result", [answer(), answer(0.42, synthetic=True), no_answer()], ids=["answer", "synthetic", "abstention"]
)
def test_the_page_says_what_the_report_says(result: Result) -> None:
    """Every line of the report's summary but the one that names this page, in the report's own words."""
    context = report_context(result, phantom=result.model.synthetic)
    page = " ".join(" ".join(each.get_text() for each in texts(draw_summary(context, TEMPLATE, None))).split())
    for line in wording.summary(context, TEMPLATE, ()):
        assert line in page


def test_a_long_reason_is_wrapped_whole() -> None:
    """One reason over several lines, nothing lost."""
    context = report_context(remarks=(LONG.strip(),))
    page = " ".join(" ".join(each.get_text() for each in texts(draw_summary(context, TEMPLATE, None))).split())
    assert " ".join(LONG.split()) in page


def test_what_does_not_fit_is_counted() -> None:
    """The reader is sent to the report, never left to think that this was all."""
    context = report_context(remarks=tuple(f"{n} {LONG}" for n in range(30)))
    said = [each.get_text() for each in texts(draw_summary(context, TEMPLATE, saliency_map()))]
    (more,) = [each for each in said if each.endswith("more lines: see the Structured Report")]
    assert int(more.split()[2]) > 20


def test_nothing_of_the_patient_s_identity_reaches_the_page() -> None:
    """Another name in another script, another ID and birth date: the very same pixels."""
    context = report_context()
    other = report_context()
    other.patient_study.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    other.patient_study.PatientID, other.patient_study.PatientBirthDate = "<script>alert(1)</script>", "19010101"
    assert np.array_equal(render_summary(context, TEMPLATE, None), render_summary(other, TEMPLATE, None))


def test_the_chart_tells_dates_probabilities_and_the_days_between() -> None:
    """What is under the curve and on it, and no risk band under a synthetic model or where there is no answer."""

    def said(result: Result) -> set[str]:
        return {each.get_text() for each in texts(draw_summary(report_context(result), TEMPLATE, None))}

    real = said(answer())
    assert {"2024-01-10", "93 d", "2024-04-12", "94 d", "95 d", "2024-10-18", "31 %", "42 %", "55 %"} <= real
    assert {"Low risk", "Moderate risk", "High risk"} <= real
    assert not {"Low risk", "Moderate risk", "High risk"} & (said(answer(synthetic=True)) | said(no_answer()))


def test_the_synthetic_page_says_so_in_place_of_a_band() -> None:
    """Large beside the number, and behind the curve."""
    context = report_context(answer(0.42, synthetic=True), phantom=True)
    found = texts(draw_summary(context, TEMPLATE, None))
    (band,) = [each for each in found if each.get_text() == "SYNTHETIC MODEL - NOT FOR CLINICAL USE"]
    assert band.get_fontsize() >= 14
    assert [each.get_text() for each in found if each.get_gid() == WATERMARK] == ["SYNTHETIC PHANTOM MODEL"]


def test_lines_are_broken_where_they_are_as_wide_as_the_room() -> None:
    """Measured in the font, not counted in letters; a word without spaces is broken, no letter is lost."""
    word = "W" * 200
    for line in (f"a {word} b", "i " * 400, "plain"):
        parts = wrapped([line], 300, 9, indent="  ")
        assert max(width_px(part, 9) for part in parts) <= 300
        assert "".join("".join(parts).split()) == "".join(line.split())


def test_a_run_of_one_scan_still_has_a_time_axis() -> None:
    """The date axis has a width."""
    context = report_context(replace(answer(), trajectory=(), flags=()), time_points=(time_point(DAYS[-1]),))
    assert_legible(draw_summary(context, TEMPLATE, None))


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
