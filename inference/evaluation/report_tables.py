"""The tables of the report: figures in, Markdown out; an interval stands beside every figure that has one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inference.evaluation.arms import ArmScore, PretextGain
    from inference.evaluation.bootstrap import Estimate
    from inference.evaluation.confound_figures import ConfoundFigure
    from inference.evaluation.coverage import CoveragePoint
    from inference.evaluation.decisions import PointFigures
    from inference.evaluation.evaluate import Population
    from inference.evaluation.groups import GroupScore
    from inference.evaluation.k_curve import KCurve
    from inference.evaluation.prefixes import Prefixes
    from inference.evaluation.reliability import Reliability
    from inference.evaluation.slice_losses import SliceLoss

NONE = "-"


def interval(found: Estimate | None, digits: int = 3) -> str:
    """Return `0.812 (0.770 to 0.850)`, or a dash."""
    if found is None or math.isnan(found.value):
        return NONE
    return f"{found.value:.{digits}f} ({found.lower:.{digits}f} to {found.upper:.{digits}f})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def arms_table(population: Population, *, synthetic: bool) -> str:
    """Return all arms and baselines."""
    where = "synthetic phantoms" if synthetic else "patients"
    header = [f"arm ({where})", "scans", "AUROC", "seed SD", "ceiling", "efficiency", "AUPRC", "F1", "Brier"]
    return table(header, [_arm(each) for each in population.arms])


def _arm(arm: ArmScore) -> list[str]:
    return [
        arm.name if arm.network else f"{arm.name} (no network)",
        f"{arm.mean_scans:.1f}",
        interval(arm.auroc),
        NONE if arm.seed_sd is None else f"{arm.seed_sd:.3f} ({arm.n_seeds})",
        _number(arm.ceiling),
        interval(arm.efficiency, 2),
        interval(arm.auprc),
        interval(arm.f1),
        interval(arm.brier),
    ]


def comparison_table(population: Population) -> str:
    """Return the primary comparison and the secondary ones."""
    rows = [
        [
            each.name,
            "primary" if each.primary else "secondary",
            interval(each.difference),
            f"{each.p:.3f}",
            _number(each.p_holm),
        ]
        for each in population.comparisons
    ]
    return table(["AUROC difference", "role", "estimate", "p", "p (Holm)"], rows)


def calibration_table(found: Reliability) -> str:
    """Return slope, intercept, excess, Brier, and both ECEs beside their null."""
    rows = [
        ["slope", interval(found.slope, 2), ""],
        ["intercept", interval(found.intercept, 2), ""],
        ["mean probability - event rate", interval(found.excess), ""],
        ["Brier", interval(found.brier), ""],
    ]
    for error in found.errors:
        null = f"mean {error.null_mean:.3f}, 95th percentile {error.null_upper:.3f}, p = {error.p:.3f}"
        rows.append([f"ECE, {error.bins} bins of equal count", f"{error.value:.3f}", null])
    return table(["figure", "estimate", "if perfectly calibrated"], rows)


def operating_table(points: Iterable[PointFigures]) -> str:
    """Return what each threshold reaches."""
    rows = [
        [
            each.name,
            f"{each.threshold:.3f}",
            *(interval(value, 2) for value in (each.sensitivity, each.specificity, each.ppv, each.npv, each.f1)),
        ]
        for each in points
    ]
    return table(["point", "threshold", "sensitivity", "specificity", "PPV", "NPV", "F1"], rows)


def coverage_table(points: Iterable[CoveragePoint]) -> str:
    """Return figures by coverage."""
    rows = [
        [
            f"{each.coverage:.0%}",
            str(each.n_patients),
            str(each.n_events),
            interval(each.auroc),
            interval(each.error),
            interval(each.brier),
        ]
        for each in points
    ]
    return table(["coverage", "patients", "events", "AUROC", "error", "Brier"], rows)


def groups_table(groups: Iterable[GroupScore]) -> str:
    """Return the delivered arm by group."""
    rows = [
        [
            each.kind,
            each.group,
            str(each.n_patients),
            str(each.n_events),
            "too few" if each.auroc is None else interval(each.auroc),
            interval(each.excess),
        ]
        for each in groups
    ]
    return table(["by", "group", "patients", "events", "AUROC", "excess"], rows)


def k_table(curve: KCurve, delivered: str) -> str:
    """Return AUROC of each arm by the number of scans shown, beside the ceiling; the rest for the delivered arm."""
    arms = list(curve.points)
    points = {arm: {point.n_scans: point for point in curve.points[arm]} for arm in arms}
    rows = []
    for k in sorted({point.n_scans for each in curve.points.values() for point in each}):
        shown = points.get(delivered, {}).get(k)
        any_point = next(each[k] for each in points.values() if k in each)
        areas = [interval(points[arm][k].auroc) if k in points[arm] else NONE for arm in arms]
        rest = [NONE] * 4
        if shown is not None:
            rest = [interval(shown.efficiency, 2), interval(shown.auprc), _number(shown.brier), _number(shown.ece)]
        rows.append([str(k), _number(any_point.ceiling), *areas, *rest])
    own = [f"{delivered}: {name}" for name in ("efficiency", "AUPRC", "Brier", "ECE (5 bins)")]
    return table(["last k", "ceiling", *(f"AUROC {arm}" for arm in arms), *own], rows)


def prefix_table(prefixes: Prefixes) -> str:
    """Return the score of each prefix by its own label, and where probabilities go."""
    rows = [
        [
            str(each.n_scans),
            str(each.n_patients),
            str(each.n_events),
            "too few" if each.auroc is None else interval(each.auroc),
            _number(with_event),
            _number(without),
        ]
        for each, with_event, without in zip(
            prefixes.scores, prefixes.mean_with_event, prefixes.mean_without_event, strict=True
        )
    ]
    header = ["first scans", "patients", "events", "AUROC", "mean probability, event to come", "no event"]
    return table(header, rows)


def gains_table(gains: Iterable[PretextGain]) -> str:
    """Return the pretext gain by mean growth."""
    rows = [
        [
            f"{each.mean_growth:g}",
            str(each.n_train),
            str(each.n_patients),
            interval(each.over_scratch),
            interval(each.over_sham),
        ]
        for each in gains
    ]
    return table(["mean growth m per year", "trained on", "test patients", "order - scratch", "order - sham"], rows)


def slices_table(losses: Iterable[SliceLoss]) -> str:
    """Return what thicker slices cost."""
    rows = [
        [
            f"{each.slice_mm:g} mm",
            f"{each.sd_voxels:.2f}",
            str(each.n_patients),
            interval(each.auroc),
            interval(each.loss),
        ]
        for each in losses
    ]
    return table(["slice", "SD of the blur, voxels", "patients", "AUROC", "loss of AUROC"], rows)


def confounds_table(confounds: Iterable[ConfoundFigure]) -> str:
    """Return every confound test beside what was expected of it."""
    rows = []
    for each in confounds:
        expected = NONE if each.expected is None else f"{each.expected[0]:g} to {each.expected[1]:g}"
        verdict = {None: NONE, True: "yes", False: "NO"}[each.as_expected]
        condition = f"{each.condition} (positive control)" if each.planted_leak else each.condition
        rows.append([each.test, condition, each.figure, str(each.n), interval(each.estimate), expected, verdict])
    return table(["test", "condition", "figure", "n", "estimate", "expected", "as expected"], rows)


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
