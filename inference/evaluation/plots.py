"""The pictures of the report. Drawn without pyplot, so that no state is shared and no display is needed.

Colours are Okabe and Ito's, told apart by colour-blind readers; every series also has its own marker or dash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inference.evaluation.arms import ORDER, SCRATCH, SHAM, SINGLE
from inference.evaluation.baselines import BASELINES, COUNT, GAP, VOLUME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from inference.evaluation.bootstrap import Estimate
    from inference.evaluation.evaluate import Evaluation

_COLOURS = {
    SINGLE: "#999999",
    SCRATCH: "#E69F00",
    SHAM: "#56B4E9",
    ORDER: "#0072B2",
    GAP: "#CC79A7",
    COUNT: "#D55E00",
    VOLUME: "#009E73",
}
_MARKERS = {SINGLE: "s", SCRATCH: "^", SHAM: "D", ORDER: "o"}
_OTHER = "#333333"
_SIZE, _WIDE, _DPI = (6.4, 5.4), (7.6, 5.4), 130


def draw_plots(folder: Path, evaluation: Evaluation) -> tuple[Path, ...]:
    """Write every picture that there is data for and return their paths.

    Raises:
        OSError: if a picture cannot be written.
    """
    pictures: dict[str, tuple[Callable[[Figure, Evaluation], None], bool]] = {
        "roc.png": (_roc, True),
        "calibration.png": (_calibration, True),
        "k_curve.png": (_k_curve, evaluation.k_curve is not None),
        "trajectories.png": (_trajectories, evaluation.prefixes is not None),
        "decision_curve.png": (_decision_curve, True),
        "pretext_gain.png": (_pretext_gain, bool(evaluation.pretext_gains)),
        "coverage.png": (_coverage, bool(evaluation.coverage)),
    }
    written = []
    for name, (draw, has_data) in pictures.items():
        if has_data:
            figure = Figure(figsize=_WIDE if draw in (_trajectories, _coverage) else _SIZE, layout="constrained")
            draw(figure, evaluation)
            FigureCanvasAgg(figure)
            figure.savefig(folder / name, dpi=_DPI, metadata={"Software": None})
            written.append(folder / name)
    return tuple(written)


def _title(evaluation: Evaluation, what: str, patients: str = "") -> str:
    kind = "synthetic phantoms" if evaluation.plan.synthetic else "research use only"
    return f"{what}\n{kind}, {patients or evaluation.test.n_patients} test patients"


def _axes(figure: Figure, evaluation: Evaluation, *, title: str, x: str, y: str, patients: str = "") -> Any:
    axes = figure.subplots()
    axes.set_title(_title(evaluation, title, patients), fontsize=12)
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.grid(visible=True, color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _band(axes: Any, x: Sequence[float], estimates: Sequence[Estimate], **style: Any) -> None:
    axes.plot(x, [each.value for each in estimates], **style)
    lower, upper = [each.lower for each in estimates], [each.upper for each in estimates]
    axes.fill_between(x, lower, upper, color=style["color"], alpha=0.15, linewidth=0)


def _errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    return [[each.value - each.lower for each in estimates], [each.upper - each.value for each in estimates]]


def _roc(figure: Figure, evaluation: Evaluation) -> None:
    axes = _axes(
        figure,
        evaluation,
        title="ROC at the newest scan, one row per patient",
        x="false positive rate (1 - specificity)",
        y="true positive rate (sensitivity)",
    )
    for arm in evaluation.test.arms:
        curve = evaluation.rocs[arm.name]
        axes.plot(
            curve.false_positive_rate,
            curve.true_positive_rate,
            color=_COLOURS.get(arm.name, _OTHER),
            linestyle="--" if arm.name in BASELINES else "-",
            linewidth=2.4 if arm.name == evaluation.plan.delivered else 1.4,
            label=f"{arm.name}: {arm.auroc.value:.3f} ({arm.auroc.lower:.2f} to {arm.auroc.upper:.2f})",
        )
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    axes.set_aspect("equal")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.legend(loc="lower right", fontsize=8.5, title="AUROC (95 %)", title_fontsize=9)


def _calibration(figure: Figure, evaluation: Evaluation) -> None:
    found = evaluation.test.reliability
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    upper.set_title(_title(evaluation, f"Calibration of {evaluation.plan.delivered!r} at the newest scan"), fontsize=12)
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="perfect")
    observed = [each.observed for each in found.bins]
    upper.errorbar(
        [each.predicted for each in found.bins],
        [each.value for each in observed],
        yerr=_errors(observed),
        fmt="o",
        color=_COLOURS[ORDER],
        capsize=3,
        label="bins of equal count, Wilson 95 %",
    )
    upper.set_ylabel("observed event rate", fontsize=11)
    upper.set_ylim(-0.02, 1.02)
    first = found.errors[0]
    upper.text(
        0.98,
        0.03,
        f"slope {found.slope.value:.2f} ({found.slope.lower:.2f} to {found.slope.upper:.2f})\n"
        f"intercept {found.intercept.value:.2f} ({found.intercept.lower:.2f} to {found.intercept.upper:.2f})\n"
        f"ECE, {first.bins} bins, {first.value:.3f} (chance alone: {first.null_mean:.3f})",
        transform=upper.transAxes,
        ha="right",
        fontsize=9,
    )
    upper.legend(loc="upper left", fontsize=9)
    lower.hist(evaluation.probabilities, bins=25, range=(0, 1), color="#999999")
    lower.set_xlabel("delivered probability", fontsize=11)
    lower.set_ylabel("patients", fontsize=11)
    for axes in (upper, lower):
        axes.grid(visible=True, color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)


def _k_curve(figure: Figure, evaluation: Evaluation) -> None:
    curve = evaluation.k_curve
    if curve is None:
        return
    axes = _axes(
        figure,
        evaluation,
        title=f"What another scan adds ({curve.n_patients} patients with six scans)",
        x="last k scans shown",
        y="AUROC (95 %)",
    )
    shift = -0.06 * (len(curve.points) - 1) / 2
    ceilings: dict[int, float] = {}
    for arm, points in curve.points.items():
        colour = _COLOURS.get(arm, _OTHER)
        areas = [each.auroc for each in points]
        axes.errorbar(
            [each.n_scans + shift for each in points],
            [each.value for each in areas],
            yerr=_errors(areas),
            color=colour,
            marker=_MARKERS.get(arm, "v"),
            markersize=5,
            capsize=2,
            linewidth=1.6,
            label=arm,
        )
        ceilings |= {each.n_scans: each.ceiling for each in points if each.ceiling is not None}
        shift += 0.06
    if ceilings:
        at = sorted(ceilings)
        axes.plot(at, [ceilings[k] for k in at], color="black", linestyle="--", marker="_", label="Bayes ceiling")
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.legend(loc="lower right", fontsize=9)


def _trajectories(figure: Figure, evaluation: Evaluation) -> None:
    prefixes = evaluation.prefixes
    if prefixes is None:
        return
    axes = _axes(
        figure,
        evaluation,
        title=f"Probability of {evaluation.plan.delivered!r} as scans arrive",
        x="scans seen, from the first of the newest six",
        y="probability of an event after the scan",
    )
    colours = {True: "#D55E00", False: "#0072B2"}
    for each in prefixes.trajectories:
        steps = range(1, len(each.probabilities) + 1)
        axes.plot(steps, each.probabilities, color=colours[each.event], alpha=0.35, linewidth=1, marker=".")
    for event, means in ((True, prefixes.mean_with_event), (False, prefixes.mean_without_event)):
        known = [(number, value) for number, value in enumerate(means, start=1) if value is not None]
        what = "event within the horizon after the newest scan" if event else "no event"
        axes.plot(
            [number for number, _ in known],
            [value for _, value in known],
            color=colours[event],
            linewidth=3,
            marker="o" if event else "s",
            label=f"mean, {what}",
        )
    axes.set_ylim(-0.02, 1.02)
    axes.legend(loc="upper left", fontsize=9, title="thin: the first patients of the table", title_fontsize=8)


def _decision_curve(figure: Figure, evaluation: Evaluation) -> None:
    curve = evaluation.decision_curve
    axes = _axes(
        figure,
        evaluation,
        title=f"Decision curve of {evaluation.plan.delivered!r} at the newest scan",
        x="threshold probability",
        y="net benefit per patient",
    )
    _band(
        axes,
        curve.thresholds,
        curve.model,
        color=_COLOURS[ORDER],
        linewidth=2,
        label=f"act above the threshold ({evaluation.plan.delivered}, 95 %)",
    )
    axes.plot(curve.thresholds, curve.treat_all, color="#D55E00", linestyle="--", label="act on all")
    axes.axhline(0, color="black", linewidth=1, label="act on none")
    axes.set_ylim(-0.1, max(curve.event_rate * 1.15, 0.05))
    axes.legend(loc="upper right", fontsize=9)


def _pretext_gain(figure: Figure, evaluation: Evaluation) -> None:
    gains = evaluation.pretext_gains
    sizes = [each.n_patients for each in gains]
    axes = _axes(
        figure,
        evaluation,
        title="What the order pretext adds, by mean growth",
        x="mean growth m of log-volume per year (0: negative control)",
        y="paired AUROC difference (95 %)",
        patients=f"at each m {min(sizes)} to {max(sizes)}",
    )
    series: Iterable[tuple[str, list[Estimate], str, float]] = (
        ("order - scratch", [each.over_scratch for each in gains], _COLOURS[SCRATCH], -0.012),
        ("order - sham", [each.over_sham for each in gains], _COLOURS[SHAM], 0.012),
    )
    for name, estimates, colour, shift in series:
        axes.errorbar(
            [each.mean_growth + shift for each in gains],
            [each.value for each in estimates],
            yerr=_errors(estimates),
            color=colour,
            marker="o" if shift < 0 else "D",
            capsize=4,
            linewidth=1.8,
            label=name,
        )
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks([each.mean_growth for each in gains])
    axes.legend(loc="best", fontsize=9)


def _coverage(figure: Figure, evaluation: Evaluation) -> None:
    points = evaluation.coverage
    left, right = figure.subplots(1, 2)
    figure.suptitle(
        _title(evaluation, f"Abstention of {evaluation.plan.delivered!r}: the surest patients first"), fontsize=12
    )
    at = [each.coverage for each in points]
    _band(left, at, [each.error for each in points], color="#D55E00", marker="o", markersize=4)
    left.set_ylabel("error at the validation threshold (95 %)", fontsize=11)
    known = [(each.coverage, each.auroc) for each in points if each.auroc is not None]
    _band(
        right,
        [level for level, _ in known],
        [area for _, area in known],
        color=_COLOURS[ORDER],
        marker="o",
        markersize=4,
    )
    right.set_ylabel("AUROC (95 %)", fontsize=11)
    for axes in (left, right):
        axes.set_xlabel("share of patients answered", fontsize=11)
        axes.grid(visible=True, color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlim(0, 1.03)
    left.set_ylim(bottom=0)
