"""How series are shown to a person: a table with every candidate's rank, and what each rule said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console


def series_table(title: str, point: Mapping[str, Any]) -> Table:
    """Show the series of a time point, or of an undated study: what each is, its rank, and why."""
    table = Table("series", "description", "is", "by rule", "slices", "mm", "rank", "why", title=escape(title))
    ranks = {(each["series_instance_uid"], each["role"]): each for each in point.get("candidates", ())}
    for series in _series(point):
        candidate = ranks.get((series["series_instance_uid"], series["is"])) if not series["excluded"] else None
        why = series["excluded"]["text"] if series["excluded"] else candidate["because"] if candidate else ""
        if series["incomplete"]:
            why += f"; incomplete: {series['incomplete']['text']}"
        cells = (
            f"...{series['series_instance_uid'][-8:]}",
            f"{series['description']} {series['part']}".strip(),
            series["is"],
            series["rule"],
            str(series["slices"]),
            f"{series['spacing_mm']:.1f}" if series["spacing_mm"] else "",
            str(candidate["rank"]) if candidate else "",
            why,
        )
        table.add_row(*(escape(cell) for cell in cells))
    return table


def print_rules(console: Console, line: Mapping[str, Any]) -> None:
    """Print what every rule said of every series of a time line."""
    for point in (*line["time_points"], *line["undated"]):
        for series in _series(point):
            name = f"{series['description']} {series['part']}".strip() or series["series_instance_uid"]
            console.print(f"\n{name}: {series['is']}", markup=False)
            for rule in series["rules"]:
                answer = "yes" if rule["matched"] else "no "
                console.print(f"  {answer} {rule['rule']}: {rule['because']}", markup=False)


def _series(point: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the series of a time point, or of an undated study."""
    for study in point.get("studies", [point]):
        yield from study["series"]
