"""One page to read at a glance: the answer, its trajectory over the scans, the saliency, what was used and what not.

No patient name stands on it. It is a picture for PACS that show no Structured Reports, and for the reader in a hurry.
Everything on it is a sentence of the report; sizes are pixels from the upper left corner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.patheffects import withStroke
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from inference.results import SourceSlice
from sr_templates import wording
from sr_templates.drawing import DPI, FONT, blank, hot_colours, rendered
from sr_templates.headers import describe_series, new_object
from sr_templates.orthogonal_views import orthogonal_views
from sr_templates.page_text import cut, width_px, wrapped
from sr_templates.template import check_outputs
from sr_templates.trajectory_chart import INK, SOFT, WARNING, Box, draw_trajectory
from sr_templates.true_colour import add_true_colour_pixels, source_images
from sr_templates.uids import series_instance_uid, sop_instance_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from inference.results import SaliencyMap
    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

SERIES_NUMBER: Final = 9003
_SIZE: Final = 1024
_MARGIN: Final = 36
_ROOM: Final = _SIZE - 2 * _MARGIN
_BACKGROUND: Final = "#101418"
_CINE_BAR: Final = 92  # pixels at the top, behind which OHIF 3.12 shows its cine bar: only the warnings may lie there
_SMALL: Final = 9.0  # points; anything smaller cannot be read when the page is shown at 1024 pixels
_CHART: Final = 180  # high
_CHART_LEFT: Final = 76
_VIEW: Final = 300
_LEFT_COLUMN: Final = 512  # of what was used
_GAP: Final = 24  # between the columns
_PRINT_SIZES: Final = (11.0, 10.0, _SMALL)
_INDENT: Final = "    "
_MODEL_LINES: Final = 4
_ANSWER_LINES: Final = 6
_OUTLINED: Final = [withStroke(linewidth=2.5, foreground="black")]  # legible on bone too


def render_summary(context: ReportContext, template: ReportTemplate, saliency: SaliencyMap | None) -> NDArray[np.uint8]:
    """Return the page as RGB pixels, shape (1024, 1024, 3); `saliency` is of the newest scan, None if there is none.

    Raises:
        ReportError: if the template does not know an output of the result, or its primary one is missing.
    """
    return np.ascontiguousarray(rendered(draw_summary(context, template, saliency))[..., :3])


def draw_summary(context: ReportContext, template: ReportTemplate, saliency: SaliencyMap | None) -> Figure:
    """Return the page as a figure, drawn from the top downward.

    Raises:
        ReportError: if the template does not know an output of the result, or its primary one is missing.
    """
    check_outputs(template, context.result)
    figure = blank(_SIZE, _SIZE, colour=_BACKGROUND)
    top = max(_draw_warnings(figure, context, template), _CINE_BAR)
    top = _draw_answer(figure, top, context, template)
    top = _draw_chart(figure, top, context, template)
    top = _draw_saliency(figure, top, context, template, saliency)
    _draw_small_print(figure, top, context, template)
    return figure


def build_summary(context: ReportContext, pixels: NDArray[np.uint8], *, template: ReportTemplate) -> Dataset:
    """Return the page as a Secondary Capture, filed in the newest study."""
    sop_class_uid = SecondaryCaptureImageStorage
    ds = new_object(context, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid(context, sop_class_uid))
    describe_series(
        ds,
        uid=series_instance_uid(context, "summary"),
        number=SERIES_NUMBER,
        modality="OT",
        description=template.series_descriptions.summary,
        version=context.record.version,
    )
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.BodyPartExamined = "HEAD"
    ds.PatientOrientation = ""
    ds.ImageComments = ". ".join(wording.warnings(context, template))
    ds.SourceImageSequence = source_images(
        SourceSlice(
            sop_class_uid=series.representative.sop_class_uid,
            sop_instance_uid=series.representative.sop_instance_uid,
            frame=series.representative_frame,
        )
        for point in context.time_points
        for series in point.series
    )
    add_true_colour_pixels(ds, pixels)
    return ds


def _line_px(points: float) -> float:
    """Return the height of a line of text."""
    return round(points * 1.32 * DPI / 72)


def _write(figure: Figure, left: float, top: float, lines: Sequence[str], *, points: float, **style: Any) -> float:
    """Write lines, wrapped before, downward from a place and return where they end."""
    for index, line in enumerate(lines):
        y = top + (index + 0.5) * _line_px(points)
        how = {"family": FONT, "color": INK, "va": "center_baseline", "parse_math": False, "fontsize": points, **style}
        figure.text(left / _SIZE, 1 - y / _SIZE, line, **how)
    return top + len(lines) * _line_px(points)


def _draw_warnings(figure: Figure, context: ReportContext, template: ReportTemplate) -> float:
    """Draw what must be read first, across the top and never cut."""
    lines = wrapped(wording.warnings(context, template), _ROOM, 10, bold=True)
    return _write(figure, _SIZE / 2, 8, lines, points=10, ha="center", color=WARNING, weight="bold") + 10


def _draw_answer(figure: Figure, top: float, context: ReportContext, template: ReportTemplate) -> float:
    """Draw the primary answer large, beside it what it means: its band or that there is none, and the sentence."""
    primary = next((each for each in context.result.outputs if each.name == template.primary), None)
    words = template.wording.page
    large = words.no_answer if primary is None else wording.percent(primary.probability, template.main.edges)
    points = 40 if primary is not None else 24
    (large,) = wrapped([large], _ROOM / 2, points)[:1]
    bottom = _write(figure, _MARGIN, top, [large], points=points)
    left = _MARGIN + width_px(large, points) + 32
    beside = top + 2
    if primary is not None:
        synthetic = context.result.model.synthetic
        band = wrapped([wording.category(context, template, primary)], _SIZE - _MARGIN - left, 14, bold=True)
        beside = _write(figure, left, beside, band, points=14, weight="bold", color=WARNING if synthetic else INK)
    sentences = wrapped(wording.answers(context, template), _SIZE - _MARGIN - left, 10.5)
    beside = _write(figure, left, beside + 2, cut(sentences, _ANSWER_LINES, words.more), points=10.5)
    return max(bottom, beside) + 10


def _draw_chart(figure: Figure, top: float, context: ReportContext, template: ReportTemplate) -> float:
    """Draw how the probability went over the scans, with room below for the dates."""
    title = wrapped([template.wording.page.trajectory], _SIZE - _MARGIN - _CHART_LEFT, _SMALL)
    top = _write(figure, _CHART_LEFT, top, title, points=_SMALL) + 8
    box = Box(left=_CHART_LEFT, top=top, width=_SIZE - _MARGIN - _CHART_LEFT, height=_CHART)
    draw_trajectory(figure, box, context, template)
    return top + _CHART + 34


def _draw_saliency(
    figure: Figure, top: float, context: ReportContext, template: ReportTemplate, saliency: SaliencyMap | None
) -> float:
    """Draw three cuts through the peak of the newest scan's saliency, with the scale of their colours."""
    words = template.wording
    if saliency is None:
        return _write(figure, _MARGIN, top, wrapped([words.page.no_saliency], _ROOM, 11), points=11, color=SOFT) + 14
    day = context.time_points[saliency.time_point].acquired.date().isoformat()
    threshold = template.saliency_threshold
    caption = words.page.views.format(warning=words.not_a_lesion, date=day, threshold=f"{threshold:.1f}")
    lines = wrapped([caption], _ROOM - 190, _SMALL)
    _draw_scale(figure, top, threshold)
    top = _write(figure, _MARGIN, top, lines, points=_SMALL, color=WARNING) + 4
    step = _VIEW + (_ROOM - 3 * _VIEW) / 2
    for index, view in enumerate(orthogonal_views(saliency, threshold=threshold, size_px=_VIEW)):
        left = _MARGIN + index * step
        axes = figure.add_axes((left / _SIZE, 1 - (top + _VIEW) / _SIZE, _VIEW / _SIZE, _VIEW / _SIZE))
        axes.imshow(view.pixels, interpolation="nearest")
        axes.set_axis_off()
        beside, above = view.letters
        for x, y, letter in ((0.04, 0.5, beside), (0.5, 0.95, above), (0.97, 0.05, view.name)):
            axes.text(
                x, y, letter, transform=axes.transAxes, color=INK, fontsize=10, family=FONT, va="center",
                ha="right" if letter == view.name else "center", path_effects=_OUTLINED,
            )  # fmt: skip
    return top + _VIEW + 10


def _draw_scale(figure: Figure, top: float, threshold: float) -> None:
    """Draw the colours from the threshold to 1 at the right end of the caption."""
    width, height = 96, 10
    left = _SIZE - _MARGIN - width - 28
    colours = hot_colours(np.linspace(threshold, 1.0, width), threshold)[np.newaxis]  # (1, width, 3)
    y = 1 - (top + 3 + height) / _SIZE
    axes = figure.add_axes((left / _SIZE, y, width / _SIZE, height / _SIZE))
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    axes.set_axis_off()
    _write(figure, left - 6, top, [f"{threshold:.1f}"], points=_SMALL, ha="right")
    _write(figure, left + width + 6, top, ["1.0"], points=_SMALL)


def _draw_small_print(figure: Figure, top: float, context: ReportContext, template: ReportTemplate) -> None:
    """Write what was used, beside it what was not and why, below it which model answered.

    As large as the room allows without breaking the line of a scan. What does not fit at the smallest size is counted;
    it stands in the report.
    """
    words, method = template.wording.page, context.result.saliency_method
    model = cut(wrapped(wording.model(context, template), _ROOM, _SMALL, indent=_INDENT), _MODEL_LINES, words.more)
    bottom = _SIZE - 8 - len(model) * _line_px(_SMALL)
    _write(figure, _MARGIN, bottom, model, points=_SMALL, color=SOFT)
    how = (words.method.format(method=method),) if method else ()
    scans = wording.scans(context, template)
    used = (*scans, *wording.predecessor(context, template), *how)
    unused = wording.remarks(context, template)
    for points in _PRINT_SIZES:
        left = wrapped(used, _LEFT_COLUMN, points, indent=_INDENT)
        right = wrapped(unused, _ROOM - _LEFT_COLUMN - _GAP, points, indent=_INDENT)
        room = int((bottom - 6 - top) // _line_px(points))
        unbroken = len(wrapped(scans, _LEFT_COLUMN, points)) == len(scans)
        if unbroken and max(len(left), len(right)) <= room:
            break
    _write(figure, _MARGIN, top, cut(left, room, words.more), points=points)
    _write(figure, _MARGIN + _LEFT_COLUMN + _GAP, top, cut(right, room, words.more), points=points)
