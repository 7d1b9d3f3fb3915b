"""A time line drawn to scale: where on a line its time points, surgeries and events lie."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEFT: Final = 40  # of the drawing, in its own units
RIGHT: Final = 960


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that lies on a day; `number` is that of the row in the table."""

    x: float
    day: date
    kind: str  # used, unused, surgery, event
    text: str
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """What is drawn, from left to right."""

    first: date
    last: date
    marks: Sequence[Mark]


def draw(time_points: Sequence[Mapping[str, Any]], cohort: Mapping[str, Any]) -> Strip | None:
    """Place time points and what is recorded of a patient; None where there is nothing to place."""
    points = [(date.fromisoformat(each["acquired_on"]), each) for each in time_points if each["acquired_on"]]
    surgeries, events = list(cohort["surgeries"]), [(each["on"], each["kind"]) for each in cohort["events"]]
    days = sorted([*(day for day, _ in points), *surgeries, *(day for day, _ in events)])
    if not days:
        return None
    first, last = days[0], days[-1]
    length = max((last - first).days, 1)

    def x(day: date) -> float:
        share: float = (day - first).days / length
        return round(LEFT + (RIGHT - LEFT) * share, 1)

    marks = [Mark(x=x(day), day=day, kind="surgery", text="surgery") for day in surgeries]
    marks += [Mark(x=x(day), day=day, kind="event", text=str(kind)) for day, kind in events]
    marks += [
        Mark(
            x=x(day),
            day=day,
            kind="used" if point.get("used") else "unused",
            text=str(point["kind"]),
            number=number,
        )
        for number, (day, point) in enumerate(points, start=1)
    ]
    return Strip(first=first, last=last, marks=marks)
