"""Text and colour for pixel objects, drawn with matplotlib's Agg objects: no pyplot, no display, no module state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FONT = "DejaVu Sans"  # ships with matplotlib, so that the same text gives the same pixels everywhere
DPI = 100
_DARKEST = 0.35  # where the colour map begins: below it, colours cannot be told from dark anatomy
_OPACITY = 0.5
_ABOVE, _BESIDE = 0.18, 0.08  # shares of a captioned image that its lines and its colour bar take


def rendered(figure: Figure) -> NDArray[np.uint8]:
    """Return the pixels of a figure, shape (H, W, 4), not premultiplied."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)


def blank(rows: int, columns: int, *, colour: str = "none") -> Figure:
    """Return an empty figure of exactly that many pixels."""
    return Figure(figsize=(columns / DPI, rows / DPI), dpi=DPI, facecolor=colour)


def font(*, points: float, bold: bool = False) -> FontProperties:
    """Return the font of everything that is written."""
    return FontProperties(family=FONT, weight="bold" if bold else "normal", size=points)


def drawable(text: str, *, bold: bool = False) -> str:
    """Return the text with a question mark for every character that the font has no shape for."""
    known = get_font(findfont(font(points=10, bold=bold))).get_charmap()
    return "".join(each if ord(each) in known else "?" for each in text)


def hot_colours(values: NDArray[np.floating], threshold: float) -> NDArray[np.uint8]:
    """Return colours for values between `threshold` and 1; shape (..., 3)."""
    share = np.clip((values - threshold) / (1.0 - threshold), 0.0, 1.0)
    rgba = mpl.colormaps["inferno"](_DARKEST + (1.0 - _DARKEST) * share)
    return np.asarray(np.round(rgba[..., :3] * 255), dtype=np.uint8)


def windowed(anatomy: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return anatomy as grey values, window from the 1st to the 99.5th percentile of what is not air."""
    tissue = anatomy[anatomy > np.mean(anatomy) * 0.3]
    low, high = np.percentile(tissue, (1, 99.5)) if tissue.size else (0.0, 1.0)
    low = min(float(low), float(high) * 0.1)  # keep air black where tissue begins bright
    return np.asarray(np.round(np.clip((anatomy - low) / max(high - low, 1e-6), 0, 1) * 255), dtype=np.uint8)


def fused(grey: NDArray[np.uint8], values: NDArray[np.floating], threshold: float) -> NDArray[np.uint8]:
    """Return grey anatomy with colour only where `values` reach the threshold; shape (..., 3)."""
    rgb = np.repeat(grey[..., np.newaxis], 3, axis=-1)  # (..., Y, X, 3)
    warm = values >= threshold
    colour = hot_colours(values[warm], threshold)
    rgb[warm] = np.round((1 - _OPACITY) * rgb[warm] + _OPACITY * colour).astype(np.uint8)
    return rgb


def margins(rows: int, columns: int) -> tuple[int, int]:
    """Return how many rows above and columns to the right of an image its legend needs."""
    return round(rows * _ABOVE / (1 - _ABOVE)), round(columns * _BESIDE / (1 - _BESIDE))


def legend(rows: int, columns: int, lines: Sequence[str], threshold: float) -> NDArray[np.uint8]:
    """Return a transparent layer (H, W, 4) for an image with its margins: `lines` at mid-top, a colour bar mid-right.

    Viewers write their own text into the corners and the bottom, so nothing of ours stands there.
    """
    figure = blank(rows, columns)
    longest = max(len(line) for line in lines)
    size_px = min(_ABOVE * rows / (1.3 * len(lines)), 0.7 * columns / (0.62 * longest))
    text: dict[str, Any] = {"family": FONT, "ha": "center", "parse_math": False}
    points = size_px * 72 / DPI
    warning = "\n".join(drawable(each) for each in lines)
    figure.text(0.5, 1 - 0.08 * _ABOVE, warning, size=points, color="#ffd54f", va="top", **text)
    top, bottom, left, right = 0.70, 0.35, 1 - 0.62 * _BESIDE, 1 - 0.28 * _BESIDE
    small = min(points, 0.34 * _BESIDE * columns * 72 / DPI)
    for height, label, side in ((top, "1.0", "bottom"), (bottom, f"{threshold:.1f}", "top")):
        figure.text((left + right) / 2, height, label, size=small, color="white", va=side, **text)
    layer = rendered(figure)
    first, last = round((1 - top) * rows), round((1 - bottom) * rows)
    ramp = np.linspace(1.0, threshold, last - first)  # (bar height,)
    bar = layer[first:last, round(left * columns) : round(right * columns)]
    bar[..., :3] = hot_colours(ramp, threshold)[:, np.newaxis]
    bar[..., 3] = 255
    return layer


def laid_over(rgb: NDArray[np.uint8], layer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames (Z, Y, X, 3) with one layer (Y, X, 4) over each, frame by frame to spare memory."""
    alpha = layer[..., 3:].astype(np.float32) / 255
    over = layer[..., :3].astype(np.float32) * alpha
    under = 1 - alpha
    return np.stack([np.round(frame * under + over).astype(np.uint8) for frame in rgb])
