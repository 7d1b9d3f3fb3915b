"""From logits and a time line to the parts of a result: pure arithmetic and rules."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from inference.results import Output, QualityFlag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from numpy.typing import NDArray

    from inference.bundle_files import OutputDefinition

FEW_SCANS = 3  # fewer is below the published benefit (gains plateau between 3 and 6 scans)
_UPPER_END = 0.975  # of a 95 % interval


def output(definition: OutputDefinition, logits: NDArray[np.float64], *, n_scans: int) -> Output:
    """Return one output from its members' logits (members,) on a time line of `n_scans`."""
    mean = float(logits.mean())
    slope, intercept = definition.calibration.line(n_scans)
    ends = member_interval(logits)
    lower, upper = (None, None) if ends is None else (_sigmoid(slope * end + intercept) for end in ends)
    conformal = definition.conformal
    possible = None if conformal is None else conformal.answers(n_scans, mean)
    return Output(
        name=definition.name,
        probability=_sigmoid(slope * mean + intercept),
        raw_probability=_sigmoid(mean),
        lower=lower,
        upper=upper,
        possible=possible,
        coverage=None if conformal is None or possible is None else conformal.coverage,
    )


def member_interval(logits: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return where one more member's logit would fall in 95 % of cases; None for a single member.

    Mean and standard deviation of M members, taken as normal on the logit scale: mean -+ t(M - 1) x SD x sqrt(1 + 1/M).
    So few members make it wider, as they should, and more members never make it narrower than they disagree; the
    interval of the mean would shrink to nothing. Calibration is monotone and is applied to the ends afterwards.
    """
    members = len(logits)
    if members < 2:
        return None
    margin = float(stdtrit(members - 1, _UPPER_END) * logits.std(ddof=1) * np.sqrt(1 + 1 / members))
    mean = float(logits.mean())
    return mean - margin, mean + margin


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


def age_flags(newest: date, asked_on: date | None, gap_days: tuple[float, float]) -> list[QualityFlag]:
    """Return a remark where the newest scan was old on the day of the question: the next one is overdue or not here.

    In training a question is asked on the day of its newest scan, and no scan came later than the longest gap.
    """
    days = 0 if asked_on is None else (asked_on - newest).days
    if days <= gap_days[1]:
        return []
    message = f"the newest scan was {days} days old; the model saw at most {gap_days[1]:.0f} days between scans"
    return [QualityFlag(code="newest-scan-old", message=message)]
