"""Verbs that judge and package: `python -m inference reproduce|evaluate|export`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
import torch
import yaml
from pydantic import ValidationError
from rich.console import Console

from inference.bundle import load
from inference.bundle_files import read_metadata
from inference.cli_training import FILE, FOLDER, OUT, bundle_folder, progress_bar
from inference.evaluation.calibration import calibrate
from inference.evaluation.card import Development, model_card
from inference.evaluation.evaluate import Evidence, Plan, evaluate
from inference.evaluation.locked import LockedTestError, open_locked
from inference.evaluation.report import write_report
from inference.models import SIZES, Network
from inference.models.temporal import TemporalNetwork
from inference.training.arms import Arm, Effort, configuration
from inference.training.cohort import open_cohort
from inference.training.experiment import Experiment, answer
from inference.training.fit import EpochReport
from inference.training.presets import PRESETS
from inference.training.release import About, ensemble_and_trust, release, write_card
from inference.training.reproduce import Final, choose, examine, publish

_console = Console(stderr=True)


@click.command()
@click.option("--preset", type=click.Choice(sorted(PRESETS)), default="cpu", show_default=True)
@click.option("--work", type=OUT, required=True, help="Folder of the experiment; a stopped run goes on from it.")
@click.option("--out", type=OUT, required=True, help="Folder of the bundle.")
@click.option("--report", type=OUT, required=True, help="Folder of the report.")
@click.option("--final", metavar="REASON", help="Open the locked tests, on record; without it no test figure is made.")
@click.option("--real-head", type=FOLDER, help="Folder with a real T1 (NIfTI) for a second shifted test.")
@click.option("--accelerator", default="cpu", show_default=True, help="cpu, cuda or auto.")
def reproduce(
    *,
    preset: str,
    work: Path,
    out: Path,
    report: Path,
    final: str | None,
    real_head: Path | None,
    accelerator: str,
) -> None:
    """Make the shipped bundle from nothing: render, train every arm, choose, evaluate, export."""
    workers = (os.cpu_count() or 1) if accelerator == "cpu" else 1
    experiment = Experiment(
        preset=PRESETS[preset], work=work, bar=progress_bar, report=_tell, accelerator=accelerator, workers=workers
    )
    leave = Final(reason=final or "", report=report, real_head=real_head)
    chosen = choose(experiment)
    evaluation = examine(experiment, chosen, leave) if final else None
    click.echo(publish(experiment, chosen, evaluation, out, leave))


@click.command("evaluate")
@click.option("--bundle", default="phantom_recurrence", show_default=True, help="Shipped name, or a folder.")
@click.option("--test", type=FOLDER, required=True, help="Locked cohort; opened on record with --final only.")
@click.option("--validation", type=FOLDER, required=True, help="Cohort of other patients, to fix thresholds on.")
@click.option("--arm", "arms", multiple=True, help="NAME=WEIGHTS[,WEIGHTS...]: an arm to compare with, a file a seed.")
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    required=True,
    help="Of events, for PPV, NPV and F1; declared before the test is opened.",
)
@click.option("--final", metavar="REASON", help="This is the final evaluation: open the test, on record.")
@click.option("--out", type=OUT, required=True, help="Folder of the report.")
def evaluate_command(
    *,
    bundle: str,
    test: Path,
    validation: Path,
    arms: tuple[str, ...],
    prevalence: float,
    final: str | None,
    out: Path,
) -> None:
    """Evaluate a bundle on a locked cohort, beside other arms: report.md, report.json and pictures."""
    loaded = load(bundle_folder(bundle))
    compared = {name: _weights(paths, name, loaded.definition.size) for name, paths in map(_named, arms)}
    try:
        opening = open_locked(test, final=final is not None, reason=final or "")
    except LockedTestError as error:
        raise click.ClickException(str(error)) from error
    networks: dict[str, Sequence[Network]] = {"bundle": [loaded.network], **compared}
    calibration = loaded.metadata.outputs[0].calibration
    cohort = open_cohort(test)
    evaluation = evaluate(
        answer("test", cohort, networks),
        validation=answer("validation", open_cohort(validation), networks),
        calibrate=lambda n_scans, logits: calibrate(n_scans, logits, calibration),
        ceilings=None,
        plan=Plan(prevalence=prevalence, synthetic=cohort.synthetic, delivered="bundle"),
        evidence=Evidence(openings=(opening,)),
    )
    for path in write_report(out, evaluation):
        click.echo(path)


@click.command()
@click.option("--weights", type=FILE, multiple=True, required=True, help="As `finetune` writes them; each is a member.")
@click.option("--about", type=FILE, required=True, help="YAML: name, version, intended use, training data, ...")
@click.option("--training", type=FOLDER, required=True, help="Cohort that was trained on, to state its ranges.")
@click.option("--calibration", type=FOLDER, required=True, help="Cohort that no member has seen, for its calibration.")
@click.option("--size", type=click.Choice(sorted(SIZES)), default="small", show_default=True)
@click.option("--out", type=OUT, required=True, help="Folder of the bundle.")
def export(
    *,
    weights: tuple[Path, ...],
    about: Path,
    training: Path,
    calibration: Path,
    size: str,
    out: Path,
) -> None:
    """Calibrate and write an ensemble as a MONAI Bundle with its model card; prints the digest to pin in a task."""
    said = _about(about)
    networks = [_network(path, size) for path in weights]
    learnt_from = open_cohort(training)
    try:
        ensemble, trust = ensemble_and_trust(networks, open_cohort(calibration))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    digest = release(out, ensemble, trust, said, training=learnt_from)
    how = Development(
        architecture=f"{len(networks)} networks of size `{size}`.",
        splits=f"Training {len(learnt_from)} patients; calibration patients were seen by no member.",
        choice="See the report of the evaluation.",
        validation={},
        command="python -m inference pretrain, finetune, export",
    )
    write_card(out, model_card(read_metadata(out), how))
    click.echo(digest)


def _about(path: Path) -> About:
    """Read what people say of their model."""
    try:
        return About.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise click.UsageError(f"{path}: {error}") from error


def _named(arm: str) -> tuple[str, Sequence[Path]]:
    """Split NAME=FILE,FILE."""
    name, _, files = arm.partition("=")
    if not name or not files:
        raise click.UsageError(f"--arm: expected NAME=WEIGHTS[,WEIGHTS...], found {arm!r}")
    return name, [Path(each) for each in files.split(",")]


def _weights(paths: Sequence[Path], name: str, size: str) -> list[TemporalNetwork]:
    """Load the members of an arm."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise click.UsageError(f"--arm {name}: expected files, found none at {', '.join(map(str, missing))}")
    return [_network(path, size) for path in paths]


def _network(path: Path, size: str) -> TemporalNetwork:
    """Load one network; its width is read off the weights."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    width = int(state["encoder.conv1.weight"].shape[0])
    network = TemporalNetwork(configuration(Arm.ORDER, Effort(size=size, width=width)))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise click.UsageError(f"{path}: expected weights of size {size!r}, found others") from error
    return network.eval()


def _tell(name: str, epoch: EpochReport) -> None:
    """Print an epoch."""
    told = f"{epoch.lesson}, epoch {epoch.epoch + 1}: loss {epoch.loss:.4f}, validation {epoch.validation:.3f}"
    _console.print(f"{name}: {told}")
