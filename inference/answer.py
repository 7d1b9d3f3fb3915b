"""From logits and a time line to the parts of a result: pure arithmetic and rules."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from inference.results import Output, QualityFlag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from inference.bundle import Calibration

FEW_SCANS = 3  # fewer is below the published benefit (gains plateau between 3 and 6 scans)
_NORMAL_95 = 1.96


def output(name: str, logits: NDArray[np.float64], calibration: Calibration) -> Output:
    """Return one output from its members' logits (members,), with the spread of the members if there are several."""
    mean = float(logits.mean())
    lower = upper = None
    if len(logits) > 1:
        margin = _NORMAL_95 * float(logits.std(ddof=1))
        ends = sorted(_calibrated(mean + sign * margin, calibration) for sign in (-1, 1))
        lower, upper = ends
    return Output(
        name=name,
        probability=_calibrated(mean, calibration),
        raw_probability=_sigmoid(mean),
        lower=lower,
        upper=upper,
    )


def _calibrated(logit: float, calibration: Calibration) -> float:
    return _sigmoid(calibration.slope * logit + calibration.intercept)


def _sigmoid(value: float) -> float:
    return float(0.5 * (1.0 + np.tanh(0.5 * value)))


def time_line_flags(acquired: Sequence[datetime], skipped: int, gap_days: tuple[float, float]) -> list[QualityFlag]:
    """Return remarks on the time line itself."""
    flags = []
    if skipped:
        flags.append(QualityFlag(code="older-scans-left-out", message=f"{skipped} older scans were not used"))
    if len(acquired) == 1:
        flags.append(QualityFlag(code="single-scan", message="single scan, below published benefit"))
    elif len(acquired) < FEW_SCANS:
        flags.append(QualityFlag(code="few-scans", message=f"{len(acquired)} scans; expected at least {FEW_SCANS}"))
    for number, (older, newer) in enumerate(pairwise(acquired), start=skipped + 1):
        days = (newer - older).total_seconds() / 86_400
        if not gap_days[0] <= days <= gap_days[1]:
            message = f"{days:.0f} days after the scan before; the model saw {gap_days[0]:.0f} to {gap_days[1]:.0f}"
            flags.append(QualityFlag(code="gap-outside-training", message=message, time_point=number))
    return flags
