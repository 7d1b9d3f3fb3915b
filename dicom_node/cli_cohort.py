"""`cohort import`, `list`, `set`, `confirm` and `history`: what the images do not say, every change audited."""

from __future__ import annotations

import dataclasses
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.app import now, prepare
from dicom_node.cli_options import (
    config_option,
    fail,
    find_patient,
    json_option,
    load_settings,
    open_ledger,
    print_json,
)
from dicom_node.cohort_file import read_cohort
from dicom_node.cohort_values import FIELDS, read_facts, write_facts
from dicom_node.errors import ConfigError, NodeError
from dicom_node.ledger import cohort as ledger_cohort
from dicom_node.ledger import identity
from dicom_node.resources import selection_file
from dicom_node.timeline.selection import load_selection
from dicom_node.timeline.surgery_date import surgery_from_images
from dicom_node.work.known import read_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dicom_node.cohort_file import CohortRow
    from dicom_node.timeline.model import CohortFacts


@click.group()
def cohort() -> None:
    """Surgery dates, diagnoses and events: what the images do not say."""


@cohort.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
def import_(file: Path, config: Path) -> None:
    """Read a CSV file, whole or not at all; see the README for its columns.

    An empty field forgets what was recorded; a column that the file does not have leaves it.
    """
    settings = load_settings(config)
    try:
        rows = read_cohort(
            file,
            default_issuer=settings.receive.default_issuer,
            today=now().date(),
            issuer_aliases=settings.receive.issuer_aliases,
        )
    except ConfigError as error:
        fail(error)
    prepare(settings)
    with open_ledger(settings).write() as ledger:
        changed = sum(_import(ledger, row) for row in rows)
    click.echo(f"{len(rows)} patients read, {changed} changed")


@cohort.command("list")
@config_option
@json_option
def list_(config: Path, *, as_json: bool) -> None:
    """Show everybody in the cohort."""
    with open_ledger(load_settings(config)).read() as ledger:
        found = [(key, ledger_cohort.read(ledger, *key)) for key in ledger_cohort.patients(ledger)]
    if as_json:
        print_json(
            [
                {"issuer": issuer, "patient_id": patient_id} | dataclasses.asdict(facts)
                for (issuer, patient_id), facts in found
            ]
        )
        return
    for key, facts in found:
        click.echo(f"{ledger_cohort.subject(*key)}: {_in_words(facts)}")


@cohort.command("set")
@click.argument("patient_id")
@config_option
@click.option("--issuer", help="Issuer of the PatientID; default: the first peer's default_issuer.")
@click.option("--diagnosis", help="In the words of the task's eligibility.")
@click.option("--birth-date", metavar="DATE")
@click.option("--surgery", "surgeries", metavar="DATE[Ttime]", multiple=True, help="Replaces the surgeries.")
@click.option("--radiotherapy", metavar="DATE", multiple=True, help="Replaces the days of radiotherapy.")
@click.option("--event", "events", metavar="DATE[:KIND]", multiple=True, help="Replaces the events.")
@click.option("--clear", type=click.Choice(FIELDS), multiple=True, help="Forget a field.")
def set_(patient_id: str, config: Path, issuer: str | None, clear: tuple[str, ...], **given: Any) -> None:
    """Set single facts of one patient, by ID or ID^^^ISSUER; what is not named stays.

    Dates are like 2025-03-14, the time of a surgery like 2025-03-14T13:40, an event like 2025-09-01:death (without a
    kind: recurrence). Give an option several times for several dates.
    """
    settings = load_settings(config)
    changes = {field: value if isinstance(value, str) else ";".join(value) for field, value in given.items() if value}
    both = sorted(set(changes) & set(clear))
    if both:
        fail(ConfigError(tuple(f"{field}: both set and cleared" for field in both)))
    patient_id, _, named = patient_id.partition("^^^")
    key = (settings.receive.issuer(issuer or named or settings.receive.default_issuer), patient_id.strip())
    prepare(settings)
    with open_ledger(settings).write() as ledger:
        text = write_facts(ledger_cohort.read(ledger, *key)) | changes | dict.fromkeys(clear, "")
        try:
            facts = read_facts(text, today=now().date())
        except ValueError as error:
            fail(ConfigError(error.args))
        click.echo(f"{int(_write(ledger, key, facts, action='cohort set'))} changed")


@cohort.command("confirm")
@click.argument("patient")
@config_option
def confirm(patient: str, config: Path) -> None:
    """Take over the surgery date that a rule found in the images of a patient, by ID or ID^^^ISSUER."""
    settings = load_settings(config)
    try:
        rules = load_selection(selection_file(settings.selection)).surgery_date
    except ConfigError as error:
        fail(error)
    with open_ledger(settings).write() as ledger:
        found = find_patient(ledger, patient)
        if identity.cohort_of(ledger, found.row_id).surgeries:
            fail(NodeError("the cohort holds a surgery date already; nothing is to be confirmed"))
        told = surgery_from_images(read_known(ledger, found).facts, rules)
        if told.contradiction is not None:
            fail(NodeError(f"{told.contradiction.text}; enter the right one by `cohort set`"))
        if told.surgery is None:
            fail(NodeError(f"no surgery date in the images ({len(rules)} rules of surgery_date in the selection file)"))
        key = (found.issuer, found.patient_id)
        facts = dataclasses.replace(ledger_cohort.read(ledger, *key), surgeries=(told.surgery,))
        _write(ledger, key, facts, action="cohort confirm", source=told.source)
    click.echo(f"surgery on {told.surgery.on.isoformat()}, from {told.source}: confirmed")


@cohort.command("history")
@click.argument("patient")
@config_option
@json_option
def history(patient: str, config: Path, *, as_json: bool) -> None:
    """Show who changed what in the cohort of a patient, by ID or ID^^^ISSUER, under every ID."""
    with open_ledger(load_settings(config)).read() as ledger:
        found = find_patient(ledger, patient)
        subjects = [ledger_cohort.subject(*key) for key in identity.ids_of(ledger, found.row_id)]
        changes = ledger_cohort.changes(ledger, subjects)
    if as_json:
        print_json([dataclasses.asdict(each) for each in changes])
        return
    for each in changes:
        when = each.at.astimezone().isoformat(sep=" ", timespec="minutes")
        click.echo(f"{when} {each.actor}, {each.action}, {each.subject}: {_difference(each.details)}")


def _import(ledger: Connection, row: CohortRow) -> bool:
    key = (row.issuer, row.patient_id)
    return _write(ledger, key, row.applied_to(ledger_cohort.read(ledger, *key)), action="cohort import")


def _write(ledger: Connection, key: tuple[str, str], facts: CohortFacts, *, action: str, source: str = "") -> bool:
    """Write the facts of one (issuer, PatientID), and what they were before into the audit; say whether they differ."""
    before = write_facts(ledger_cohort.read(ledger, *key))
    if not ledger_cohort.replace(ledger, *key, facts):
        return False
    ledger_cohort.write_audit(
        ledger,
        at=now(),
        actor=getpass.getuser(),
        action=action,
        subject=ledger_cohort.subject(*key),
        details={"before": before, "after": write_facts(facts)} | ({"source": source} if source else {}),
    )
    return True


def _in_words(facts: CohortFacts) -> str:
    said = [
        facts.diagnosis or "no diagnosis",
        f"born {facts.birth_date.isoformat()}" if facts.birth_date else "",
        _days("surgery", [f"{each.on} {each.at:%H:%M}" if each.at else str(each.on) for each in facts.surgeries])
        or "no surgery date",
        _days("radiotherapy", [str(day) for day in facts.radiotherapy]),
        ", ".join(f"{each.kind} {each.on}" for each in facts.events) or "no event",
    ]
    return "; ".join(each for each in said if each)


def _days(what: str, days: Sequence[str]) -> str:
    return f"{what} {', '.join(days)}" if days else ""


def _difference(details: Mapping[str, Any]) -> str:
    """Say which fields changed, from what to what."""
    before, after = details.get("before", {}), details.get("after", {})
    changed = [
        f"{field} {before.get(field) or 'nothing'} -> {after.get(field) or 'nothing'}"
        for field in FIELDS
        if before.get(field) != after.get(field)
    ]
    source = [f"found in {details['source']}"] if "source" in details else []
    return "; ".join([*changed, *source]) or "see --json"
