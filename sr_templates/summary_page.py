"""One page to read at a glance: the answer, its trajectory over the scans, the saliency, what was used and what not.

No patient name stands on it. It is a picture for PACS that show no Structured Reports, and for the reader in a hurry.
"""

from __future__ import annotations

import textwrap
from datetime import datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.dates import date2num, num2date
from matplotlib.patheffects import withStroke
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from inference.results import SourceSlice
from sr_templates import wording
from sr_templates.drawing import FONT, blank, rendered
from sr_templates.headers import describe_series, new_object
from sr_templates.orthogonal_views import orthogonal_views
from sr_templates.template import check_outputs
from sr_templates.true_colour import add_true_colour_pixels, source_images
from sr_templates.uids import series_instance_uid, sop_instance_uid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from inference.results import SaliencyMap
    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

SERIES_NUMBER = 9003
_SIZE_PX = 1024
_VIEW_PX = 320
_OUTLINED = [withStroke(linewidth=2.5, foreground="black")]  # legible on bone too
_WRAP = 112  # characters of the small print in a line
_LINES = 13  # of the small print on the page, the model among them
_MODEL_LINES = 4
_BACKGROUND, _INK, _SOFT, _WARNING, _LINE = "#101418", "#f2f4f5", "#9aa7b0", "#ffd54f", "#4fc3f7"
_BAND_COLOURS = ("#1b5e20", "#8d6e00", "#8e2430")


def render_summary(context: ReportContext, template: ReportTemplate, saliency: SaliencyMap | None) -> NDArray[np.uint8]:
    """Return the page as RGB pixels, shape (1024, 1024, 3); `saliency` is of the newest scan, None if there is none.

    Raises:
        ReportError: if the template does not know an output of the result, or its primary one is missing.
    """
    check_outputs(template, context.result)
    figure = blank(_SIZE_PX, _SIZE_PX, colour=_BACKGROUND)
    _draw_warnings(figure, context, template)
    _draw_answer(figure, context, template)
    _draw_trajectory(figure, context, template)
    _draw_views(figure, context, template, saliency)
    _draw_small_print(figure, context, template)
    return np.ascontiguousarray(rendered(figure)[..., :3])


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


def _write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write text at a place in figure coordinates, from its upper left corner unless told otherwise."""
    figure.text(x, y, text, **{"family": FONT, "color": _INK, "va": "top", "fontsize": 8, **style})


def _draw_warnings(figure: Figure, context: ReportContext, template: ReportTemplate) -> None:
    """Draw what must be read first, across the top."""
    text = "\n".join(wording.warnings(context, template))
    _write(figure, 0.5, 0.985, text, ha="center", color=_WARNING, weight="bold", fontsize=10, linespacing=1.4)


def _draw_answer(figure: Figure, context: ReportContext, template: ReportTemplate) -> None:
    """Draw the primary answer large, and the sentence that says what it means below it."""
    primary = next((each for each in context.result.outputs if each.name == template.primary), None)
    _write(
        figure,
        0.05,
        0.895,
        template.wording.page.no_answer if primary is None else wording.percent(primary.probability),
        fontsize=34,
    )
    sentence = "\n".join("\n".join(textwrap.wrap(line, 74)) for line in wording.answers(context, template))
    _write(figure, 0.26, 0.89, sentence, fontsize=11, linespacing=1.45)


def _draw_trajectory(figure: Figure, context: ReportContext, template: ReportTemplate) -> None:
    """Draw the probability over the dates of the scans; a synthetic model has no risk bands."""
    axes = figure.add_axes((0.09, 0.585, 0.86, 0.20), facecolor="#171d23")
    axes.set_title(template.wording.page.trajectory, loc="left", fontsize=9, color=_INK, family=FONT)
    scans = [date2num(_noon(point.acquired)) for point in context.time_points]
    margin = max((scans[-1] - scans[0]) * 0.08, 10.0)
    axes.set_xlim(scans[0] - margin, scans[-1] + margin)
    axes.set_ylim(0, 100)
    if context.result.model.synthetic:
        axes.text(
            0.5, 0.5, template.wording.page.synthetic, transform=axes.transAxes, ha="center", va="center", family=FONT,
            fontsize=26, color=_WARNING, alpha=0.28, weight="bold",
        )  # fmt: skip
    else:
        _draw_bands(axes, template)
    known = [(scans[each.n_scans - 1], 100 * each.probability) for each in context.result.trajectory]
    if known:
        axes.plot(*zip(*known, strict=True), color=_LINE, marker="o", linewidth=2, markersize=7)
    for x, y in known:
        beside = x == scans[-1]  # the interval stands there
        axes.annotate(
            wording.percent(y / 100), (x, y), xytext=(-9, 5) if beside else (0, -16 if y > 85 else 8),
            textcoords="offset points", ha="right" if beside else "center", color=_INK, fontsize=9, family=FONT,
        )  # fmt: skip
    _draw_interval(axes, context, template, scans[-1])
    _label_axes(axes, scans)


def _draw_bands(axes: Axes, template: ReportTemplate) -> None:
    """Draw the risk bands behind the curve, their names at the right."""
    for index, band in enumerate(template.main.bands):
        colour = _BAND_COLOURS[min(index, len(_BAND_COLOURS) - 1)]
        axes.axhspan(100 * band.lower, 100 * band.upper, color=colour, alpha=0.35, linewidth=0)
        middle = (band.lower + band.upper) / 2
        axes.text(
            0.005, middle, band.label, transform=axes.transAxes, va="center", fontsize=8, color=_SOFT, family=FONT
        )


def _draw_interval(axes: Axes, context: ReportContext, template: ReportTemplate, newest: float) -> None:
    """Draw the ensemble's interval at the newest scan."""
    for each in context.result.outputs:
        if each.name == template.primary and each.lower is not None and each.upper is not None:
            axes.plot([newest, newest], [100 * each.lower, 100 * each.upper], color=_LINE, linewidth=5, alpha=0.45)


def _label_axes(axes: Axes, scans: list[float]) -> None:
    """Label the axes; a date that would be written over the one before it is left to its tick mark."""
    span = axes.get_xlim()[1] - axes.get_xlim()[0]
    labels, last = [], -np.inf
    for scan in scans:
        readable = scan - last > 0.09 * span
        labels.append(num2date(scan).date().isoformat() if readable else "")
        last = scan if readable else last
    axes.set_xticks(scans, labels, fontsize=8, color=_SOFT, family=FONT)
    axes.set_yticks(
        [0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"], fontsize=8, color=_SOFT, family=FONT
    )
    axes.tick_params(colors=_SOFT)
    for spine in axes.spines.values():
        spine.set_color("#39444d")


def _draw_views(figure: Figure, context: ReportContext, template: ReportTemplate, saliency: SaliencyMap | None) -> None:
    """Draw three cuts through the peak of the newest scan's saliency."""
    if saliency is None:
        _write(figure, 0.5, 0.38, template.wording.page.no_saliency, ha="center", fontsize=12, color=_SOFT)
        return
    day = context.time_points[saliency.time_point].acquired.date().isoformat()
    threshold = template.saliency_threshold
    caption = template.wording.page.views.format(
        warning=template.wording.not_a_lesion, date=day, threshold=f"{threshold:.1f}"
    )
    _write(figure, 0.05, 0.545, caption, fontsize=9, color=_WARNING)
    width = _VIEW_PX / _SIZE_PX
    gap = (1 - 3 * width) / 4
    views = orthogonal_views(saliency, threshold=threshold, size_px=_VIEW_PX)
    for index, view in enumerate(views):
        left = gap + index * (width + gap)
        axes = figure.add_axes((left, 0.21, width, width))
        axes.imshow(view.pixels, interpolation="nearest")
        axes.set_axis_off()
        beside, above = view.letters
        for x, y, letter in ((0.03, 0.5, beside), (0.5, 0.96, above), (0.97, 0.04, view.name)):
            axes.text(
                x, y, letter, transform=axes.transAxes, color=_INK, fontsize=9, family=FONT, va="center",
                ha="right" if letter == view.name else "center", path_effects=_OUTLINED,
            )  # fmt: skip


def _draw_small_print(figure: Figure, context: ReportContext, template: ReportTemplate) -> None:
    """Write what was used, what was not, and which model answered; what does not fit stands in the report."""
    words, name = template.wording.page, context.result.saliency_method
    model = _wrapped(wording.model(context, template))[:_MODEL_LINES]
    method = (words.method.format(method=name),) if name else ()
    selection = (*wording.scans(context, template), *wording.predecessor(context, template))
    used = _wrapped((*selection, *wording.remarks(context, template), *method))
    room = _LINES - len(model)
    if len(used) > room:
        used = [*used[: room - 1], words.more.format(count=len(used) - room + 1)]
    _write(figure, 0.05, 0.195, "\n".join((*used, *model)), fontsize=8.5, linespacing=1.25)


def _wrapped(lines: tuple[str, ...]) -> list[str]:
    """Return the lines, long ones continued with an indent."""
    return [part for line in lines for part in textwrap.wrap(line, _WRAP, subsequent_indent="    ")]


def _noon(moment: datetime) -> datetime:
    """Return the middle of the day, so that points stand on their date."""
    return datetime.combine(moment.date(), time(12), tzinfo=None)
