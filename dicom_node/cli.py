"""The command line: `dicom-node VERB`. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node import app, cli_try, tls
from dicom_node.cli_backup import backup, restore
from dicom_node.cli_benchmark import benchmark
from dicom_node.cli_by_hand import ingest, retry
from dicom_node.cli_cohort import cohort
from dicom_node.cli_demo import demo
from dicom_node.cli_options import config_option, fail, load_settings
from dicom_node.cli_orders import force_run, hold, release
from dicom_node.cli_patient import patient
from dicom_node.cli_purge import purge
from dicom_node.cli_recover import recover
from dicom_node.cli_replay import replay_verb
from dicom_node.cli_show import explain, status, timeline
from dicom_node.cli_withdraw import withdraw
from dicom_node.errors import ConfigError, NodeError
from dicom_node.observe.doctor import examine
from dicom_node.observe.logs import load_key, open_log
from dicom_node.resources import selection_file
from dicom_node.supervisor import Supervisor, children_of, has_supervisor, stop_with_supervisor
from dicom_node.timeline.selection import load_selection
from dicom_node.work import saliency
from dicom_node.work.tasks import load_tasks

if TYPE_CHECKING:
    from dicom_node.settings import Settings
    from dicom_node.work.tasks import ServedTask


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="temporal-dicom-node")
def main() -> None:
    """Read serial brain MRI, keep a time line per patient, answer PACS with reports. Research use only."""
    os.umask(0o077)  # whatever the program writes, its user alone may read


for verb in (
    backup, benchmark, cohort, demo, explain, force_run, hold, ingest, patient, purge, recover, release, replay_verb,
    restore, retry, status, timeline, withdraw,
):  # fmt: skip
    main.add_command(verb)


@main.command()
@config_option
@click.option("--role", type=click.Choice(["all", *app.ROLES]), default="all", show_default=True)
@click.option("--slot", type=click.IntRange(0, 15), default=0, help="Which of several workers this one is.")
def run(config: Path, role: str, slot: int) -> None:
    """Serve until SIGTERM, which drains; `--role` runs one part alone, for several hosts."""
    settings = load_settings(config)
    try:
        _check_parts(settings)
        if not has_supervisor():
            app.prepare(settings)
        if role == "all":
            log = open_log(settings.logging, load_key(settings.node.data_dir))
            sys.exit(Supervisor(children_of(config.resolve(), settings.inference), log).run())
        _serve(settings, role, slot)
    except (NodeError, OSError) as error:
        fail(error)


@main.command()
@config_option
@click.option(
    "--try",
    "study_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run the tasks' series rules on the DICOM files of a folder; nothing is stored.",
)
@click.option("--rules", "-v", "with_rules", is_flag=True, help="With --try: what every rule said of every series.")
@click.option("--json", "as_json", is_flag=True, help="With --try: print stable JSON, rules included.")
def check(config: Path, study_folder: Path | None, *, with_rules: bool, as_json: bool) -> None:
    """Check the configuration, its tasks, series rules and bundles; tell every error at once. Or try it on files."""
    if study_folder is None and (with_rules or as_json):
        msg = "--rules and --json need --try FOLDER"
        raise click.UsageError(msg)
    settings = load_settings(config)
    tasks = _check_parts(settings)
    if study_folder is None:
        click.echo(f"{config}: good; tasks: {', '.join(sorted(tasks))}")
        for name, each in sorted(tasks.items()):
            click.echo(f"{name}: {saliency.told(each.task.saliency, each.saliency)}")
        for remark in (remark for each in tasks.values() for remark in each.remarks):
            click.echo(f"warning: {remark}")
        return
    served = {name: each.task for name, each in tasks.items()}
    selection = load_selection(selection_file(settings.selection))
    found = cli_try.try_folder(study_folder, served, selection, settings.receive)
    cli_try.show(found, with_rules=with_rules, as_json=as_json)


@main.command()
@config_option
def doctor(config: Path) -> None:
    """Examine the surroundings: database, disk, bundles, archives, our own listener, GPU; one line each."""
    findings = examine(load_settings(config))
    for finding in findings:
        click.echo(f"{'ok ' if finding.good else 'BAD'} {finding.what}: {finding.found}")
    sys.exit(0 if all(each.good for each in findings) else 1)


def _serve(settings: Settings, role: str, slot: int) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop_with_supervisor(stop.set)
    app.serve(settings, role, slot, stop)


def _check_parts(settings: Settings) -> dict[str, ServedTask]:
    """Load what the configuration names, or end with exit code 2 and every problem; return the tasks."""
    problems = tls.problems(settings)
    tasks: dict[str, ServedTask] = {}
    try:
        tasks = load_tasks(settings.tasks)
    except ConfigError as error:
        problems.extend(error.problems)
    try:
        load_selection(selection_file(settings.selection))
    except ConfigError as error:
        problems.extend(error.problems)
    if problems:
        fail(ConfigError(tuple(problems)))
    return tasks
