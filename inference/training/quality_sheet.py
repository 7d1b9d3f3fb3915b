"""What a person should look at before a cohort is trained on: how well every scan lies on the template, worst first.

`quality.csv` holds all scans that should have been prepared; `quality.html` shows the worst of them with three slices
through the middle of the model's space. It needs no network and no other file.
"""

from __future__ import annotations

import base64
import csv
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.image import imsave

from inference.preprocess import Preprocessed
from inference.preprocess.steps import MIN_MUTUAL_INFORMATION, MIN_OVERLAP
from inference.training.eligibility import Ground
from inference.training.prepared_cohort import VOLUMES, ScanRecord, quality_columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Nats: the best of 11 real scans; a scan that reaches it is as far from refusal as it gets.
_BEST_MUTUAL_INFORMATION = 0.35
_COLUMNS = ("line", "patient", "scan_date", "status", "margin", "coverage", "overlap", "mutual_information", "flags")
_STYLE = (
    "body{font:14px sans-serif;margin:2em}td,th{padding:.2em .7em;text-align:left;vertical-align:middle}"
    "tr{border-bottom:1px solid #ccc}table{border-collapse:collapse}.bad{color:#b00020}img{height:10em}"
)


def margin(record: ScanRecord) -> float:
    """Return how far a scan is from being refused: 1 lies well, 0 barely, -1 was refused, -2 has no such role."""
    if record.status == Ground.MISSING_ROLE:
        return -2.0
    quality = record.outcome.quality if record.outcome else None
    if quality is None or (record.outcome and record.outcome.failure):
        return -1.0
    return min(
        (quality.overlap - MIN_OVERLAP) / (1 - MIN_OVERLAP),
        (quality.mutual_information - MIN_MUTUAL_INFORMATION) / (_BEST_MUTUAL_INFORMATION - MIN_MUTUAL_INFORMATION),
        quality.coverage,
    )


def worst_first(records: Sequence[ScanRecord]) -> list[ScanRecord]:
    """Return the scans that were prepared or should have been, the one nearest to refusal first."""
    looked_at = [each for each in records if each.outcome or each.status == Ground.MISSING_ROLE]
    return sorted(looked_at, key=lambda each: (margin(each), each.line))


def write_quality(folder: Path, records: Sequence[ScanRecord], *, pictured: int = 300) -> None:
    """Write `quality.csv` and `quality.html`, the latter with the worst `pictured` scans.

    Raises:
        OSError: if the disk says no.
    """
    ordered = worst_first(records)
    with (folder / "quality.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, "failure"])
        writer.writerows(_cells(each) for each in ordered)
    head = "".join(f"<th>{name}</th>" for name in (*_COLUMNS, "failure", "axial, coronal, sagittal"))
    rows = "\n".join(_row(each, folder / VOLUMES) for each in ordered[:pictured])
    refused = sum(margin(each) == -1 for each in ordered)
    missing = sum(margin(each) == -2 for each in ordered)
    (folder / "quality.html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Quality of scans</title><style>{_STYLE}</style>'
        f"<h1>Quality of {len(ordered)} scans, worst first</h1>"
        f"<p>{refused} set aside, {missing} without the role, {min(pictured, len(ordered))} shown. Axial and coronal "
        "slices show the patient's right on the left.</p>"
        f"<table><tr>{head}</tr>\n{rows}\n</table></html>\n",
        encoding="utf-8",
    )


def _cells(record: ScanRecord) -> list[str]:
    """Return a scan's line of the sheet."""
    outcome = record.outcome
    measured = quality_columns(outcome) if outcome else ["", "", "", ""]
    failure = outcome.failure if outcome else ""
    return [
        str(record.line),
        record.patient,
        record.acquired,
        record.status,
        f"{margin(record):.2f}",
        *measured,
        failure,
    ]


def _row(record: ScanRecord, volumes: Path) -> str:
    """Return a scan's row of the page, with its picture where there is a volume."""
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(record))
    mark = ' class="bad"' if margin(record) < 0 else ""
    picture = ""
    if record.outcome and record.outcome.key:
        encoded = base64.b64encode(_picture(Preprocessed.load(volumes / f"{record.outcome.key}.npz").array)).decode()
        picture = f'<img alt="three slices of line {record.line}" src="data:image/png;base64,{encoded}">'
    return f"<tr{mark}>{cells}<td>{picture}</td></tr>"


def _picture(volume: NDArray[np.float32]) -> bytes:
    """Return the middle slices of a volume (Z, Y, X) side by side, as a PNG."""
    z, y, x = (size // 2 for size in volume.shape)
    slices = (volume[z], volume[::-1, y], volume[::-1, :, x])
    height = max(each.shape[0] for each in slices)
    padded = [np.pad(each, ((0, height - each.shape[0]), (0, 2))) for each in slices]
    file = io.BytesIO()
    imsave(file, np.hstack(padded), cmap="gray", vmin=0.0, vmax=1.0, format="png")
    return file.getvalue()
