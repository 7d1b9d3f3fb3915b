"""The verb that packages: `python -m inference export`, from weights and what people say of them to a bundle.

What can be read is not asked for: whether patients or phantoms were learnt from, which of their scans, in which space
and on which grid stands beside the cohorts; whom the networks have seen stands beside their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from inference.bundle_files import BundleError, Metadata, read_metadata
from inference.cli_parts import load_network, make_folder, read_part, refuse_other_grid, refuse_shared, split_file
from inference.cli_training import FILE, FOLDER, OUT
from inference.evaluation.card import Development, model_card
from inference.models import SIZES, TemporalNetwork
from inference.selection import SelectionRule
from inference.training.cohort import Cohort
from inference.training.known_patients import IN_BUNDLE, Known, beside, hashed, read_known, shared, write_known
from inference.training.parts import TRAIN
from inference.training.provenance import MadeWith, ProvenanceError, made_with, refuse_differences
from inference.training.release import About, ensemble_and_trust, release, write_card
from inference.training.splits import CALIBRATION

_ABOUT_HELP = (
    "YAML, see config/about.example.yaml: name, version, task, description, authors, copyright, intended_use, "
    "training_data, slice_thickness_mm. The cohorts say synthetic_training_data, selection and template; where they "
    "are written all the same, they must agree."
)


@click.command()
@click.option("--weights", type=FILE, multiple=True, required=True, help="As `finetune` writes them; each is a member.")
@click.option("--about", type=FILE, required=True, help=_ABOUT_HELP)
@click.option("--training", type=FOLDER, required=True, help="Cohort that was trained on, to state its ranges.")
@click.option("--calibration", type=FOLDER, help="Cohort that no member has seen (default with --split: --training).")
@click.option("--split", type=FILE, help="As `table split` writes it: read the cohorts in parts.")
@click.option("--part", default=TRAIN, show_default=True, help="With --split, the part of --training.")
@click.option("--calibration-part", default=CALIBRATION, show_default=True, help="With --split, that of --calibration.")
@click.option("--size", type=click.Choice(sorted(SIZES)), default="small", show_default=True)
@click.option("--out", type=OUT, required=True, help="Folder of the bundle.")
def export(*, weights: tuple[Path, ...], about: Path, size: str, out: Path, **how: Any) -> None:
    """Calibrate and write an ensemble as a MONAI Bundle with its model card; prints the digest to pin in a task."""
    learnt_from, calibrated_on, made = _cohorts(how)
    said = _about(about, made)
    networks = [load_network(path, size) for path in weights]
    for cohort, name in ((learnt_from, "--training"), (calibrated_on, "--calibration")):
        refuse_other_grid(cohort, networks[0].config.input_shape, name)
    seen = _seen(weights, learnt_from, calibrated_on)
    make_folder(out, "--out")
    digest = _release(out, networks, said, learnt_from, calibrated_on)
    write_known(out / IN_BUNDLE, [*seen, hashed(calibrated_on.patients.tolist())])
    metadata = read_metadata(out)
    write_card(out, model_card(metadata, development(metadata, members=len(networks), size=size)))
    click.echo(digest)


def development(metadata: Metadata, *, members: int, size: str) -> Development:
    """Return what the card of a bundle that was exported says of how it came to be."""
    calibrated_on = "unknown" if metadata.novelty is None else str(metadata.novelty.n_patients)
    return Development(
        architecture=f"{members} networks of size `{size}`.",
        splits=f"Calibration: {calibrated_on} patients that no member has seen, and that were used for nothing else.",
        choice="See the report of the evaluation.",
        validation={},
        command="python -m inference prepare, pretrain, finetune, export",
    )


def _cohorts(how: dict[str, Any]) -> tuple[Cohort, Cohort, MadeWith]:
    """Return whom was learnt from and who calibrates, and how both were made."""
    split, training = split_file(how["split"]), how["training"]
    calibration = how["calibration"] or training
    if split is None and how["calibration"] is None:
        raise click.UsageError("--calibration: expected a cohort, or --split with a part for calibration")
    learnt_from = read_part(training, split, how["part"])
    calibrated_on = read_part(calibration, split, how["calibration_part"])
    refuse_shared(learnt_from, calibrated_on, ("--training", "--calibration"))
    try:
        made = made_with(training, learnt_from)
        refuse_differences(made, made_with(calibration, calibrated_on), ("--training", "--calibration"))
    except ProvenanceError as error:
        raise click.ClickException(str(error)) from error
    return learnt_from, calibrated_on, made


def _about(path: Path, made: MadeWith) -> About:
    """Read what people say of their model; what the cohorts say as well must agree."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: expected YAML, found {error}") from error
    if not isinstance(said, dict):
        raise click.UsageError(f"{path}: expected keys with values, found {type(said).__name__}")
    facts = {"synthetic_training_data": made.synthetic, "selection": made.selection, "template": made.template}
    try:
        claimed = said | {key: SelectionRule.model_validate(said[key]) for key in ("selection",) if key in said}
        if differing := [key for key, fact in facts.items() if claimed.get(key, fact) != fact]:
            told = "; ".join(f"{key}: expected {facts[key]}, found {claimed[key]}" for key in differing)
            raise click.UsageError(f"{path}: the cohorts say otherwise; {told}")
        return About.model_validate(said | facts)
    except ValidationError as error:
        rules = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise click.UsageError(f"{path}: {rules}") from error


def _seen(weights: Sequence[Path], learnt_from: Cohort, calibrated_on: Cohort) -> list[Known]:
    """Return whom the members have seen: all of --training together, and nobody who calibrates."""
    seen: list[Known] = []
    training, calibration = learnt_from.patients.tolist(), calibrated_on.patients.tolist()
    for path in weights:
        try:
            known = read_known(beside(path))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if known is None:
            raise click.UsageError(f"{beside(path)}: expected whom these weights have seen, found no file")
        if not shared(known, training):
            raise click.UsageError(f"{path}: expected weights that learnt from --training, found nobody of it")
        if found := shared(known, calibration):
            raise click.UsageError(f"{path}: expected calibration patients that it never saw, found {found} it saw")
        seen.append(known)
    everyone = {key: hashes for known in seen for key, hashes in known.items()}
    if missing := len(training) - shared(everyone, training):
        raise click.UsageError(f"--training: expected patients whom a member learnt from, found {missing} others")
    return seen


def _release(
    out: Path, networks: Sequence[TemporalNetwork], said: About, learnt_from: Cohort, calibrated_on: Cohort
) -> str:
    """Fit the trust and write the bundle."""
    try:
        ensemble, trust = ensemble_and_trust(networks, calibrated_on)
        return release(out, ensemble, trust, said, training=learnt_from)
    except (ValueError, BundleError, OSError) as error:
        raise click.ClickException(str(error)) from error
