"""The probability over the dates of the scans, with risk bands and the ensemble's interval at the newest scan."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from matplotlib.dates import date2num, num2date
from matplotlib.patheffects import withStroke

from sr_templates import wording
from sr_templates.drawing import FONT, drawable
from sr_templates.page_text import width_px

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

INK: Final = "#f2f4f5"
SOFT: Final = "#a9b6bf"
WARNING: Final = "#ffd54f"
WATERMARK: Final = "watermark"  # the one text that others may stand on
_LINE: Final = "#4fc3f7"
_GROUND: Final = "#171d23"
_BAND_COLOURS: Final = ("#1b5e20", "#8d6e00", "#8e2430")
_SMALL: Final = 9.0
_BEFORE_PX: Final = 48  # between the frame and the oldest scan
_AFTER_PX: Final = 78  # the newest probability stands there
_NAMES_PX: Final = 128  # the names of the bands stand there
_APART_PX: Final = {"probability": 50, "date": 88, "gap": 148, "band": 15}


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A place on the page in pixels, from its upper left corner."""

    left: float
    top: float
    width: float
    height: float


def draw_trajectory(figure: Figure, box: Box, context: ReportContext, template: ReportTemplate) -> None:
    """Draw the chart; a synthetic model has no risk bands, and a run without an answer no curve."""
    synthetic = context.result.model.synthetic
    width = box.width if synthetic else box.width - _NAMES_PX
    size = figure.get_size_inches() * figure.dpi
    place = (box.left / size[0], 1 - (box.top + box.height) / size[1], width / size[0], box.height / size[1])
    axes = figure.add_axes(place, facecolor=_GROUND)
    scans = [_day(point.acquired) for point in context.time_points]
    days_per_px = (scans[-1] - scans[0]) / (width - _BEFORE_PX - _AFTER_PX) or 1.0
    axes.set_xlim(scans[0] - _BEFORE_PX * days_per_px, scans[-1] + _AFTER_PX * days_per_px)
    axes.set_ylim(0, 100)
    known = _points(context, template, scans)
    if synthetic:
        _draw_watermark(axes, template.wording.page.synthetic, width)
    elif known:
        _draw_bands(axes, template, box.height)
    if known:
        _draw_interval(axes, context, template, scans[-1])
        _draw_curve(axes, known, newest=scans[-1], days_per_px=days_per_px, edges=template.main.edges)
    else:
        _write(axes, 0.5, 0.2, template.wording.page.no_answer, transform=axes.transAxes, ha="center", fontsize=14)
    _label_axes(axes, scans, days_per_px)


def _day(moment: datetime) -> float:
    """Return the middle of the day, so that points stand on their date."""
    return float(date2num(datetime.combine(moment.date(), time(12), tzinfo=None)))


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    shown = {"family": FONT, "color": INK, "fontsize": _SMALL, "va": "center", "parse_math": False, **style}
    axes.text(x, y, drawable(text), **shown)


def _draw_watermark(axes: Axes, text: str, room_px: float) -> None:
    size = min(26.0, 26.0 * 0.9 * room_px / width_px(drawable(text, bold=True), 26.0, bold=True))
    _write(
        axes, 0.5, 0.5, text, transform=axes.transAxes, ha="center", fontsize=size, color=WARNING, alpha=0.25,
        weight="bold", zorder=1, gid=WATERMARK,
    )  # fmt: skip


def _draw_bands(axes: Axes, template: ReportTemplate, height_px: float) -> None:
    """Draw the risk bands behind the curve, their names beside them, moved up where bands are narrow."""
    lowest_px = 0.0
    for index, band in enumerate(template.main.bands):
        colour = _BAND_COLOURS[min(index, len(_BAND_COLOURS) - 1)]
        axes.axhspan(100 * band.lower, 100 * band.upper, color=colour, alpha=0.35, linewidth=0)
        middle_px = max((band.lower + band.upper) / 2 * height_px, lowest_px)
        _write(axes, 1.01, middle_px / height_px, _shortened(band.label), transform=axes.transAxes, color=SOFT)
        lowest_px = middle_px + _APART_PX["band"]


def _shortened(text: str) -> str:
    """Return what fits beside the bands of a name; the answer says it whole."""
    while width_px(drawable(text), _SMALL) > _NAMES_PX - 10:
        text = text.rstrip("\u2026")[:-1] + "\u2026"
    return text


def _points(context: ReportContext, template: ReportTemplate, scans: list[float]) -> list[tuple[float, float]]:
    """Return day and percentage of every probability that the result knows, oldest first."""
    known = {scans[each.n_scans - 1]: 100 * each.probability for each in context.result.trajectory}
    for each in context.result.outputs:
        if each.name == template.primary:
            known[scans[-1]] = 100 * each.probability
    return sorted(known.items())


def _draw_curve(
    axes: Axes, known: list[tuple[float, float]], *, newest: float, days_per_px: float, edges: Sequence[float]
) -> None:
    """Draw the curve; a number for which there is no room stands in the list of scans."""
    axes.plot(*zip(*known, strict=True), color=_LINE, marker="o", linewidth=2, markersize=7, clip_on=False)
    last = float("inf")
    for x, y in reversed(known):
        if (last - x) / days_per_px < _APART_PX["probability"]:
            continue
        last = x
        axes.annotate(
            wording.percent(round(y / 100, 12), edges), (x, y), textcoords="offset pixels", color=INK, family=FONT,
            path_effects=[withStroke(linewidth=3, foreground=_GROUND)], **_place(y, newest=x == newest),
        )  # fmt: skip


def _place(y: float, *, newest: bool) -> dict[str, Any]:
    """Return where a number stands: beside the newest point, whose interval is drawn, else above or below its own."""
    if newest:
        return {"xytext": (11, 0), "ha": "left", "va": "center", "fontsize": 11, "weight": "bold"}
    above = y < 85
    return {"xytext": (0, 10 if above else -10), "ha": "center", "va": "bottom" if above else "top", "fontsize": 10}


def _draw_interval(axes: Axes, context: ReportContext, template: ReportTemplate, newest: float) -> None:
    """Draw the ensemble's interval at the newest scan."""
    for each in context.result.outputs:
        if each.name == template.primary and each.lower is not None and each.upper is not None:
            ends = [100 * each.lower, 100 * each.upper]
            axes.plot([newest, newest], ends, color=_LINE, linewidth=5, alpha=0.5, solid_capstyle="butt")


def _label_axes(axes: Axes, scans: list[float], days_per_px: float) -> None:
    """Write the dates, newest first, as far as there is room, and between them how many days lie there."""
    dated: list[float] = []
    for scan in reversed(scans):
        if not dated or (dated[-1] - scan) / days_per_px >= _APART_PX["date"]:
            dated.append(scan)
    axes.set_xticks(scans, ["" for _ in scans])
    below = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "color": SOFT}
    for scan in dated:
        _write(axes, scan, -0.05, num2date(scan).date().isoformat(), **{**below, "color": INK})
    for older, newer in pairwise(scans):
        if older in dated and newer in dated and (newer - older) / days_per_px >= _APART_PX["gap"]:
            _write(axes, (older + newer) / 2, -0.05, f"{round(newer - older)} d", **below)
    levels = [0, 25, 50, 75, 100]
    axes.set_yticks(levels, [f"{each} %" for each in levels], fontsize=_SMALL, color=SOFT, family=FONT)
    axes.tick_params(colors=SOFT)
    for spine in axes.spines.values():
        spine.set_color("#39444d")
