"""Verbs that render phantoms for training, train, package and score: `python -m inference ...`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from inference.bundle import load, shipped
from inference.evaluation.scores import score_cohort
from inference.models import SIZES, TemporalNetwork, build
from inference.training.cohort import open_cohort
from inference.training.loops import EpochReport, Report, finetune, pretrain, refine_heads
from inference.training.phantoms import render_cohort
from inference.training.recipe import MEMBERS, SHIPPED, SIZE, publish, render_split, train

OUT = click.Path(path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_console = Console(stderr=True)


@click.command()
@click.option("--out", type=OUT, required=True, help="Folder of the cohort.")
@click.option("--patients", type=click.IntRange(1), required=True, help="How many patients.")
@click.option("--first-seed", type=click.IntRange(0), required=True, help="Seed of the first patient.")
@click.option("--visits", type=click.IntRange(1), help="Fix the number of visits (default: 2 to 8 are drawn).")
def cohort(out: Path, patients: int, first_seed: int, visits: int | None) -> None:
    """Render phantoms in the model's space, for training and scoring."""
    shape = SIZES[SIZE].input_shape
    with _bar("rendering", patients) as advance:
        seeds = range(first_seed, first_seed + patients)
        done = render_cohort(out, seeds, shape=shape, n_visits=visits, advance=advance)
    click.echo(f"{len(done)} patients, {len(done.volumes)} scans in {out}")


@click.command("pretrain")
@click.option("--cohort", "folder", type=FOLDER, required=True, help="Cohort to train on.")
@click.option("--validation", type=FOLDER, required=True, help="Cohort of other patients, to choose the epoch.")
@click.option("--out", type=OUT, required=True, help="File for the weights.")
@click.option("--epochs", type=click.IntRange(1), default=SHIPPED.pretext.epochs, show_default=True)
@click.option("--seed", type=int, default=SHIPPED.seed, show_default=True)
def pretrain_command(folder: Path, validation: Path, out: Path, epochs: int, seed: int) -> None:
    """Teach the small network the order of scans (no labels)."""
    torch.manual_seed(seed)
    network = build(SIZE, members=MEMBERS)
    schedule = replace(SHIPPED.pretext, epochs=epochs, seed=seed)
    with _bar("order pretext", epochs) as advance:
        report = _report("order pretext", advance)
        network = pretrain(network, open_cohort(folder), open_cohort(validation), schedule, report)
    torch.save(network.state_dict(), out)


@click.command("finetune")
@click.option("--cohort", "folder", type=FOLDER, required=True, help="Cohort to train on.")
@click.option("--validation", type=FOLDER, required=True, help="Cohort of other patients, to choose the epoch.")
@click.option("--weights", type=FILE, required=True, help="Weights to start from, as `pretrain` writes them.")
@click.option("--out", type=OUT, required=True, help="File for the weights.")
@click.option("--epochs", type=click.IntRange(1), default=SHIPPED.recurrence.epochs, show_default=True)
def finetune_command(folder: Path, validation: Path, weights: Path, out: Path, epochs: int) -> None:
    """Teach recurrence within 365 days of the last scan: end to end, then the heads on resting features."""
    train_on, validate_on = open_cohort(folder), open_cohort(validation)
    schedule = replace(SHIPPED.recurrence, epochs=epochs)
    with _bar("recurrence", epochs + SHIPPED.heads.epochs) as advance:
        network = finetune(_with_weights(weights), train_on, validate_on, schedule, _report("recurrence", advance))
        network = refine_heads(network, train_on, validate_on, SHIPPED.heads, _report("heads", advance))
    torch.save(network.state_dict(), out)


@click.command()
@click.option("--weights", type=FILE, required=True, help="Weights as `finetune` writes them.")
@click.option("--training", type=FOLDER, required=True, help="Cohort that was trained on, to state its ranges.")
@click.option("--calibration", type=FOLDER, required=True, help="Cohort to fit Platt scaling on.")
@click.option("--test", type=FOLDER, required=True, help="Unseen cohort, patients of 6 visits, to score on.")
@click.option("--out", type=OUT, required=True, help="Folder of the bundle.")
def export(weights: Path, training: Path, calibration: Path, test: Path, out: Path) -> None:
    """Calibrate, score and write a MONAI Bundle with its model card."""
    digest = publish(
        out,
        _with_weights(weights),
        training=open_cohort(training),
        calibration=open_cohort(calibration),
        test=open_cohort(test),
        command="python -m inference cohort, pretrain, finetune, export",
    )
    click.echo(digest)


@click.command()
@click.option("--bundle", default="phantom_recurrence", show_default=True, help="Shipped name, or a folder.")
@click.option("--cohort", "folder", type=FOLDER, required=True, help="Unseen cohort, patients of 6 visits.")
def evaluate(bundle: str, folder: Path) -> None:
    """Score a bundle on rendered phantoms: one JSON line per number of scans."""
    loaded = load(bundle_folder(bundle))
    for each in score_cohort(loaded.network, open_cohort(folder), loaded.metadata.outputs[0].calibration):
        click.echo(each.model_dump_json())


@click.command()
@click.option("--work", type=OUT, required=True, help="Folder for rendered cohorts (about 2 GB); reused if complete.")
@click.option("--out", type=OUT, required=True, help="Folder of the bundle.")
def reproduce(work: Path, out: Path) -> None:
    """Make the shipped bundle from nothing: render, pretrain, fine-tune, calibrate, score, export."""
    rendered = {}
    for split in (SHIPPED.train, SHIPPED.validation, SHIPPED.calibration, SHIPPED.test):
        with _bar(f"rendering {split.name}", split.patients) as advance:
            rendered[split.name] = render_split(work, split, advance)

    epochs = SHIPPED.pretext.epochs + SHIPPED.recurrence.epochs + SHIPPED.heads.epochs
    with _bar("training", epochs) as advance:
        network = train(SHIPPED, rendered["train"], rendered["validation"], lambda name: _report(name, advance))
    digest = publish(
        out,
        network,
        training=rendered["train"],
        calibration=rendered["calibration"],
        test=rendered["test"],
        command="python -m inference reproduce --work WORK --out inference/bundles/phantom_recurrence",
    )
    click.echo(digest)


def bundle_folder(name: str) -> Path:
    """Return the folder that a name on the command line means: an existing folder, else a shipped bundle."""
    return Path(name) if Path(name).is_dir() else shipped(name)


def _with_weights(path: Path) -> TemporalNetwork:
    """Build the small network with weights from a file."""
    network = build(SIZE, members=MEMBERS)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


def _report(name: str, advance: Callable[[], None]) -> Report:
    """Return a report that prints every epoch and moves a bar."""

    def report(epoch: EpochReport) -> None:
        _console.print(f"{name}, epoch {epoch.epoch + 1}: loss {epoch.loss:.4f}, validation {epoch.validation:.3f}")
        advance()

    return report


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar and yield what moves it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
