"""From scored cases to one decision: are saliency maps delivered unless a site asks for them?

The rule, fixed before anything was measured: the method with the largest mean share of its mass inside the true change
is delivered by default if it beats every reference in that share (lower bound of the paired bootstrap difference over
patients above 0; the level is shared among the methods, because the best is picked) and passes the randomisation test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.saliency_checks import IMAGE_DIFFERENCE, RANDOM_PLACEMENT, randomised_name
from inference.evaluation.saliency_sanity import MAX_RANK_CORRELATION, depends_on_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from inference.evaluation.saliency_checks import CaseRow
    from inference.saliency import Method

RESAMPLES = 2000
LEVEL = 0.95  # of all methods together


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean paired difference over patients, and its bootstrap interval."""

    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """One method against its references; `rank_correlation` is the median over patients."""

    share_differences: Mapping[str, Difference]
    peak_differences: Mapping[str, Difference]
    rank_correlation: float
    beats_references: bool
    depends_on_weights: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a bundle says about its saliency."""

    method: str
    delivered_by_default: bool
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All cases together: mean share and rate of hits of every map, every method's score, the verdict."""

    n_cases: int
    shares: Mapping[str, float]
    peaks_inside: Mapping[str, float]
    methods: Mapping[str, MethodScore]
    verdict: Verdict


def summarise(rows: Sequence[CaseRow], methods: Sequence[Method], *, data: str) -> Summary:
    """Summarise the rows, one a patient; `data` says what the cases were, for the evidence.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("saliency summary: expected at least one case, found none")
    shares = {name: np.array([row.focus[name].share for row in rows]) for name in rows[0].focus}
    peaks = {name: np.array([row.focus[name].peak_inside for row in rows]) for name in rows[0].focus}
    level = 1 - (1 - LEVEL) / len(methods)
    scores = {str(method): _score(method, rows, shares, peaks, level=level) for method in methods}
    best = max(methods, key=lambda method: float(shares[method].mean()))
    return Summary(
        n_cases=len(rows),
        shares={name: float(values.mean()) for name, values in shares.items()},
        peaks_inside={name: float(values.mean()) for name, values in peaks.items()},
        methods=scores,
        verdict=_verdict(best, scores[best], float(shares[best].mean()), f"{len(rows)} {data}"),
    )


def _score(
    method: Method,
    rows: Sequence[CaseRow],
    shares: Mapping[str, NDArray[np.float64]],
    peaks: Mapping[str, NDArray[np.float64]],
    *,
    level: float,
) -> MethodScore:
    """Compare one method with its three references."""
    references = (IMAGE_DIFFERENCE, randomised_name(method), RANDOM_PLACEMENT)
    share_differences = {each: paired_difference(shares[method] - shares[each], level=level) for each in references}
    correlation = float(np.median([row.rank_correlations[method] for row in rows]))
    return MethodScore(
        share_differences=share_differences,
        peak_differences={each: paired_difference(peaks[method] - peaks[each], level=level) for each in references},
        rank_correlation=correlation,
        beats_references=all(each.lower > 0 for each in share_differences.values()),
        depends_on_weights=depends_on_weights(correlation),
    )


def paired_difference(differences: NDArray[np.float64], *, level: float, seed: int = 0) -> Difference:
    """Return the mean of paired differences (P,) and its percentile bootstrap interval over patients."""
    rng = np.random.default_rng(seed)
    means = differences[rng.integers(len(differences), size=(RESAMPLES, len(differences)))].mean(axis=1)
    lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Difference(mean=float(differences.mean()), lower=float(lower), upper=float(upper))


def _verdict(best: Method, score: MethodScore, share: float, data: str) -> Verdict:
    """Apply the rule to the best method and say why."""
    against = "; ".join(
        f"{share - each.mean:.3f} for {name} (difference {each.mean:.3f}, {each.lower:.3f} to {each.upper:.3f})"
        for name, each in score.share_differences.items()
    )
    return Verdict(
        method=str(best),
        delivered_by_default=score.beats_references and score.depends_on_weights,
        evidence=(
            f"{data}: {share:.3f} of the mass inside the true change, {against}; rank correlation with the map of "
            f"shuffled weights {score.rank_correlation:.2f} (at most {MAX_RANK_CORRELATION:g} passes)"
        ),
    )
