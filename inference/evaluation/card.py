"""The model card in Markdown, after TRIPOD+AI: whom, what, how, how well, and what must not be concluded.

Every figure is taken from the metadata or the evaluation; a section without figures says so.

Source: Collins et al., TRIPOD+AI statement, BMJ 2024 (items on data, participants, predictors, outcome, analysis,
performance, limitations).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.evaluation.report_tables import (
    arms_table,
    calibration_table,
    comparison_table,
    coverage_table,
    gains_table,
    interval,
    k_table,
    slices_table,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from inference.bundle_files import Metadata
    from inference.bundle_parts import OperatingPoint
    from inference.evaluation.evaluate import Evaluation
    from inference.evaluation.saliency_summary import Summary

PAPER = (
    "The idea is that of Tak, Kann and others, NEJM AI 2025 (10.1056/AIoa2400703). What we know of it: the task, the "
    "sequence (FLAIR) and the range of its results from the abstract (primary); preprocessing, order pretext and "
    "network from code that the authors released (primary, incomplete, without licence: described, not copied); the "
    "figures per data set from course notes (secondary). Its figures are from patients and stand in no table here."
)
_SYNTHETIC_HEAD = (
    "**Trained on synthetic phantoms only. Not a medical device, not for patients.** Its number says nothing about a "
    "human; a node delivers its reports for phantom-marked patients only."
)
_SYNTHETIC_LIMITS = """\
- That a single scan cannot know the outcome is built into the phantoms, not discovered.
- Growth decides the label here and nothing else does; whether the order pretext helps was asked for several mean
  growths, and the answer holds for phantoms whose label is time-directed as theirs is.
- Disease is what is brighter than 1.2 times the brain's mean on FLAIR; dark cavities are not seen. The window was
  chosen on validation phantoms and makes their lesions easy to find: an advantage that no real scan grants.
- Scans were rendered in model space, with what registration leaves drawn from measured cases; what the real way costs
  is measured by `python -m inference phantom-parity`.
- Gaps between scans are independent of the outcome here; in a clinic they are not.
- No real tumour, scanner or treatment was seen."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Development:
    """How the model came to be, as far as the metadata does not say it."""

    architecture: str
    splits: str
    choice: str
    validation: Mapping[str, tuple[float, ...]]  # arm -> its members' scores on validation
    command: str


def model_card(
    metadata: Metadata, how: Development, *, evaluation: Evaluation | None = None, saliency: Summary | None = None
) -> str:
    """Return the card of a bundle."""
    blocks = [f"# {metadata.name} {metadata.version}"]
    blocks += [_SYNTHETIC_HEAD] if metadata.synthetic_training_data else []
    blocks += ["## Intended use", metadata.intended_use, "## What it is", metadata.description + ".", how.architecture]
    blocks += ["## Data", *_data(metadata, how), "## Development", *_development(how)]
    blocks += ["## Performance", *_performance(metadata, evaluation)]
    blocks += ["## What an answer is worth", *_trust(metadata)]
    blocks += ["## Saliency", _saliency(saliency)]
    blocks += ["## What this does not show"]
    blocks += [_SYNTHETIC_LIMITS if metadata.synthetic_training_data else "See the report of the evaluation."]
    blocks += ["## The paper behind it", PAPER]
    return "\n\n".join(blocks) + "\n"


def _data(metadata: Metadata, how: Development) -> Iterator[str]:
    ranges = metadata.training_ranges
    yield f"{metadata.training_data}. {how.splits}"
    yield (
        f"Input: {metadata.roles[0]} of at most {ranges.n_scans[1]} follow-up scans, the newest, on template "
        f"`{metadata.template}`, {' x '.join(map(str, metadata.input_shape))} voxels (z, y, x). Outcome: "
        f"{metadata.outputs[0].meaning}; an event on record counts, a patient not followed for the whole horizon is "
        f"neither trained on nor scored. Training saw gaps of {ranges.gap_days[0]:.0f} to {ranges.gap_days[1]:.0f} "
        f"days and slices of {ranges.slice_thickness_mm[0]:g} to {ranges.slice_thickness_mm[1]:g} mm; a run outside "
        "is flagged."
    )


def _development(how: Development) -> Iterator[str]:
    yield how.choice
    rows = [(arm, ", ".join(f"{each:.3f}" for each in scores)) for arm, scores in how.validation.items()]
    yield table(("arm", "validation AUROC of its members"), rows)
    yield f"Made by\n\n    {how.command}"


def _performance(metadata: Metadata, evaluation: Evaluation | None) -> Iterator[str]:
    if evaluation is None:
        yield "Not measured: the locked test was not opened for this bundle."
        return
    who = "synthetic phantoms" if metadata.synthetic_training_data else "patients"
    test = evaluation.test
    yield (
        f"{test.n_patients} {who} of the locked internal test ({test.n_events} events), one row each at the final "
        "scan, 95 % intervals of the paired patient bootstrap. Efficiency is (AUROC - 0.5) / (ceiling - 0.5); the "
        "ceiling is an ideal reader who knows the true lesion volumes and dates."
    )
    yield arms_table(test, synthetic=evaluation.plan.synthetic)
    yield comparison_table(test)
    yield "Calibration of the delivered arm, and what abstaining buys:"
    yield calibration_table(test.reliability)
    yield coverage_table(evaluation.coverage)
    if evaluation.k_curve is not None:
        yield f"The same {evaluation.k_curve.n_patients} {who} with six scans, the last k shown:"
        yield k_table(evaluation.k_curve, evaluation.plan.delivered)
    if evaluation.pretext_gains:
        yield "What the order pretext adds, by mean growth per year of the phantoms:"
        yield gains_table(evaluation.pretext_gains)
    if evaluation.slice_losses:
        yield "What thicker slices cost, simulated by a blur of the test's scans on the model's grid:"
        yield slices_table(evaluation.slice_losses)
    for population in evaluation.shifted:
        delivered = next(arm for arm in population.arms if arm.name == evaluation.plan.delivered)
        yield (
            f"Other population `{population.name}`, {population.n_patients} {who}: AUROC {interval(delivered.auroc)}, "
            f"calibration slope {interval(population.reliability.slope, 2)}."
        )


def _trust(metadata: Metadata) -> Iterator[str]:
    output = metadata.outputs[0]
    rows = [
        (f"{each.n_scans[0]} to {each.n_scans[1]}", f"{each.slope:.3f}", f"{each.intercept:.3f}", str(each.n_events))
        for each in output.calibration.groups
    ]
    yield "Platt scaling by number of scans, on patients that no member saw and that were used for nothing else:"
    yield table(("scans", "slope", "intercept", "events"), rows)
    if output.conformal is not None:
        yield (
            f"Conformal sets cover {output.conformal.coverage:.0%} of each class; where both answers are possible the "
            f"rule is `{output.conformal.both}`, where neither is, `{output.conformal.neither}`."
        )
    if metadata.novelty is not None:
        blocks = "coarse brightness is not looked at"
        if metadata.novelty.block_limit is not None:
            blocks = f"of its coarse brightness, in blocks of about 3 cm, {metadata.novelty.block_limit:.3f}"
        yield (
            f"Scans farther from those of calibration than {metadata.novelty.quantile:.1%} of them: rule "
            f"`{metadata.novelty.rule}`. Limits of the distance: of what the encoders make of a scan "
            f"{metadata.novelty.limit:.3f}, {blocks}."
        )
    if output.operating_points:
        header = ("operating point", "threshold", "sensitivity", "specificity", "NPV / PPV at prevalence")
        yield table(header, [_point(each) for each in output.operating_points])


def _point(point: OperatingPoint) -> tuple[str, ...]:
    values = point.predictive_values
    told = "-"
    if values is not None:
        npv, ppv = (f"{each:.2f}" if each is not None else "-" for each in (values.npv, values.ppv))
        told = f"{npv} / {ppv} at {values.prevalence:.0%}"
    return (point.name, f"{point.threshold:.3f}", f"{point.sensitivity:.2f}", f"{point.specificity:.2f}", told)


def _saliency(saliency: Summary | None) -> str:
    if saliency is None:
        return "Not checked."
    verdict = saliency.verdict
    given = "delivered by default" if verdict.delivered_by_default else "NOT delivered by default"
    return f"Best method: {verdict.method}, {given} (as the metadata say). {verdict.evidence}."
