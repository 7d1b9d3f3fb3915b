"""Text for a page of fixed width: measured in the font it is drawn in, broken into lines, cut where the room ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import RendererAgg

from sr_templates.drawing import DPI, drawable, font

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def width_px(text: str, points: float, *, bold: bool = False) -> float:
    """Return how wide a line of text is."""
    renderer = RendererAgg(1, 1, DPI)
    width, _, _ = renderer.get_text_width_height_descent(text, font(bold=bold, points=points), ismath=False)
    return float(width)


def wrapped(lines: Iterable[str], room_px: float, points: float, *, bold: bool = False, indent: str = "") -> list[str]:
    """Return the lines broken at spaces to fit the room, continuations after `indent`; too long a word is broken."""
    ruler = _Ruler(points=points, bold=bold)
    parts = []
    for line in lines:
        current = ""
        for word in _pieces(drawable(line, bold=bold), room_px - ruler.of(indent), ruler):
            longer = f"{current} {word}" if current else word
            if current and ruler.of(longer) > room_px:
                parts.append(current)
                longer = indent + word
            current = longer
        parts.append(current)
    return parts


def cut(lines: list[str], room: int, more: str) -> list[str]:
    """Return at most `room` lines; where some are left out, the last says how many, in the words of `more`."""
    if len(lines) <= room:
        return lines
    kept = max(room - 1, 0)
    return [*lines[:kept], drawable(more.format(count=len(lines) - kept))]


def _pieces(line: str, room_px: float, ruler: _Ruler) -> Iterator[str]:
    """Yield the words of a line, those too long for the room in pieces."""
    for word in line.split(" "):
        rest = word
        while len(rest) > 1 and ruler.of(rest) > room_px:
            length = next((n for n in range(len(rest) - 1, 1, -1) if ruler.of(rest[:n]) <= room_px), 1)
            yield rest[:length]
            rest = rest[length:]
        yield rest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ruler:
    """Measures text by its words, each once: shaping a whole line for every word of it takes seconds a page."""

    points: float
    bold: bool
    known: dict[str, float] = field(default_factory=dict)

    def of(self, text: str) -> float:
        """Return how wide a line is, up to a pixel or two too much."""
        words = text.split(" ")
        return sum(self._word(each) for each in words) + (len(words) - 1) * (self._word("n n") - 2 * self._word("n"))

    def _word(self, word: str) -> float:
        if word not in self.known:
            self.known[word] = width_px(word, self.points, bold=self.bold) if word else 0.0
        return self.known[word]
