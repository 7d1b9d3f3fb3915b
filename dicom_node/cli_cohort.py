"""`cohort import`, `list` and `set`: what the images do not say, every change audited."""

from __future__ import annotations

import dataclasses
import getpass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.app import now, prepare
from dicom_node.cli_options import config_option, fail, json_option, load_settings, open_ledger, print_json
from dicom_node.cohort_file import CohortRow, read_cohort
from dicom_node.errors import ConfigError
from dicom_node.ledger import cohort as ledger_cohort
from dicom_node.timeline.model import Event, Surgery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.ledger.database import Database


@click.group()
def cohort() -> None:
    """Surgery dates, diagnoses and events: what the images do not say."""


@cohort.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
def import_(file: Path, config: Path) -> None:
    """Read a CSV file, whole or not at all; see the README for its columns."""
    settings = load_settings(config)
    try:
        rows = read_cohort(file, default_issuer=settings.receive.default_issuer)
    except ConfigError as error:
        fail(error)
    prepare(settings)
    changed = _write(open_ledger(settings), rows, action="cohort import")
    click.echo(f"{len(rows)} patients read, {changed} changed")


@cohort.command("list")
@config_option
@json_option
def list_(config: Path, *, as_json: bool) -> None:
    """Show everybody in the cohort."""
    with open_ledger(load_settings(config)).read() as ledger:
        found = [
            {"issuer": issuer, "patient_id": patient_id}
            | dataclasses.asdict(ledger_cohort.read(ledger, issuer, patient_id))
            for issuer, patient_id in ledger_cohort.patients(ledger)
        ]
    if as_json:
        print_json(found)
        return
    for each in found:
        surgeries = ", ".join(str(surgery["on"]) for surgery in each["surgeries"]) or "no surgery date"
        events = ", ".join(f"{event['on']} {event['kind']}" for event in each["events"]) or "no event"
        click.echo(
            f"{each['patient_id']}^^^{each['issuer']}: {each['diagnosis'] or 'no diagnosis'}; {surgeries}; {events}"
        )


@cohort.command("set")
@click.argument("patient_id")
@config_option
@click.option("--issuer", help="Issuer of the PatientID; default: the first peer's default_issuer.")
@click.option("--diagnosis")
@click.option("--surgery", type=click.DateTime(["%Y-%m-%d"]), multiple=True, help="Replaces the surgery dates.")
@click.option("--event", type=click.DateTime(["%Y-%m-%d"]), multiple=True, help="Replaces the recurrence dates.")
def set_(patient_id: str, config: Path, issuer: str | None, diagnosis: str | None, **days: Any) -> None:
    """Set single facts of one patient; what is not named stays."""
    settings = load_settings(config)
    prepare(settings)
    issuer = issuer or settings.receive.default_issuer
    database = open_ledger(settings)
    with database.read() as ledger:
        facts = ledger_cohort.read(ledger, issuer, patient_id)
    changes: dict[str, Any] = {}
    if diagnosis is not None:
        changes["diagnosis"] = diagnosis
    if days["surgery"]:
        changes["surgeries"] = tuple(Surgery(on=day) for day in _days(days["surgery"]))
    if days["event"]:
        changes["events"] = tuple(Event(on=day) for day in _days(days["event"]))
    row = CohortRow(patient_id=patient_id, issuer=issuer, facts=dataclasses.replace(facts, **changes))
    click.echo(f"{_write(database, [row], action='cohort set')} changed")


def _days(moments: Sequence[Any]) -> list[date]:
    return sorted(moment.date() for moment in moments)


def _write(database: Database, rows: Sequence[CohortRow], *, action: str) -> int:
    """Write all rows and their audit in one transaction; return how many changed."""
    changed = 0
    with database.write() as ledger:
        for row in rows:
            if ledger_cohort.replace(ledger, row.issuer, row.patient_id, row.facts):
                changed += 1
                ledger_cohort.write_audit(
                    ledger,
                    at=now(),
                    actor=getpass.getuser(),
                    action=action,
                    subject=f"{row.patient_id}^^^{row.issuer}",
                    details=dataclasses.asdict(row.facts),
                )
    return changed
