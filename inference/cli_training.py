"""Verbs that train: `python -m inference cohort|pretrain|finetune`, on one CPU, one GPU or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from inference.bundle import shipped
from inference.cli_parts import load_state, read_part, refuse_other_grid, refuse_shared, refuse_unwritable, split_file
from inference.models import SIZES, TemporalConfig
from inference.models.temporal import TemporalNetwork
from inference.training.arms import Arm, Effort, configuration
from inference.training.cohort import Cohort
from inference.training.fit import EpochReport, Schedule, Session, fit
from inference.training.known_patients import Known, beside, hashed, read_known, write_known
from inference.training.lessons import heads_lesson, order_lesson, recurrence_lesson
from inference.training.parts import TRAIN, folds
from inference.training.phantoms import Drawing, render_cohort
from inference.training.splits import Split, SplitError, fold_name

OUT = click.Path(path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DEFAULT = Effort()
_console = Console(stderr=True)


@click.command()
@click.option("--out", type=OUT, required=True, help="Folder of the cohort.")
@click.option("--patients", type=click.IntRange(1), required=True, help="How many patients.")
@click.option("--first-seed", type=click.IntRange(0), required=True, help="Seed of the first patient.")
@click.option("--visits", type=click.IntRange(1), help="Fix the number of visits (default: 2 to 8 are drawn).")
@click.option("--size", type=click.Choice(sorted(SIZES)), default="small", show_default=True, help="Whose grid.")
def cohort(*, out: Path, patients: int, first_seed: int, visits: int | None, size: str) -> None:
    """Render phantoms in the model's space, for training and scoring."""
    with progress_bar("rendering", patients) as advance:
        seeds = range(first_seed, first_seed + patients)
        drawing = Drawing(shape=SIZES[size].input_shape, n_visits=visits)
        done = render_cohort(out, seeds, drawing, advance=advance)
    click.echo(f"{len(done)} patients, {len(done.volumes)} scans in {out}")


def _training(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both rounds of training share."""
    options = [
        click.option("--cohort", "folder", type=FOLDER, required=True, help="Cohort to train on."),
        click.option("--split", type=FILE, help="As `table split` writes it: read the cohort in parts."),
        click.option("--part", help="With --split, who learns: train (all folds; the default), or fold-1,fold-2."),
        click.option("--fold", type=click.IntRange(0), help="With --split: train on all folds but this; it validates."),
        click.option("--validation", type=FOLDER, help="Cohort of other patients; chooses the epoch."),
        click.option("--validation-part", help="With --split, which part of it (or of --cohort) validates."),
        click.option("--out", type=OUT, required=True, help="File for the weights."),
        click.option("--size", type=click.Choice(sorted(SIZES)), default="small", show_default=True),
        click.option("--width", type=click.IntRange(1), help="Of the encoder (default: the size's)."),
        click.option("--epochs", type=click.IntRange(1), default=1, show_default=True),
        click.option("--batch-patients", type=click.IntRange(1), default=DEFAULT.batch_patients, show_default=True),
        click.option("--encoder-rate", type=float, default=DEFAULT.encoder_rate, show_default=True),
        click.option("--head-rate", type=float, default=DEFAULT.head_rate, show_default=True),
        click.option(
            "--layer-decay",
            type=click.FloatRange(0, 1),
            default=DEFAULT.layer_decay,
            show_default=True,
            help="How much slower each earlier stage of the encoder learns.",
        ),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
        click.option("--patience", type=click.IntRange(1), default=3, show_default=True),
        click.option("--accelerator", default="auto", show_default=True, help="auto, cpu or cuda."),
        click.option("--devices", default="1", show_default=True, help="How many, or auto."),
        click.option("--precision", default="32-true", show_default=True, help="32-true, bf16-mixed or 16-mixed."),
        click.option("--checkpoints", type=OUT, help="Folder; a run that was stopped goes on from it."),
        click.option("--logs", type=OUT, help="Folder for TensorBoard."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("pretrain")
@_training
@click.option("--sham", is_flag=True, help="Random order labels: the control that must teach nothing.")
def pretrain_command(*, out: Path, sham: bool, **how: Any) -> None:
    """Teach the network the order of scans (no labels)."""
    asked = _Asked(how)
    config = configuration(Arm.ORDER, asked.effort)
    learn_from, choose_on = _cohorts(how, config)
    refuse_unwritable(out, "--out")
    torch.manual_seed(asked.schedule.seed)
    lesson = order_lesson(learn_from, choose_on, patients=np.arange(len(learn_from)), sham=sham)
    with asked.session(asked.schedule.epochs) as session:
        network = fit(TemporalNetwork(config), lesson, asked.schedule, session)
    _keep(network, out, session, seen=[_seen(learn_from, choose_on)])


@click.command("finetune")
@_training
@click.option("--weights", type=FILE, help="Weights to start from, as `pretrain` writes them (default: random).")
@click.option("--time-gap", is_flag=True, help="Let the network see when scans were acquired (not as published).")
@click.option("--single", is_flag=True, help="From every scan alone, with its own label: the baseline.")
@click.option(
    "--heads-epochs",
    type=click.IntRange(0),
    default=DEFAULT.heads_epochs,
    show_default=True,
    help="Epochs of the heads alone afterwards, the encoder resting.",
)
def finetune_command(
    *,
    out: Path,
    weights: Path | None,
    time_gap: bool,
    single: bool,
    heads_epochs: int,
    **how: Any,
) -> None:
    """Teach recurrence within 365 days of the last scan: end to end, then the heads on resting features."""
    asked = _Asked(how)
    config = configuration(Arm.GAP if time_gap else Arm.ORDER, asked.effort)
    learn_from, choose_on = _cohorts(how, config)
    refuse_unwritable(out, "--out")
    everyone, schedule = np.arange(len(learn_from)), asked.schedule
    torch.manual_seed(schedule.seed)
    network = TemporalNetwork(config)
    seen = [_seen(learn_from, choose_on)]
    if weights is not None:
        _load(network, weights)
        seen.append(_seen_before(weights))
    with asked.session(schedule.epochs + heads_epochs) as session:
        lesson = recurrence_lesson(learn_from, choose_on, patients=everyone, single=single)
        network = fit(network, lesson, schedule, session)
        if heads_epochs:
            lesson = heads_lesson(network, learn_from, choose_on, patients=everyone, single=single)
            last = replace(schedule, epochs=heads_epochs, head_rate=DEFAULT.heads_rate, patience=6)
            network = fit(network, lesson, last, session)
    _keep(network, out, session, seen=seen)


class _Asked:
    """The options that both rounds of training share, as the values that training takes."""

    def __init__(self, options: dict[str, Any]) -> None:
        taken = {name: options[name] for name in ("encoder_rate", "head_rate", "layer_decay", "batch_patients")}
        self.effort = Effort(size=options["size"], width=options["width"], **taken)
        once = {name: options[name] for name in ("epochs", "seed", "patience")}
        self.schedule = Schedule(**taken, **once)
        self._options = options

    @contextmanager
    def session(self, epochs: int) -> Iterator[Session]:
        """Start the devices that were asked for and show the epochs."""
        options = self._options
        logger = TensorBoardLogger(str(options["logs"])) if options["logs"] else None
        device = {name: options[name] for name in ("accelerator", "devices", "precision")}
        try:
            fabric = Fabric(**device, loggers=logger)  # which names what it does not know
            fabric.launch()
            with progress_bar("training", epochs) as advance:
                told = Session(
                    fabric=fabric, checkpoints=options["checkpoints"], report=lambda epoch: _tell(epoch, advance)
                )
                yield told
        except ValueError as error:
            raise click.ClickException(str(error)) from error


def bundle_folder(name: str) -> Path:
    """Return the folder that a name on the command line means: an existing folder, else a shipped bundle."""
    return Path(name) if Path(name).is_dir() else shipped(name)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar and yield what moves it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def _tell(epoch: EpochReport, advance: Callable[[], None]) -> None:
    """Print an epoch and move the bar."""
    told = f"{epoch.lesson}, epoch {epoch.epoch + 1}: loss {epoch.loss:.4f}, validation {epoch.validation:.3f}"
    _console.print(told)
    advance()


def _load(network: TemporalNetwork, path: Path) -> None:
    """Load weights; a new time-gap input starts as it was drawn."""
    try:
        missing, unexpected = network.load_state_dict(load_state(path), strict=False)
    except RuntimeError as error:
        raise click.UsageError(f"{path}: expected weights of this size and width, found others") from error
    if unexpected or any(".gap." not in each for each in missing):
        raise click.UsageError(f"{path}: expected weights of this size and width, found others")
    network.reset_classifiers()


def _cohorts(how: dict[str, Any], config: TemporalConfig) -> tuple[Cohort, Cohort]:
    """Return whom to learn from, and whom to choose by: different patients, on the network's grid."""
    split, fold = split_file(how["split"]), how["fold"]
    named = [each for each in ("part", "validation_part") if how[each] is not None]
    if split is None and (named or fold is not None):
        raise click.UsageError("--part, --validation-part and --fold: expected with --split, found none")
    if split is not None and fold is not None:
        if named or how["validation"] is not None:
            raise click.UsageError("--fold: expected without --part, --validation and --validation-part")
        part, validation_part = ",".join(_other_folds(split, fold)), fold_name(fold)
    else:
        part, validation_part = how["part"] or TRAIN, how["validation_part"]
    if how["validation"] is None and validation_part is None:
        raise click.UsageError("--validation: expected a cohort, or --split with --fold or --validation-part")
    learn_from = read_part(how["folder"], split, part)
    of_validation = how["validation"] or how["folder"]
    choose_on = read_part(of_validation, split if validation_part else None, validation_part or "")
    refuse_shared(learn_from, choose_on, ("--cohort", "--validation"))
    for cohort, name in ((learn_from, "--cohort"), (choose_on, "--validation")):
        refuse_other_grid(cohort, config.input_shape, name)
    return learn_from, choose_on


def _other_folds(split: Split, fold: int) -> tuple[str, ...]:
    """Return the folds to train on."""
    try:
        return folds(split, but=fold)
    except SplitError as error:
        raise click.UsageError(f"--fold: {error}") from error


def _seen(*cohorts: Cohort) -> Known:
    """Return whom a network learns from or is chosen by."""
    return hashed(str(patient) for cohort in cohorts for patient in cohort.patients)


def _seen_before(weights: Path) -> Known:
    """Return whom weights have seen already."""
    try:
        known = read_known(beside(weights))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if known is None:
        raise click.UsageError(f"{beside(weights)}: expected whom these weights have seen, found no file")
    return known


def _keep(network: TemporalNetwork, path: Path, session: Session, *, seen: Sequence[Known]) -> None:
    """Write the weights, once, and beside them whom they have seen."""
    if session.fabric.is_global_zero:
        torch.save(network.state_dict(), path)
        write_known(beside(path), seen)
