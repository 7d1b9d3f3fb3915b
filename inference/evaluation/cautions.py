"""What a reader must know before believing a figure: each caution is computed, none is a matter of opinion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.evaluation.arms import SINGLE
from inference.evaluation.baselines import leaks, tells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference.evaluation.confound_figures import ConfoundFigure
    from inference.evaluation.evaluate import Evaluation, Population
    from inference.evaluation.reliability import Reliability

ENOUGH_PATIENTS = 600  # 90 % power for the paired primary comparison on simulated phantoms
_CHANCE = 0.05


def cautions(evaluation: Evaluation) -> tuple[str, ...]:
    """Return every caution that applies, leaks first."""
    found: list[str] = []
    for population in (evaluation.test, *evaluation.shifted):
        warnings = [*leaks({arm.name: arm.auroc for arm in population.arms}), *_above_ceiling(population)]
        found += [f"{population.name}: {each}" for each in warnings]
        found += [f"{population.name}: {each}" for each in _miscalibration(population.reliability)]
    found += [*_points_above_ceiling(evaluation), *_size(evaluation), *_abstention(evaluation), *_controls(evaluation)]
    return tuple(found)


def _above_ceiling(population: Population) -> Iterator[str]:
    for arm in population.arms:
        if arm.ceiling is not None and arm.auroc.lower > arm.ceiling:
            what = "a single scan tells" if arm.name == SINGLE else "the arm knows"
            yield (
                f"LEAK: {arm.name} reaches AUROC {arm.auroc.value:.3f} (from {arm.auroc.lower:.3f}), above its ceiling "
                f"of {arm.ceiling:.3f}; {what} more than true volumes and dates do."
            )


def _points_above_ceiling(evaluation: Evaluation) -> Iterator[str]:
    """Look at every k, where the ceiling is lower than at the newest landmark."""
    if evaluation.k_curve is None:
        return
    for arm, points in evaluation.k_curve.points.items():
        above = [point for point in points if point.ceiling is not None and point.auroc.lower > point.ceiling]
        if above:
            shown = ", ".join(f"k = {point.n_scans}: {point.auroc.value:.3f} > {point.ceiling:.3f}" for point in above)
            yield f"LEAK: {arm} lies above the Bayes ceiling on the k-curve ({shown}): images tell too much."


def _miscalibration(found: Reliability) -> Iterator[str]:
    if found.slope.excludes(1):
        sense = "too sure of itself" if found.slope.value < 1 else "not sure enough of itself"
        yield (
            f"calibration slope {found.slope.value:.2f} ({found.slope.lower:.2f} to {found.slope.upper:.2f}) "
            f"excludes 1: {sense}."
        )
    if found.excess.excludes(0):
        sense = "high" if found.excess.value > 0 else "low"
        yield f"probabilities are {abs(found.excess.value):.3f} too {sense} on average."
    for error in found.errors:
        if error.p < _CHANCE:
            yield (
                f"ECE {error.value:.3f} ({error.bins} bins) is more than chance explains "
                f"(95th percentile if calibrated {error.null_upper:.3f}, p = {error.p:.3f})."
            )


def _size(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.test.n_patients < ENOUGH_PATIENTS:
        yield (
            f"{evaluation.test.n_patients} test patients with a known outcome; at least {ENOUGH_PATIENTS} were planned."
        )
    for opening in evaluation.openings:
        if opening.number > 1:
            yield f"locked test data were opened {opening.number} times; figures after the first are not fresh."


def _abstention(evaluation: Evaluation) -> Iterator[str]:
    half = next((point for point in evaluation.coverage if point.coverage == 0.5), None)
    if half is not None and half.error.value >= evaluation.coverage[-1].error.value:
        yield (
            f"abstention does not help: error {half.error.value:.3f} on the surest half, "
            f"{evaluation.coverage[-1].error.value:.3f} on all."
        )


def _controls(evaluation: Evaluation) -> Iterator[str]:
    for gain in evaluation.pretext_gains:
        if gain.mean_growth == 0 and (gain.over_scratch.lower > 0 or gain.over_sham.lower > 0):
            yield (
                "negative control fails: the pretext helps where lesions have no direction in time (m = 0), "
                "so its gain is not knowledge of order."
            )
    if len({gain.n_train for gain in evaluation.pretext_gains}) > 1:
        sizes = ", ".join(f"m = {gain.mean_growth:g}: {gain.n_train}" for gain in evaluation.pretext_gains)
        yield f"pretext gains over growth mix training sizes ({sizes}): they differ by more than growth."
    for confound in evaluation.confounds:
        if confound.planted_leak:
            yield _planted(confound)
        elif confound.as_expected is False and confound.expected is not None:
            low, high = confound.expected
            yield (
                f"confound test: {confound.test}, {confound.condition}: {confound.figure} "
                f"{confound.estimate.value:.3f}, expected {low:g} to {high:g}."
            )


def _planted(control: ConfoundFigure) -> str:
    """Say whether the rule for leaks finds one that was put there on purpose; it is no finding about the test."""
    found = control.estimate
    told = f"{control.test}, {control.condition}: {control.figure} {found.value:.3f} ({found.lower:.3f} to "
    told += f"{found.upper:.3f})"
    if tells(found):
        return (
            f"positive control works: LEAK found where it was put on purpose ({told}). This is not a finding about "
            "the patients of the test; it shows that the check would speak."
        )
    return f"positive control FAILS: no LEAK found where it was put on purpose ({told}); silence is no proof."
