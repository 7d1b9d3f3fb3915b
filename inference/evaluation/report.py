"""Write an evaluation as files: `report.json` for programs, `report.md` and pictures for readers.

`report.json` holds, under stable keys (format 1; NaN becomes null; an estimate is {value, lower, upper}, 95 %):

| key | content |
|---|---|
| format, synthetic, statement | 1, whether the patients are phantoms, and what that means in words |
| plan | prevalence, synthetic, delivered, sampling {resamples, seed}: what was declared beforehand |
| test | name, n_patients, n_events, n_unknown, arms [], comparisons [], reliability |
| shifted | [the same, per other population] |
| operating_points | [name, threshold, sensitivity, specificity, ppv, npv, f1] |
| decision_curve | event_rate, thresholds [], model [], treat_all [] |
| k_curve | null or n_patients, n_events, points {arm: []}, late_gain {arm: estimate of k = 6 minus k = 4} |
| groups | [kind, group, n_patients, n_events, auroc, excess] |
| prefixes | null or scores [], trajectories [], mean_with_event [], mean_without_event [], stability |
| pretext_gains | [mean_growth, n_train, n_patients, over_scratch, over_sham] |
| coverage | [coverage, n_patients, n_events, auroc, error, brier] |
| slice_losses | [slice_mm, sd_voxels, n_patients, auroc, loss]: as if slices were thicker; a loss is positive |
| confounds | [test, condition, figure, estimate, n, expected, planted_leak] |
| openings | [number, opened_at, command, reason, digest]: of locked test data, for this evaluation |
| probabilities | [of the delivered arm, one per test patient whose outcome is known] |
| rocs | {arm: false_positive_rate [], true_positive_rate []} |
| baselines_fitted_on, warnings | a population's name, [sentence] |
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from inference.evaluation.plots import draw_plots
from inference.evaluation.report_text import report_text, statement

if TYPE_CHECKING:
    from pathlib import Path

    from inference.evaluation.evaluate import Evaluation

FORMAT = 1
JSON, MARKDOWN = "report.json", "report.md"


def write_report(folder: Path, evaluation: Evaluation) -> tuple[Path, ...]:
    """Write the report and its pictures into a folder and return the files written.

    Raises:
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_plots(folder, evaluation)
    (folder / JSON).write_text(json.dumps(report_values(evaluation), indent=1, allow_nan=False) + "\n", "utf-8")
    (folder / MARKDOWN).write_text(report_text(evaluation, [path.name for path in pictures]), "utf-8")
    return (folder / JSON, folder / MARKDOWN, *pictures)


def report_values(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of `report.json`."""
    head = {
        "format": FORMAT,
        "synthetic": evaluation.plan.synthetic,
        "statement": statement(evaluation.plan.synthetic),
    }
    return head | {key: _plain(value) for key, value in asdict(evaluation).items()}


def _plain(value: Any) -> Any:
    """Return a value without NaN, tuples or keys that are no text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
