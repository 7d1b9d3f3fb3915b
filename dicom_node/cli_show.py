"""`status`, `timeline` and `explain`: where everything stands and why, for a person or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from dicom_node.app import now
from dicom_node.cli_options import (
    config_option,
    fail,
    find_patient,
    json_option,
    load_settings,
    open_ledger,
    print_json,
)
from dicom_node.cli_series import print_rules, series_table
from dicom_node.errors import ConfigError, NodeError
from dicom_node.ledger import patients
from dicom_node.observe import overview
from dicom_node.resources import selection_file
from dicom_node.timeline.selection import load_selection
from dicom_node.work.tasks import load_tasks

if TYPE_CHECKING:
    from dicom_node.ledger.patients import Patient
    from dicom_node.settings import Settings


@click.command()
@config_option
@json_option
def status(config: Path, *, as_json: bool) -> None:
    """Show every case with its state and reason, deliveries, files set aside, and refused callers."""
    with open_ledger(load_settings(config)).read() as ledger:
        found = overview.status(ledger)
    if as_json:
        print_json(found)
        return
    console = Console()
    console.print(_case_table(found["cases"]))
    for title in ("files", "runs", "deliveries"):
        counts = ", ".join(f"{count} {state}" for state, count in sorted(found[title].items()))
        console.print(f"{title}: {counts or 'none'}")
    for each in found["set_aside"]:
        console.print(f"  {each['count']} {each['state']}: {each['reason']}")
    for each in found["refused"]:
        console.print(f"refused {each['count']} x {each['calling_ae_title']} from {each['address']}: {each['reason']}")


@click.command()
@click.argument("patient")
@config_option
@json_option
def timeline(patient: str, config: Path, *, as_json: bool) -> None:
    """Show a patient's time points as every task sees them. PATIENT is an ID, or ID^^^ISSUER."""
    settings = load_settings(config)
    with open_ledger(settings).read() as ledger:
        found = _time_line(ledger, find_patient(ledger, patient), settings)
    if as_json:
        print_json(found)
        return
    console = Console()
    for name, line in found["tasks"].items():
        console.print(_time_point_table(name, line))
    console.print(_case_table(found["cases"]))
    for line in _remarks(found):
        console.print(line)


@click.command()
@click.argument("study_uid")
@config_option
@click.option("-v", "--rules", "with_rules", is_flag=True, help="What every rule said of every series.")
@json_option
def explain(study_uid: str, config: Path, *, with_rules: bool, as_json: bool) -> None:
    """Show every series of a study: what it was taken for, by which rule, and why it is used or not."""
    settings = load_settings(config)
    with open_ledger(settings).read() as ledger:
        owner = patients.patient_of_study(ledger, study_uid)
        if owner is None:
            fail(NodeError(f"no study {study_uid} here"))
        found = overview.study(_time_line(ledger, owner, settings), study_uid)
    if as_json:
        print_json(found)
        return
    console = Console()
    for name, kinds in found["tasks"].items():
        for point in [*kinds["time_points"], *kinds["undated"]]:
            console.print(series_table(f"{name}: series", point))
    if with_rules and found["tasks"]:  # the rules ask no task, so the first one shows them all
        print_rules(console, next(iter(found["tasks"].values())))
    console.print(_case_table(found["cases"]))


def _time_line(ledger: Any, patient: Patient, settings: Settings) -> dict[str, Any]:
    try:
        tasks, selection = load_tasks(settings.tasks), load_selection(selection_file(settings.selection))
    except ConfigError as error:
        fail(error)
    return overview.time_line(ledger, patient, tasks, selection, now().date())


def _remarks(found: dict[str, Any]) -> list[str]:
    """Say what else stands behind a time line: other IDs, rejected images, what archives were asked and told."""
    remarks = [f"also known as {each['patient_id']}^^^{each['issuer']}" for each in found["also"]]
    if found["identity"]["differs_in"]:
        remarks.append(f"studies differ in {', '.join(found['identity']['differs_in'])}; see `patient show`")
    if found["rejected_instances"]:
        remarks.append(f"{found['rejected_instances']} images held were rejected by notes and are not used")
    for archive in found["priors"]:
        what = f"{archive['pacs']} asked at {archive['asked_at']}: {archive['state']} {archive['error']}"
        studies = [f"  {each['day'] or 'no date'}: {each['state']} {each['reason']}" for each in archive["studies"]]
        remarks += [line.rstrip() for line in (what, *studies)]
    return remarks


def _case_table(cases: list[dict[str, Any]]) -> Table:
    table = Table("patient", "issuer", "task", "state", "why", title="cases")
    for case in cases:
        why = "; ".join(each["text"] for each in case["reasons"])
        table.add_row(case["patient_id"], case["issuer"], case["task"], case["state"], why)
    return table


def _time_point_table(task: str, line: dict[str, Any]) -> Table:
    table = Table("date", "kind", "used", "series", "why not", title=f"time line for {task}")
    for point in line["time_points"]:
        roles = ", ".join(point["chosen"])
        left_out = point.get("left_out")
        used = "yes" if point["used"] else "no"
        table.add_row(point["acquired_on"], str(point["kind"]), used, roles, left_out["text"] if left_out else "")
    return table
