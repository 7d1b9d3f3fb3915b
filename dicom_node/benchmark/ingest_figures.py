"""What the rounds of `ingest` come to: medians by receiver and associations, and ours over theirs."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from dicom_node.benchmark.figures import ratio, spread, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dicom_node.benchmark.ingest import Measurement

TABLES: Final = ("nodelay", "nagle", "while_inferring")
TITLES: Final = {
    "nodelay": "reception, TCP_NODELAY=1 for DCMTK and Orthanc: instances/s",
    "nagle": "reception, DCMTK and Orthanc as installed (Nagle): instances/s",
    "while_inferring": "reception beside a niced inference load, TCP_NODELAY=1: instances/s",
}
Key = tuple[str, str, int]  # table, receiver, associations


def summarize(rounds: Sequence[Measurement]) -> dict[str, Any]:
    """Return `tables`, `ratio` (our default engine over each peer, by associations) and the other ratios, stable keys.

    `ratio` and `processor_ratio` are without Nagle's algorithm; the latter is of processor time until the last answer,
    until our node had read everything, and of reception alone, each over the peer's until its last answer.
    `nagle_to_own_rate` and `while_inferring_to_idle` are each receiver's rate to its own without Nagle's algorithm, and
    to its own while nothing infers.
    """
    by_key = _grouped(rounds)
    ours = next((each for each in _receivers(rounds) if each.startswith("node-")), None)
    return {
        "ours": ours,
        "tables": {table: _table(by_key, table) for table in TABLES if any(key[0] == table for key in by_key)},
        "ratio": _over_peers(by_key, ours, "nodelay", _rate),
        "ratio_nagle": _over_peers(by_key, ours, "nagle", _rate),
        "ratio_while_inferring": _over_peers(by_key, ours, "while_inferring", _rate),
        "processor_ratio": {
            "answered": _over_peers(by_key, ours, "nodelay", lambda each: each.processor_ms),
            "indexed": _over_peers(by_key, ours, "nodelay", _until_indexed),
            "door": _over_peers(by_key, ours, "nodelay", _at_the_door),
        },
        "ratio_by_engine": {
            name: _over_peers(by_key, name, "nodelay", _rate) for name in _receivers(rounds) if name.startswith("node-")
        },
        "nagle_to_own_rate": _to_own(by_key, "nagle"),
        "while_inferring_to_idle": _to_own(by_key, "while_inferring"),
        "rounds": [each.to_json() for each in rounds],
    }


def _rate(measured: Measurement) -> float:
    return measured.rate


def _until_indexed(measured: Measurement) -> float | None:
    """Our node reads after it answered, peers before."""
    return measured.processor_indexed_ms if measured.receiver.startswith("node-") else measured.processor_ms


def _at_the_door(measured: Measurement) -> float | None:
    return measured.processor_door_ms if measured.receiver.startswith("node-") else measured.processor_ms


def _receivers(rounds: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(each.receiver for each in rounds if each.round == 0))


def _grouped(rounds: Sequence[Measurement]) -> dict[Key, list[Measurement]]:
    found: dict[Key, list[Measurement]] = {}
    for each in rounds:
        found.setdefault((each.setting.table, each.receiver, each.setting.associations), []).append(each)
    return found


def _table(by_key: Mapping[Key, list[Measurement]], wanted: str) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for (table, receiver, associations), found in by_key.items():
        if table == wanted:
            rows.setdefault(receiver, {})[str(associations)] = _cell(found)
    return rows


def _cell(found: Sequence[Measurement]) -> dict[str, Any]:
    return {
        "rate": spread(each.rate for each in found),
        "megabytes_per_s": round(median(each.bytes / each.seconds / 1e6 for each in found), 1),
        "processor_ms": spread(each.processor_ms for each in found),
        "processor_indexed_ms": _spread_of(each.processor_indexed_ms for each in found),
        "processor_door_ms": _spread_of(each.processor_door_ms for each in found),
        "process_peak_mb": round(max(each.process_peak_mb for each in found), 1),
        "tree_peak_mb": round(max(each.tree_peak_mb for each in found), 1),
        "complete": all(each.stored.complete for each in found),
        "identical": all(each.stored.faithful for each in found),
    }


def _spread_of(values: Iterable[float | None]) -> dict[str, float] | None:
    """Return the spread of what there is, None where there is nothing."""
    found = [each for each in values if each is not None]
    return spread(found) if found else None


def _over_peers(
    by_key: Mapping[Key, list[Measurement]],
    ours: str | None,
    table: str,
    value: Callable[[Measurement], float | None],
) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for (each_table, receiver, associations), theirs in by_key.items():
        if each_table == table and not receiver.startswith("node-") and ours is not None:
            pair = (by_key.get((table, ours, associations), ()), theirs)
            values = [[each for each in map(value, measured) if each is not None] for measured in pair]
            found.setdefault(receiver, {})[str(associations)] = ratio(*values)
    return found


def _to_own(by_key: Mapping[Key, list[Measurement]], table: str) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for (each_table, receiver, associations), rounds in by_key.items():
        idle = by_key.get(("nodelay", receiver, associations), [])
        if each_table == table:
            now, before = [each.rate for each in rounds], [each.rate for each in idle]
            found.setdefault(receiver, {})[str(associations)] = ratio(now, before)
    return found


def lines(summary: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return each table as its title and rows of cells: receiver, then rate and ratio per number of associations."""
    return [(TITLES[table], _rows(summary, table)) for table in summary["tables"]]


def _rows(summary: Mapping[str, Any], table: str) -> list[list[str]]:
    rows, ratios = summary["tables"][table], summary[{"nodelay": "ratio"}.get(table, f"ratio_{table}")]
    counts = sorted({count for cells in rows.values() for count in cells}, key=int)
    header = ["receiver", *(f"by {count} (ours/theirs)" for count in counts), f"CPU ms by {counts[-1]}", "MB", "stored"]
    found = [header]
    for receiver, cells in rows.items():
        rates = [
            told(cells[count]["rate"]) + _told_ratio(ratios.get(receiver, {}).get(count)) if count in cells else "-"
            for count in counts
        ]
        last = cells[max(cells, key=int)]
        stored = "identical" if last["identical"] else "complete" if last["complete"] else "NOT COMPLETE"
        found.append([receiver, *rates, told(last["processor_ms"], 2), f"{last['process_peak_mb']:.0f}", stored])
    return found


def _told_ratio(found: float | None) -> str:
    return "" if found is None else f" ({found:.2f}x)"


def plot(summary: Mapping[str, Any], path: Path) -> None:
    """Draw the rates by receiver and associations, a bar from the smallest to the largest round on each.

    Raises:
        OSError: if the disk says no.
    """
    rows = summary["tables"]["nodelay"]
    counts = sorted({count for cells in rows.values() for count in cells}, key=int)
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(counts)
        for index, count in enumerate(counts):
            rates = [cells[count]["rate"] for cells in rows.values()]
            heights = [each["median"] for each in rates]
            below = [each["median"] - each["min"] for each in rates]
            above = [each["max"] - each["median"] for each in rates]
            places = [number + index * width for number in range(len(rows))]
            axes.bar(places, heights, width, yerr=[below, above], capsize=2, label=count)
        axes.set_xticks([number + 0.4 - width / 2 for number in range(len(rows))], list(rows))
        axes.set_ylabel("instances per second")
        axes.set_title("reception, TCP_NODELAY=1 for DCMTK and Orthanc")
        axes.legend(title="associations")
        figure.savefig(path, dpi=150)
