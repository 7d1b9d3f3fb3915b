"""The verb that judges: `python -m inference evaluate`, a bundle on a locked test, beside other arms.

Whatever can be wrong is found before the test is opened: an opening is counted for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from inference.bundle import Bundle, BundleError, load
from inference.bundle_files import read_metadata
from inference.cli_export import development
from inference.cli_parts import load_network, make_folder, read_part, refuse_other_grid, refuse_shared, split_file
from inference.cli_training import FILE, FOLDER, OUT, bundle_folder
from inference.evaluation.answers import final_answers
from inference.evaluation.baselines import BASELINES
from inference.evaluation.bootstrap import Sampling
from inference.evaluation.calibration import calibrate
from inference.evaluation.card import model_card
from inference.evaluation.evaluate import Evaluation, Evidence, Plan, evaluate
from inference.evaluation.landmarks import landmarks_json, landmarks_text, score_landmarks
from inference.evaluation.locked import LockedTestError, Opening, open_locked
from inference.evaluation.operating import Threshold
from inference.evaluation.predictions import Predictions
from inference.evaluation.report import MARKDOWN, write_report
from inference.models import Ensemble, Network
from inference.training.cohort import Cohort
from inference.training.experiment import answer
from inference.training.known_patients import IN_BUNDLE, read_known, shared
from inference.training.landmark_answers import landmark_answers
from inference.training.provenance import ProvenanceError, made_with
from inference.training.release import with_scores, write_card
from inference.training.splits import CALIBRATION, TEST

_BUNDLE = "bundle"  # the arm that is judged
_LANDMARKS = "landmarks.json"


@click.command("evaluate")
@click.option("--bundle", default="phantom_recurrence", show_default=True, help="Shipped name, or a folder.")
@click.option("--test", type=FOLDER, required=True, help="Locked cohort; opened on record with --final only.")
@click.option(
    "--validation", type=FOLDER, help="Cohort of other patients, to fix thresholds on (default with --split: --test)."
)
@click.option("--split", type=FILE, help="As `table split` writes it: read --test and --validation in parts.")
@click.option("--part", default=TEST, show_default=True, help="With --split, the part of --test.")
@click.option("--validation-part", default=CALIBRATION, show_default=True, help="With --split, that of --validation.")
@click.option("--shifted", type=FOLDER, multiple=True, help="Locked cohort of another population; opened on record.")
@click.option("--arm", "arms", multiple=True, help="NAME=WEIGHTS[,WEIGHTS...]: an arm to compare with, a file a seed.")
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    required=True,
    help="Of events, for PPV, NPV and F1; declared before the test is opened.",
)
@click.option("--final", metavar="REASON", help="This is the final evaluation: open the test, on record.")
@click.option("--out", type=OUT, required=True, help="Folder of the report.")
@click.option(
    "--scored", type=OUT, help="Folder for the bundle with its scores, operating points and card (another digest)."
)
def evaluate_command(*, prevalence: float, final: str | None, out: Path, **how: Any) -> None:
    """Evaluate a bundle on a locked cohort, beside other arms: report.md, report.json and pictures."""
    if not (final and final.strip()):
        _open(how["test"], final)  # which refuses
    judged = _judged(how)
    make_folder(out, "--out")
    try:
        validation = answer("validation", judged.validation, judged.networks)
        for arm in judged.networks:
            final_answers(validation, arm)  # both outcomes are there, and every patient was answered
        openings = [_open(folder, final) for folder in judged.folders]
        tables = [answer(name, each, judged.networks) for name, each in judged.tests.items()]
        evaluation = _evaluate(judged, tables, validation, openings, prevalence)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    for path in write_report(out, evaluation):
        click.echo(path)
    _write_landmarks(out, judged)
    if how["scored"] is not None:
        click.echo(_score(judged.bundle, tables[0], evaluation, how["scored"]))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Judged:
    """What is judged, and on whom; of the tests, nothing but the index was read."""

    bundle: Bundle
    networks: dict[str, Sequence[Network]]
    tests: dict[str, Cohort]  # "test" first, then other populations
    folders: tuple[Path, ...]  # of the tests
    validation: Cohort
    remarks: tuple[str, ...]


def _judged(how: dict[str, Any]) -> _Judged:
    """Load what is judged and look at everything that can be wrong before a test is opened."""
    try:
        bundle = load(bundle_folder(how["bundle"]))
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    networks: dict[str, Sequence[Network]] = {_BUNDLE: _members(bundle.network)}
    for name, paths in map(_named, how["arms"]):
        if name in (*networks, *BASELINES):
            taken = ", ".join((_BUNDLE, *BASELINES))
            raise click.UsageError(f"--arm {name}: expected every name once, and none of {taken}")
        networks[name] = _weights(paths, name, bundle.definition.size)
    split = split_file(how["split"])
    if split is None and how["validation"] is None:
        raise click.UsageError("--validation: expected a cohort, or --split with a part for validation")
    tests = {TEST: read_part(how["test"], split, how["part"], unlocked=True)}
    tests |= {each.name: read_part(each, None, "") for each in how["shifted"]}
    if len(tests) <= len(how["shifted"]):
        raise click.UsageError(f"--shifted: expected folders of different names, none of them {TEST!r}")
    validation = read_part(how["validation"] or how["test"], split, how["validation_part"])
    for name, cohort in (*tests.items(), ("validation", validation)):
        refuse_other_grid(cohort, bundle.metadata.input_shape, name)
    for name, cohort in tests.items():
        refuse_shared(cohort, validation, (name, "validation"))
    folders = (how["test"], *how["shifted"])
    remarks = [*_never_seen(bundle, tests), *_made_alike(bundle, tests, folders)]
    if how["scored"] is not None and tests[TEST].synthetic != bundle.metadata.synthetic_training_data:
        raise click.UsageError("--scored: expected patients for a bundle of patients, phantoms for one of phantoms")
    return _Judged(
        bundle=bundle,
        networks=networks,
        tests=tests,
        folders=folders,
        validation=validation,
        remarks=tuple(remarks),
    )


def _members(network: Network) -> list[Network]:
    """Return the members of an ensemble one by one, as seeds of one arm: their spread is the bundle's uncertainty."""
    return list(network.apart()) if isinstance(network, Ensemble) else [network]


def _never_seen(bundle: Bundle, tests: dict[str, Cohort]) -> tuple[str, ...]:
    """Refuse test patients whom the bundle says that it has seen; remark where it does not say."""
    try:
        known = read_known(bundle.folder / IN_BUNDLE)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if known is None:
        return (f"the bundle does not say whom it has seen ({IN_BUNDLE}): nobody checked that the test is new to it.",)
    for name, cohort in tests.items():
        if found := shared(known, cohort.patients.tolist()):
            raise click.ClickException(f"{name}: expected patients new to the bundle, found {found} it saw")
    return ()


def _made_alike(bundle: Bundle, tests: dict[str, Cohort], folders: Sequence[Path]) -> list[str]:
    """Refuse scans of another role or in another space than the bundle reads; remark where others were shown."""
    told, remarks = bundle.metadata, []
    for (name, cohort), folder in zip(tests.items(), folders, strict=True):
        try:
            made = made_with(folder, cohort)
        except ProvenanceError as error:
            raise click.ClickException(str(error)) from error
        found, expected = (made.selection.roles, made.template), (told.roles, told.template)
        if found != expected:
            raise click.ClickException(f"{name}: expected scans of {expected} as the bundle reads, found {found}")
        if not cohort.synthetic and made.selection != told.selection:
            remarks.append(f"{name}: its scans were chosen by another rule than the bundle's: {made.selection}.")
    return remarks


def _open(folder: Path, final: str | None) -> Opening:
    """Open a test on record."""
    try:
        return open_locked(folder, final=final is not None, reason=final or "")
    except LockedTestError as error:
        raise click.ClickException(str(error)) from error


def _evaluate(
    judged: _Judged,
    tables: Sequence[Predictions],
    validation: Predictions,
    openings: Sequence[Opening],
    prevalence: float,
) -> Evaluation:
    """Return every figure, with what was fixed before the test was opened."""
    output = judged.bundle.metadata.outputs[0]
    evaluation = evaluate(
        tables[0],
        validation=validation,
        calibrate=lambda n_scans, logits: calibrate(n_scans, logits, output.calibration),
        ceilings=None,
        plan=Plan(prevalence=prevalence, synthetic=judged.tests[TEST].synthetic, delivered=_BUNDLE),
        evidence=Evidence(shifted=tuple(tables[1:]), thresholds=_thresholds(judged.bundle), openings=tuple(openings)),
    )
    return replace(evaluation, warnings=(*evaluation.warnings, *judged.remarks))


def _thresholds(bundle: Bundle) -> tuple[Threshold, ...]:
    """Return the thresholds that the bundle brings, as calibration fixed them."""
    output = bundle.metadata.outputs[0]
    brought = output.thresholds or output.operating_points
    return tuple(Threshold(name=each.name, value=each.threshold, target=each.target) for each in brought)


def _write_landmarks(out: Path, judged: _Judged) -> None:
    """Add the landmarks of the test to the report."""
    calibration = judged.bundle.metadata.outputs[0].calibration
    answers = landmark_answers(judged.bundle.network, judged.tests[TEST], calibration)
    if answers is None:
        return
    scores = score_landmarks(answers, Sampling())
    (out / _LANDMARKS).write_text(landmarks_json(scores), encoding="utf-8")
    with (out / MARKDOWN).open("a", encoding="utf-8") as report:
        report.write("\n" + landmarks_text(scores))
    click.echo(out / _LANDMARKS)


def _score(bundle: Bundle, table: Predictions, evaluation: Evaluation, folder: Path) -> str:
    """Write the bundle anew with what the test measured; return its digest."""
    digest = with_scores(bundle, folder, evaluation, table, thresholds=_thresholds(bundle))
    metadata, definition = read_metadata(folder), bundle.definition
    how = development(metadata, members=definition.members, size=definition.size)
    write_card(folder, model_card(metadata, how, evaluation=evaluation))
    return digest


def _named(arm: str) -> tuple[str, Sequence[Path]]:
    """Split NAME=FILE,FILE."""
    name, _, files = arm.partition("=")
    if not name or not files:
        raise click.UsageError(f"--arm: expected NAME=WEIGHTS[,WEIGHTS...], found {arm!r}")
    return name, [Path(each) for each in files.split(",")]


def _weights(paths: Sequence[Path], name: str, size: str) -> list[Network]:
    """Load the members of an arm."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise click.UsageError(f"--arm {name}: expected files, found none at {', '.join(map(str, missing))}")
    return [load_network(path, size) for path in paths]
