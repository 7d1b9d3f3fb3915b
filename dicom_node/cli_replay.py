"""`replay`: a history with a clock of its own, every decision told. Always dry: it reads, and writes nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dicom_node.cli_options import (
    config_option,
    fail,
    json_option,
    load_settings,
    print_json,
)
from dicom_node.errors import ConfigError, NodeError
from dicom_node.observe.replayed import replayed
from dicom_node.replay_sources import from_folder, from_ledger
from dicom_node.resources import config_folder, selection_file
from dicom_node.settings import Settings
from dicom_node.timeline.arrival_order import settled_at, shuffle
from dicom_node.timeline.replay import Rules, replay
from dicom_node.timeline.selection import load_selection
from dicom_node.work.judge import PHANTOM_MODEL
from dicom_node.work.recipients import may_answer
from dicom_node.work.tasks import load_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from dicom_node.replay_sources import Found
    from dicom_node.timeline.history import History


@click.command("replay")
@click.argument("patient", required=False)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Replay the DICOM files of a folder, every study on the day it was acquired, instead of what the node holds.",
)
@click.option(
    "--cohort",
    "cohort_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --folder: what the images do not say, as for `cohort import`.",
)
@click.option("--shuffle", "seed", type=int, help="Let everything arrive in another order; the number names it.")
@click.option("--task", help="One task only; default: all that are configured.")
@config_option
@json_option
@click.pass_context
def replay_verb(  # noqa: PLR0913 - an option each
    context: click.Context,
    *,
    patient: str | None,
    folder: Path | None,
    cohort_file: Path | None,
    seed: int | None,
    task: str | None,
    config: Path,
    as_json: bool,
) -> None:
    """Feed a history to the time line with a clock of its own and print each decision. Nothing is stored or sent.

    PATIENT is an ID, or ID^^^ISSUER: what the node holds, as it arrived. With --folder, files from disk; without a
    node.yaml all shipped tasks are tried with the default settings.
    """
    if (patient is None) == (folder is None) or (cohort_file is not None and folder is None):
        msg = "give either PATIENT, or --folder with or without --cohort"
        raise click.UsageError(msg)
    named = context.get_parameter_source("config") is not ParameterSource.DEFAULT
    settings = load_settings(config) if patient or named or config.is_file() else _shipped()
    try:
        every = _rules(settings, task)
        found = _histories(settings, patient, folder, cohort_file)
    except (ConfigError, NodeError) as error:
        fail(error)
    told = [_replay(each, every, settings, until=found.until, seed=seed) for each in found.histories]
    if as_json:
        print_json({"patients": told, "unread": [{"reason": why, "count": count} for why, count in found.unread]})
        return
    console = Console()
    for each in told:
        _print(console, each)
    for why, count in found.unread:
        console.print(f"{count} files not used: {why}", markup=False)


def _shipped() -> Settings:
    """Return the settings of a node that nobody configured: every shipped task, default waits."""
    tasks = sorted(each.stem.replace("_", "-") for each in (config_folder() / "tasks").glob("*.yaml"))
    return Settings.model_validate(
        {
            "node": {"ae_title": "REPLAY", "data_dir": Path()},
            "receive": {"allow_unknown_peers": True},
            "tasks": tasks,
        }
    )


def _rules(settings: Settings, task: str | None) -> dict[str, Rules]:
    """Return task name -> what its replay is judged by.

    Raises:
        ConfigError: if a task or the selection is wrong, or the task asked for is not configured.
    """
    served = load_tasks(settings.tasks)
    if task is not None and task not in served:
        raise ConfigError((f"--task: {task!r} is not configured; configured: {', '.join(sorted(served))}",))
    selection = load_selection(selection_file(settings.selection))
    return {
        name: Rules(
            task=each.task,
            selection=selection,
            bundle_digest=each.bundle_digest,
            quiet_period_s=settings.receive.quiet_period_s,
            max_wait_s=settings.receive.max_wait_s,
            phantoms_only=None if may_answer(settings, each, phantom=False) else PHANTOM_MODEL,
        )
        for name, each in served.items()
        if task in {None, name}
    }


def _histories(settings: Settings, patient: str | None, folder: Path | None, cohort_file: Path | None) -> Found:
    """Return what is to be replayed.

    Raises:
        ConfigError: if the cohort file is wrong.
        NodeError: if nothing in the folder is an MR image.
    """
    if folder is not None:
        return from_folder(settings, folder, cohort_file)
    assert patient is not None  # noqa: S101 - the verb asked
    return from_ledger(settings, patient)


def _replay(
    history: History, every: Mapping[str, Rules], settings: Settings, *, until: datetime | None, seed: int | None
) -> dict[str, Any]:
    """Replay one patient for all tasks; a shuffled history is looked at last at the same time as the ordered one."""
    pause = timedelta(seconds=settings.receive.quiet_period_s + 1)
    patience = timedelta(seconds=settings.receive.quiet_period_s + settings.receive.max_wait_s)
    end = until or settled_at(history, pause=pause, patience=patience)
    if seed is not None:
        history = shuffle(history, seed, pause=pause)
    issuer, patient_id = history.patient
    tasks = {name: replayed(replay(history, rules, until=end)) for name, rules in every.items()}
    return {"issuer": issuer, "patient_id": patient_id, "tasks": tasks}


def _print(console: Console, told: Mapping[str, Any]) -> None:
    """Print one table per task, a row per decision, and what goes in at the end."""
    for task, found in told["tasks"].items():
        table = Table(title=f"{task}: {_name(told)}", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("clock", "because of", "images", "state", "inputs"):
            table.add_column(heading, no_wrap=True)
        table.add_column("why")
        for step in found["steps"]:
            table.add_row(
                f"{step['at']:%Y-%m-%d %H:%M:%S}",
                step["occasion"],
                str(step["instances"]),
                step["state"],
                str(len(step["inputs"])),
                escape(_why(step)),
            )
        console.print(table)
        console.print(_end(found["final"]), markup=False)


def _name(told: Mapping[str, Any]) -> str:
    return escape(f"{told['patient_id']}^^^{told['issuer']}")


def _why(step: Mapping[str, Any]) -> str:
    texts = [each["text"] for each in (*step["reasons"], *step["flags"])]
    if step["predecessor"]:
        after = f"after report {step['predecessor'][:12]}"
        texts.append(f"corrects it, {after}" if step["correction"] else after)
    return "; ".join(texts)


def _end(final: Mapping[str, Any] | None) -> str:
    """Say what goes in at the end, in one line."""
    if final is None:
        return "nothing held: no case"
    used = ", ".join(f"{each['acquired_on']} ({', '.join(each['series'])})" for each in final["inputs"])
    run = f", run {final['run_key'][:12]}" if final["run_key"] else ""
    return f"final: {final['state']}{run}; inputs: {used or 'none'}"
