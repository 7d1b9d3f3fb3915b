"""The report in Markdown: a headline, every caution, the tables, and what does not follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.evaluation.arms import SINGLE
from inference.evaluation.report_tables import (
    arms_table,
    calibration_table,
    comparison_table,
    confounds_table,
    coverage_table,
    gains_table,
    groups_table,
    interval,
    k_table,
    operating_table,
    prefix_table,
    slices_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference.evaluation.evaluate import Evaluation, Population

_SYNTHETIC = (
    "All patients are synthetic phantoms: no figure here says anything about a human, a scanner or a clinic, and none "
    "may stand beside a figure from patients."
)
_REAL = "Research use only: no figure here supports a decision about a patient."


def statement(synthetic: bool) -> str:  # noqa: FBT001 - the one thing that the sentence depends on
    """Return what the kind of patients means for every figure."""
    return _SYNTHETIC if synthetic else _REAL


def report_text(evaluation: Evaluation, pictures: Sequence[str]) -> str:
    """Return the report; sections without data are left out, and the last one says which."""
    title = "# Evaluation on synthetic phantoms" if evaluation.plan.synthetic else "# Evaluation"
    blocks = [title, f"**{statement(evaluation.plan.synthetic)}**", _headline(evaluation), *_warnings(evaluation)]
    blocks += [*_population(evaluation, evaluation.test, f"Internal test: {evaluation.test.name}")]
    blocks += [*_delivered(evaluation), *_trajectories(evaluation), *_elsewhere(evaluation)]
    for population in evaluation.shifted:
        blocks += _population(evaluation, population, f"Other population: {population.name}")
    blocks += ["## Pictures", *(f"![{name}]({name})" for name in pictures)] if pictures else []
    blocks += [*_limits(evaluation)]
    return "\n\n".join(blocks) + "\n"


def _headline(evaluation: Evaluation) -> str:
    test, plan = evaluation.test, evaluation.plan
    delivered = next(arm for arm in test.arms if arm.name == plan.delivered)
    kind = "synthetic phantoms" if plan.synthetic else "patients"
    text = (
        f"On {test.n_patients} {kind} never used before ({test.n_events} events; {test.n_unknown} more left out, "
        f"their outcome unknown) the arm `{delivered.name}` reaches AUROC {interval(delivered.auroc)}"
    )
    if delivered.efficiency is not None and delivered.ceiling is not None:
        text += (
            f" under a Bayes ceiling of {delivered.ceiling:.3f}: **efficiency {interval(delivered.efficiency, 2)}**, "
            "the share of what could be known that it knows"
        )
    text += "."
    primary = next((each for each in test.comparisons if each.primary), None)
    if primary is not None:
        single = next(arm for arm in test.arms if arm.name == SINGLE)
        text += (
            f" A single scan reaches {interval(single.auroc)}; the primary comparison `{primary.name}`, paired, is "
            f"{interval(primary.difference)}."
        )
    openings = max((opening.number for opening in evaluation.openings), default=0)
    opened = f"Locked test data opened {openings} time(s)." if openings else "No opening of locked test data on record."
    return f"{text} {opened}"


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    yield "## Warnings"
    yield "\n".join(f"- {each}" for each in evaluation.warnings) or "None of the computed checks raised one."


def _population(evaluation: Evaluation, population: Population, heading: str) -> Iterator[str]:
    plan = evaluation.plan
    yield f"## {heading}"
    yield (
        f"One row per patient at the newest scan; {population.n_patients} patients, {population.n_events} events. 95 % "
        f"intervals from {plan.sampling.resamples} bootstrap samples of patients, the same for every arm, on logits "
        "averaged over seeds; the seeds' own spread (SD of AUROC) stands apart. F1 at the threshold fixed on "
        f"validation and a declared prevalence of {plan.prevalence:.0%}. Baselines without network were fitted on "
        f"{evaluation.baselines_fitted_on!r}."
    )
    yield arms_table(population, synthetic=plan.synthetic)
    if population.comparisons:
        yield "Paired differences of AUROC; Holm's adjustment is over the secondary comparisons."
        yield comparison_table(population)
    yield f"Calibration of the delivered arm `{plan.delivered}` (perfect: slope 1, the rest 0):"
    yield calibration_table(population.reliability)


def _delivered(evaluation: Evaluation) -> Iterator[str]:
    yield "## Operating points"
    yield (
        "Thresholds on the delivered probability, fixed before the test; rule-out and rule-in aim at a sensitivity and "
        "a specificity that they may miss here. PPV and NPV are at the declared prevalence of "
        f"{evaluation.plan.prevalence:.0%}, never at that of the test."
    )
    yield operating_table(evaluation.operating_points)
    if evaluation.coverage:
        yield "## Abstention"
        yield "The surest patients first; error at the threshold of the best F1 on validation."
        yield coverage_table(evaluation.coverage)
    yield "## Sites and subgroups"
    yield "Delivered arm; excess is mean probability minus event rate. Not adjusted for how many groups are looked at."
    yield groups_table(evaluation.groups)


def _trajectories(evaluation: Evaluation) -> Iterator[str]:
    curve = evaluation.k_curve
    if curve is not None:
        yield "## What another scan adds"
        yield (
            f"{curve.n_patients} patients with six scans ({curve.n_events} events), same newest scan and label, only "
            "the last k shown."
        )
        yield k_table(curve, evaluation.plan.delivered)
        for arm, gain in curve.late_gain.items():
            verdict = "still rises" if gain.lower > 0 else "falls" if gain.upper < 0 else "a plateau is not excluded"
            yield f"`{arm}`: k = 6 minus k = 4 is {interval(gain)}: {verdict}."
    prefixes = evaluation.prefixes
    if prefixes is not None:
        yield "## Trajectories"
        yield "First n of the newest six scans, each prefix by its own label (an event after *its* last scan)."
        yield prefix_table(prefixes)
        if prefixes.stability is not None:
            found = prefixes.stability
            how = "when one scan is dropped" if found.one_scan_dropped else "from one prefix to the next"
            yield (
                f"Largest move of a patient's probability {how} ({found.n_patients} patients): median "
                f"{found.median:.2f}, 95th percentile {found.percentile_95:.2f}, largest {found.largest:.2f}; "
                f"{found.share_above:.0%} move by more than 0.2."
            )


def _elsewhere(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.pretext_gains:
        yield "## Pretext gain over mean growth"
        yield "Paired differences of AUROC; m = 0 is the negative control: growth there has no direction in time."
        yield gains_table(evaluation.pretext_gains)
    if evaluation.slice_losses:
        yield "## Thicker slices"
        yield (
            "The delivered arm on the same test patients, their scans blurred through-plane on the model's grid: a "
            "Gaussian whose full width at half maximum is the slice, on top of the slices they came with. Paired; a "
            "loss is positive. Simulated: registration of thick slices is not in it."
        )
        yield slices_table(evaluation.slice_losses)
    if evaluation.confounds:
        yield "## Confound tests"
        yield confounds_table(evaluation.confounds)


def _limits(evaluation: Evaluation) -> Iterator[str]:
    yield "## What does not follow"
    lines = [
        "An interval covers the patients drawn, not another site, scanner or population.",
        "Seeds share training data; their spread understates how another training set would differ.",
        "A gain of the order pretext shows at most that it helps when the label process is also time-directed.",
        "A decision curve holds at the event rate of these patients.",
    ]
    if evaluation.plan.synthetic:
        lines.insert(0, "That a single scan cannot know the outcome is assumed by the phantoms, not discovered.")
        lines.insert(0, "Nothing about humans: the growth, the events and the images are simulated.")
    missing = {
        "k-curve (too few patients with six scans)": evaluation.k_curve is None,
        "trajectories": evaluation.prefixes is None,
        "abstention (one seed, no uncertainty given)": not evaluation.coverage,
        "pretext gain over growth": not evaluation.pretext_gains,
        "thicker slices": not evaluation.slice_losses,
        "confound tests": not evaluation.confounds,
        "other populations": not evaluation.shifted,
        "scan count (everyone has as many)": len({each.group for each in evaluation.groups if each.kind == "scans"})
        < 2,
    }
    absent = [name for name, is_absent in missing.items() if is_absent]
    if absent:
        lines.append(f"Not evaluated here: {', '.join(absent)}.")
    yield "\n".join(f"- {line}" for line in lines)
