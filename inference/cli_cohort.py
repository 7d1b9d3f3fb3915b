"""Verbs that turn a table of scans into a cohort to train on: `python -m inference table|prepare`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from inference.bundle_files import BundleError, read_metadata, shipped
from inference.cli_parts import refuse_unwritable
from inference.models import SIZES
from inference.preprocess import TemplateError
from inference.training.cohort_table import ROLES, CohortTable, read_table
from inference.training.eligibility import Kind, Rule, choose_all
from inference.training.exclusions import account, write_exclusions
from inference.training.prepare import Space
from inference.training.prepared_cohort import NoPatientError, prepare_table
from inference.training.quality_sheet import worst_first, write_quality
from inference.training.splits import Member, SplitError, SplitPlan, one_sided, part_names, write_split
from inference.training.splits import split as draw
from inference.training.table_file import TableError

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_OUT = click.Path(path_type=Path)
_console = Console(stderr=True)
_KIND_HELP = (
    "Scans after 72 hours (day 4 on), as the node's follow-ups, or from the second day after surgery on: for research "
    "only, no node tells this kind, so no bundle can be exported."
)
_RULE_OPTIONS = (
    click.option("--role", type=click.Choice(ROLES), default="FLAIR", show_default=True, help="Which series is read."),
    click.option("--kind", type=click.Choice(get_args(Kind)), default="follow-up", show_default=True, help=_KIND_HELP),
    click.option("--min-scans", type=click.IntRange(1), default=2, show_default=True, help="Fewer: patient left out."),
    click.option("--max-scans", type=click.IntRange(0), default=6, show_default=True, help="The newest; 0 keeps all."),
    click.option(
        "--choose",
        type=click.Choice(["last", "spread"]),
        default="last",
        show_default=True,
        help="Of more: the newest, or spread over the history, as a task's `choose`.",
    ),
    click.option("--min-gap-days", type=click.IntRange(0), default=0, help="Of two nearer scans the newer counts."),
    click.option("--max-gap-days", type=click.IntRange(0), help="Scans before a longer gap are not shown."),
    click.option("--without-surgery", is_flag=True, help="Take patients without a surgery date, with all their scans."),
    click.option("--unlabelled", is_flag=True, help="Keep patients whose label nobody knows, for the pretext."),
)


def rule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which scans and patients count; the command gets them as one `rule`."""

    @wraps(command)
    def wrapped(*, role: str, kind: Kind, min_scans: int, max_scans: int, **rest: Any) -> None:
        rule = Rule(
            role=role,
            kind=kind,
            min_scans=min_scans,
            max_scans=max_scans or None,
            surgery_needed=not rest.pop("without_surgery"),
            **{name: rest.pop(name) for name in ("unlabelled", "choose", "min_gap_days", "max_gap_days")},
        )
        try:
            _ = rule.selection
        except ValidationError as error:
            raise click.UsageError("; ".join(each["msg"] for each in error.errors())) from error
        command(rule=rule, **rest)

    optioned: Callable[..., None] = wrapped
    for option in reversed(_RULE_OPTIONS):
        optioned = option(optioned)
    return optioned


@click.group()
def table() -> None:
    """Check a table of scans (CSV or Parquet, one line per scan), and split its patients.

    Columns: patient, scan_date, one per role (T1, T1c, T2, FLAIR: path of a DICOM folder or NIfTI file, relative to
    the table), surgery, event, last_follow_up, site, age, sex. Dates are written as 2025-03-14.
    """


@table.command()
@click.argument("file", type=_FILE)
@rule_options
@click.option("--report", type=_OUT, help="Folder for patients.csv and exclusions.csv: who is left out, and why.")
def check(file: Path, rule: Rule, report: Path | None) -> None:
    """Tell everything that is wrong with a table, by line, and who would be left out, and why."""
    read = _read(file)
    for remark in read.remarks:
        click.echo(f"note: {remark}")
    chosen = choose_all(read.patients, rule)
    click.echo("\n".join(account(chosen).lines()))
    if report:
        write_exclusions(report, chosen)


@table.command()
@click.argument("file", type=_FILE)
@rule_options
@click.option("--out", type=_OUT, required=True, help="File for the split: patient -> part, with a digest (JSON).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed draws other parts.")
@click.option(
    "--test-by",
    type=click.Choice(["patient", "site", "date"]),
    default="patient",
    show_default=True,
    help="The locked test: patients drawn, whole sites, or the latest patients.",
)
@click.option("--test", type=float, default=0.2, show_default=True, help="Share of the patients in the locked test.")
@click.option("--calibration", type=float, default=0.1, show_default=True, help="Share kept for calibration alone.")
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Folds of the rest.")
@click.option("--test-site", "test_sites", multiple=True, help="A site of the test (default: sites are drawn).")
def split(file: Path, rule: Rule, out: Path, **options: Any) -> None:
    """Draw the locked test, the calibration part and the folds: by patient always, balanced for the label."""
    refuse_unwritable(out, "--out")
    chosen = [each for each in choose_all(_read(file).patients, rule) if not each.excluded]
    members = [
        Member(
            patient=each.patient.patient,
            label=-1 if each.label is None else int(each.label),
            site=each.patient.site,
            newest=each.patient.scans[each.shown[-1]].acquired,
        )
        for each in chosen
    ]
    try:
        drawn = draw(members, SplitPlan(**options))
    except ValidationError as error:
        raise click.UsageError("; ".join(each["msg"] for each in error.errors())) from error
    except SplitError as error:
        raise click.UsageError(str(error)) from error
    write_split(out, drawn)
    labels = {each.patient: each.label for each in members}
    for name in part_names(drawn.plan):
        part = [labels[patient] for patient, where in drawn.parts.items() if where == name]
        click.echo(f"{name}: {len(part)} patients, {part.count(1)} with the event, {part.count(0)} without")
    for warning in one_sided(members, drawn):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{out}: {drawn.digest}")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--out", type=_OUT, required=True, help="Folder of the cohort; a run that was killed goes on there.")
@click.option("--bundle", help="Prepare for this bundle (shipped name, or a folder): its role and input shape.")
@click.option("--size", type=click.Choice(sorted(SIZES)), help="Prepare for a network of this size (default: small).")
@click.option("--template", type=_FOLDER, help="Folder with t1.nii.gz and mask.nii.gz (default: MNI152).")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="one per core",
    help="Processes; each takes one scan at a time.",
)
@rule_options
def prepare(
    *, file: Path, out: Path, bundle: str | None, size: str | None, template: Path | None, workers: int, rule: Rule
) -> None:
    """Preprocess a table's scans as the node does, into a cohort; quality.html shows what to look at first."""
    space = _space(bundle, size, template, rule.role)
    read = _read(file)
    try:
        with _bar("preparing") as progress:
            done = prepare_table(read, out, rule=rule, space=space, workers=workers, progress=progress)
    except TemplateError as error:
        raise click.UsageError(str(error)) from error
    except NoPatientError as error:
        raise click.ClickException(str(error)) from error
    write_quality(out, done.records)
    click.echo("\n".join(account(done.chosen).lines()))
    for each in worst_first(done.records):
        if each.outcome and each.outcome.failure:
            click.echo(f"set aside: line {each.line}: {each.outcome.failure}")
    click.echo(f"{len(done.cohort)} patients, {len(done.cohort.volumes)} scans in {out}; look at quality.html first")


def _read(file: Path) -> CohortTable:
    """Read a table; everything that is wrong with it ends the command with exit code 2."""
    try:
        return read_table(file, today=datetime.now(tz=UTC).astimezone().date())
    except TableError as error:
        raise click.UsageError(f"{len(error.problems)} problems\n{error}") from error


def _space(bundle: str | None, size: str | None, template: Path | None, role: str) -> Space:
    """Return what to prepare for: a bundle's input, or that of a network to be trained."""
    if bundle and size:
        raise click.UsageError("expected --bundle or --size, found both")
    if bundle is None:
        return Space(role=role, shape=SIZES[size or "small"].input_shape, template=template)
    try:
        metadata = read_metadata(Path(bundle) if Path(bundle).is_dir() else shipped(bundle))
    except BundleError as error:
        raise click.UsageError(str(error)) from error
    if metadata.roles != (role,):
        raise click.UsageError(f"--role: expected {', '.join(metadata.roles)} as the bundle reads, found {role}")
    return Space(role=role, shape=metadata.input_shape, template=template)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar and yield what sets it to (done, all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_console) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
