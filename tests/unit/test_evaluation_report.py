"""The report as files: stable keys, honest words, legible pictures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from inference.evaluation.arms import GrowthTest
from inference.evaluation.bootstrap import Estimate, Sampling
from inference.evaluation.confound_figures import counted
from inference.evaluation.evaluate import Evaluation, Evidence, Plan, evaluate
from inference.evaluation.locked import Opening
from inference.evaluation.report import report_values, write_report
from inference.evaluation.slice_losses import ThickSlices
from tests.factories.predictions import predictions_of

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = [
    "calibration.png",
    "coverage.png",
    "decision_curve.png",
    "k_curve.png",
    "pretext_gain.png",
    "roc.png",
    "trajectories.png",
]
ESTIMATE = {"value", "lower", "upper"}
KEYS: dict[str, set[str]] = {
    "": {
        "format", "synthetic", "statement", "plan", "test", "shifted", "probabilities", "rocs", "operating_points",
        "decision_curve", "k_curve", "groups", "prefixes", "pretext_gains", "coverage", "slice_losses",
        "confounds", "openings",
        "baselines_fitted_on", "warnings",
    },
    "plan": {"prevalence", "synthetic", "delivered", "sampling"},
    "test": {"name", "n_patients", "n_events", "n_unknown", "arms", "comparisons", "reliability"},
    "test.arms.0": {
        "name", "network", "n_seeds", "mean_scans", "auroc", "seed_sd", "auprc", "f1", "brier", "ceiling", "efficiency",
    },
    "test.arms.0.auroc": ESTIMATE,
    "test.comparisons.0": {"name", "primary", "difference", "p", "p_holm"},
    "test.reliability": {"slope", "intercept", "excess", "brier", "errors", "bins"},
    "test.reliability.errors.0": {"bins", "value", "null_mean", "null_upper", "p"},
    "test.reliability.bins.0": {"n_patients", "predicted", "observed"},
    "rocs.order": {"false_positive_rate", "true_positive_rate"},
    "operating_points.0": {"name", "threshold", "sensitivity", "specificity", "ppv", "npv", "f1"},
    "decision_curve": {"event_rate", "thresholds", "model", "treat_all"},
    "k_curve": {"n_patients", "n_events", "points", "late_gain"},
    "k_curve.points.order.0": {"n_scans", "auroc", "auprc", "ceiling", "efficiency", "brier", "ece"},
    "k_curve.late_gain.order": ESTIMATE,
    "groups.0": {"kind", "group", "n_patients", "n_events", "auroc", "excess"},
    "prefixes": {"scores", "trajectories", "mean_with_event", "mean_without_event", "stability"},
    "prefixes.scores.0": {"n_scans", "n_patients", "n_events", "auroc"},
    "prefixes.stability": {
        "one_scan_dropped", "n_patients", "median", "percentile_95", "largest", "share_above",
    },
    "pretext_gains.0": {"mean_growth", "n_train", "n_patients", "over_scratch", "over_sham"},
    "coverage.0": {"coverage", "n_patients", "n_events", "auroc", "error", "brier"},
    "slice_losses.0": {"slice_mm", "sd_voxels", "n_patients", "auroc", "loss"},
    "confounds.0": {"test", "condition", "figure", "estimate", "n", "expected", "planted_leak"},
    "openings.0": {"number", "opened_at", "command", "reason", "digest"},
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Return an evaluation with every section."""
    opening = Opening(number=1, opened_at="2026-01-01T00:00:00+00:00", command="c", reason="r", digest="d")
    return evaluate(
        predictions_of(200, seed=1),
        validation=predictions_of(200, seed=2, population="validation"),
        calibrate=lambda _, logits: 1 / (1 + np.exp(-logits)),
        ceilings={k: 0.8 + 0.01 * k for k in range(1, 7)},
        plan=Plan(prevalence=0.3, synthetic=True, sampling=Sampling(resamples=100)),
        evidence=Evidence(
            shifted=(predictions_of(120, seed=3, population="shifted"),),
            by_growth={
                m: GrowthTest(predictions=predictions_of(120, seed=4, population=f"m{m}"), n_train=480)
                for m in (0.0, 0.6, 1.2)
            },
            thick_slices=(ThickSlices(slice_mm=5, sd_voxels=0.5, logits=predictions_of(200, seed=1).logits["order"]),),
            confounds=(counted("pretext", "lesion masked", right=70, n=100, expected=(0.45, 0.55)),),
            openings=(opening,),
        ),
    )


@pytest.fixture(scope="module")
def report(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of its report."""
    folder = tmp_path_factory.mktemp("evaluation") / "report"
    written = write_report(folder, evaluation)
    assert sorted(written) == sorted(folder.iterdir())
    return folder


def test_the_keys_of_the_report_are_stable(evaluation: Evaluation) -> None:
    """Who reads report.json finds the documented keys and no others."""
    values = report_values(evaluation)
    found = {path: set(_at(values, path)) for path in KEYS}
    assert found == KEYS
    assert values["format"] == 1


def test_report_and_pictures_are_written_and_read_back(evaluation: Evaluation, report: Path) -> None:
    """JSON without NaN, every picture named in the Markdown, large enough to read."""
    assert sorted(path.name for path in report.glob("*.png")) == PICTURES
    values = json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)
    assert values["test"]["n_patients"] == evaluation.test.n_patients
    text = (report / "report.md").read_text()
    for name in PICTURES:
        assert f"({name})" in text
        with Image.open(report / name) as picture:
            assert min(picture.size) > 600
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_what_is_no_number_is_null(evaluation: Evaluation) -> None:
    """JSON has no NaN."""
    nowhere = Estimate(value=float("nan"), lower=float("-inf"), upper=1.0)
    gain = replace(evaluation.pretext_gains[0], over_sham=nowhere)
    values = report_values(replace(evaluation, pretext_gains=(gain,)))
    assert values["pretext_gains"][0]["over_sham"] == {"value": None, "lower": None, "upper": 1.0}


def test_phantom_figures_never_look_like_clinical_ones(report: Path) -> None:
    """The title, the statement, the table of arms and the headline say what the patients are."""
    text = (report / "report.md").read_text()
    assert text.startswith("# Evaluation on synthetic phantoms")
    assert text.count("synthetic phantoms") >= 5
    assert "arm (synthetic phantoms)" in text
    assert "says anything about a human" in json.loads((report / "report.json").read_text())["statement"]


def test_the_markdown_says_what_a_reader_must_know(report: Path) -> None:
    """Headline with efficiency, warnings before tables, the opening, the limits."""
    text = (report / "report.md").read_text()
    head = text.split("## Warnings")[0]
    assert "efficiency" in head
    assert "Locked test data opened 1 time(s)" in head
    assert text.index("## Warnings") < text.index("## Internal test") < text.index("## What does not follow")
    assert "confound test: pretext, lesion masked: order accuracy 0.700, expected 0.45 to 0.55" in text
    assert "at least 600 were planned" in text
    assert not re.search(r"\bnan\b", text)


def test_what_was_not_evaluated_is_said(tmp_path: Path) -> None:
    """One seed, four scans, no growth, no confounds: no pictures of them, and a sentence that names them."""
    found = evaluate(
        predictions_of(120, seed=5, n_scans=4, seeds=1),
        validation=predictions_of(120, seed=6, n_scans=4, seeds=1, population="validation"),
        calibrate=lambda _, logits: 1 / (1 + np.exp(-logits)),
        ceilings=None,
        plan=Plan(prevalence=0.3, synthetic=False, sampling=Sampling(resamples=50)),
    )
    write_report(tmp_path, replace(found, prefixes=None))
    text = (tmp_path / "report.md").read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"roc.png", "calibration.png", "decision_curve.png"}
    last = text.split("Not evaluated here:")[1]
    for name in ("k-curve", "trajectories", "abstention", "pretext gain", "confound tests", "scan count"):
        assert name in last
    assert "phantom" not in text
    assert "Research use only" in text


def _at(values: Any, path: str) -> Any:
    for step in path.split(".") if path else []:
        values = values[int(step)] if isinstance(values, list) else values[step]
    return values
