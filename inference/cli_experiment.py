"""The verb that makes the shipped bundle from nothing: `python -m inference reproduce`."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from inference.cli_training import FOLDER, OUT, progress_bar
from inference.training.experiment import Experiment
from inference.training.fit import EpochReport
from inference.training.presets import PRESETS
from inference.training.reproduce import Final, choose, examine, publish
from inference.training.work_folder import WorkFolderError

_console = Console(stderr=True)


@click.command()
@click.option(
    "--preset",
    type=click.Choice(sorted(PRESETS)),
    default="cpu",
    show_default=True,
    help="How large. " + ". ".join(f"{name}: {each.time}" for name, each in PRESETS.items()) + ".",
)
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
    try:
        chosen = choose(experiment)
        evaluation = examine(experiment, chosen, leave) if final else None
    except WorkFolderError as error:
        raise click.ClickException(str(error)) from error
    click.echo(publish(experiment, chosen, evaluation, out, leave))


def _tell(name: str, epoch: EpochReport) -> None:
    """Print an epoch."""
    told = f"{epoch.lesson}, epoch {epoch.epoch + 1}: loss {epoch.loss:.4f}, validation {epoch.validation:.3f}"
    _console.print(f"{name}: {told}")
