"""The whole experiment at its smallest: one command makes a bundle with report and card, a second one little else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from click.testing import CliRunner

from inference.bundle import load
from inference.cli_experiment import reproduce as verb
from inference.training.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path


def reproduce(folder: Path, *more: str, preset: str = "smoke") -> subprocess.CompletedProcess[str]:
    """Run the verb as a person would."""
    parts = [f"--{name}={folder / name}" for name in ("work", "out", "report")]
    return subprocess.run(
        [sys.executable, "-m", "inference", "reproduce", "--preset", preset, *parts, *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def made(folder: Path) -> dict[str, int]:
    """Return when each cohort, network and table was written."""
    kinds = ("cohorts/*/index.npz", "networks/*/*.pt", "predictions/*.npz")
    return {str(path): path.stat().st_mtime_ns for kind in kinds for path in (folder / "work").glob(kind)}


def test_one_command_makes_bundle_report_and_card_and_a_second_one_makes_nothing_new(tmp_path: Path) -> None:
    """Loaded with the digest that was printed, synthetic by its own word; another preset is refused the folder."""
    first = reproduce(tmp_path, "--final", "smoke test")
    assert first.returncode == 0, first.stderr[-2000:]
    digest, files = first.stdout.strip().splitlines()[-1], made(tmp_path)

    bundle = load(tmp_path / "out")
    assert bundle.digest == digest
    assert bundle.metadata.synthetic_training_data
    assert bundle.metadata.saliency is not None
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["synthetic"] is True
    assert [each["slice_mm"] for each in report["slice_losses"]] == [3, 5, 7]
    assert len({each["n_train"] for each in report["pretext_gains"]}) == 1
    assert sum(each["planted_leak"] for each in report["confounds"]) == 3
    assert len(report["openings"]) == 3  # test, shifted, and one mean growth
    assert any(each.startswith("positive control") for each in report["warnings"])
    card = (tmp_path / "out" / "docs" / "README.md").read_text(encoding="utf-8")
    for sentence in ("Trained on synthetic phantoms only", "coarse brightness", "the same number of updates"):
        assert sentence in card
    assert bundle.metadata.saliency.method in card

    started = time.monotonic()
    second = reproduce(tmp_path, "--final", "smoke test")
    assert second.returncode == 0, second.stderr[-2000:]
    assert second.stdout.strip().splitlines()[-1] == digest
    assert made(tmp_path) == files
    assert time.monotonic() - started < 120
    again = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert [each["number"] for each in again["openings"]] == [2, 2, 2]
    changed = {key for key in report if report[key] != again[key]}
    assert changed <= {"openings", "warnings"}

    other = reproduce(tmp_path, preset="cpu")
    assert other.returncode == 1
    assert "preset.train: made with" in other.stderr


def test_the_help_says_how_long_each_preset_takes() -> None:
    """Whoever starts hours of training is told so before."""
    told = " ".join(CliRunner().invoke(verb, ["--help"]).output.split())
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.time}" in told
