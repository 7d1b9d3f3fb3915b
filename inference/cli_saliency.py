"""The verb that checks a bundle's saliency against what truly changed: `python -m inference saliency-check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from inference.bundle import load
from inference.cli_training import FOLDER, OUT, bundle_folder
from inference.evaluation.saliency_checks import FIRST_SEED
from inference.evaluation.saliency_real_pairs import real_pairs
from inference.evaluation.saliency_report import check_cases, saliency_check, write_saliency_check
from inference.saliency import Method

_NAMES = [each.value for each in Method]  # click would otherwise ask for the names of the enum's members


@click.command("saliency-check")
@click.option("--bundle", default="phantom_recurrence", show_default=True, help="Shipped name, or a folder.")
@click.option("--patients", type=click.IntRange(1), default=40, show_default=True, help="Phantoms with a true change.")
@click.option("--out", type=OUT, required=True, help="Folder for saliency.json and pictures.")
@click.option("--first-seed", type=click.IntRange(0), default=FIRST_SEED, show_default=True)
@click.option(
    "--method", "names", multiple=True, type=click.Choice([each.value for each in Method]), help="Default: all."
)
@click.option("--ms", type=FOLDER, help="Folder of real pairs with an expert's mask of change, as an illustration.")
def saliency_check_command(
    *, bundle: str, patients: int, out: Path, first_seed: int, names: tuple[str, ...], ms: Path | None
) -> None:
    """Compare saliency maps with the true change of phantoms; prints the verdict as JSON."""
    methods = tuple(Method(name) for name in names) or tuple(Method)
    loaded = load(bundle_folder(bundle))

    def advance() -> None:
        click.echo(".", nl=False, err=True)

    check = saliency_check(loaded.folder, patients, methods=methods, first_seed=first_seed, advance=advance)
    illustration = None
    if ms is not None:
        cases = real_pairs(ms, shape=loaded.metadata.input_shape)
        illustration = check_cases(loaded.network, cases, methods=methods, data="real pairs", advance=advance)
    click.echo(err=True)
    write_saliency_check(out, check, bundle=loaded.digest, illustration=illustration)
    click.echo(json.dumps(asdict(check.summary.verdict)))
