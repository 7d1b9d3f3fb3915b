"""What else could have told the answer: accuracies of order and outcome where the lesion cannot have been the reason.

The figures are measured elsewhere (a network must run again on masked or stable scans); here they get an interval and
the range that was expected before they were seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.evaluation.reliability import wilson

if TYPE_CHECKING:
    from inference.evaluation.bootstrap import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfoundFigure:
    """One test, for example order accuracy with the lesion masked; `expected` is a range declared beforehand."""

    test: str
    condition: str
    figure: str  # for example "order accuracy"
    estimate: Estimate
    n: int
    expected: tuple[float, float] | None = None
    planted_leak: bool = False  # a positive control: the check for leaks must find it

    @property
    def as_expected(self) -> bool | None:
        """Say whether the figure lies in the expected range; None without one."""
        if self.expected is None:
            return None
        return self.expected[0] <= self.estimate.value <= self.expected[1]


def counted(
    test: str,
    condition: str,
    *,
    right: int,
    n: int,
    figure: str = "order accuracy",
    expected: tuple[float, float] | None = None,
) -> ConfoundFigure:
    """Return a test whose figure is a share of n independent cases, with Wilson's interval."""
    return ConfoundFigure(
        test=test, condition=condition, figure=figure, estimate=wilson(right, n), n=n, expected=expected
    )
