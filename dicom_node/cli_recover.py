"""`recover`: have archives asked for the reports of ours that a lost ledger knew of."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.app import now
from dicom_node.cli_options import config_option, fail, load_settings, open_ledger
from dicom_node.errors import NodeError
from dicom_node.ledger import cohort, patients, priors
from dicom_node.ledger.tables import LookupState
from dicom_node.priors import search

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.settings import Settings


@click.command()
@click.argument("patient", required=False)
@config_option
def recover(patient: str | None, config: Path) -> None:
    """Ask the archives for our own reports of PATIENT (ID or ID^^^ISSUER), or of everybody in the cohort and ledger.

    For the time after a ledger was lost; the running node asks and fetches, within the limits of its configuration, and
    looks for older studies on the way. It asks by itself for a patient whose first study arrives.
    """
    settings = load_settings(config)
    if not any(pacs.priors.methods for pacs in settings.pacs):
        fail(NodeError("no archive may be asked: none has priors.methods"))
    with open_ledger(settings).write() as ledger:
        wanted = _everybody(ledger) if patient is None else _named(patient, settings)
        opened = sum(_ask(ledger, key, settings) for key in wanted)
        subject = patient or "everybody"
        details: dict[str, object] = {"patients": len(wanted), "questions": opened}
        cohort.write_audit(
            ledger, at=now(), actor=getpass.getuser(), action="recover", subject=subject, details=details
        )
    click.echo(f"{opened} questions opened about {len(wanted)} patients; `status` and `timeline` show what comes")


def _named(patient: str, settings: Settings) -> list[tuple[str, str]]:
    """Return (issuer, PatientID), of every archive's issuer where none is given; the ledger need not know them."""
    patient_id, _, issuer = patient.partition("^^^")
    if issuer:
        return [(settings.receive.issuer(issuer), patient_id)]
    issuers = {pacs.default_issuer or "" for pacs in settings.pacs if pacs.priors.methods}
    return [(each, patient_id) for each in sorted(issuers)]


def _everybody(ledger: Connection) -> list[tuple[str, str]]:
    known = {(each.issuer, each.patient_id) for each in patients.all_patients(ledger)}
    return sorted({*cohort.patients(ledger), *known})


def _ask(ledger: Connection, key: tuple[str, str], settings: Settings) -> int:
    """Open a question to every archive that may know a patient and is not being asked; return how many."""
    row = patients.survivor(ledger, patients.patient_row(ledger, *key))
    held = set(patients.receptions(ledger, row))
    opened = 0
    for pacs in settings.pacs:
        latest = priors.latest_lookup(ledger, row, pacs.name)
        being_asked = latest is not None and latest.state is LookupState.OPEN
        if pacs.priors.methods and search.ids_to_ask(ledger, row, pacs) and not being_asked:
            priors.open_lookup(ledger, patient_row=row, pacs=pacs.name, held=held, now=now())
            opened += 1
    return opened
