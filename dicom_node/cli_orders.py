"""`force-run`, `hold` and `release`: a person decides for one case, audited."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from dicom_node import by_hand
from dicom_node.app import now
from dicom_node.cli_options import config_option, fail, find_patient, load_settings, open_ledger
from dicom_node.errors import NodeError
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.orders import Order, OrderKind

task_option = click.option("--task", help="Which task; needed where the patient has cases of several.")
reason_option = click.option("--reason", default="", help="Why; kept in the audit and shown with the case.")


@click.command("force-run")
@click.argument("patient")
@config_option
@task_option
@reason_option
def force_run(patient: str, config: Path, task: str | None, reason: str) -> None:
    """Run a case now with the time points there are, waiting for nothing.

    It sets aside the number of time points, open searches for priors, incomplete studies and an unusable newest exam;
    the report says so. It never sets aside eligibility, identity, recorded events, slice gaps or a hold.
    """
    _give(patient, config, task, OrderKind.FORCE, reason)
    click.echo("will be run at the next tick, if there is a usable time point")


@click.command()
@click.argument("patient")
@config_option
@task_option
@reason_option
def hold(patient: str, config: Path, task: str | None, reason: str) -> None:
    """Keep a case from running until it is released."""
    _give(patient, config, task, OrderKind.HOLD, reason)
    click.echo("held")


@click.command()
@click.argument("patient")
@config_option
@task_option
def release(patient: str, config: Path, task: str | None) -> None:
    """Take back a hold, and a forced run that was not made yet."""
    by = By(actor=getpass.getuser(), at=now())
    with open_ledger(load_settings(config)).write() as ledger:
        try:
            by_hand.release(ledger, find_patient(ledger, patient), task, by)
        except NodeError as error:
            fail(error)
    click.echo("released")


def _give(patient: str, config: Path, task: str | None, kind: OrderKind, reason: str) -> None:
    order = Order(kind=kind, given_at=now(), actor=getpass.getuser(), reason=reason)
    with open_ledger(load_settings(config)).write() as ledger:
        try:
            by_hand.give(ledger, find_patient(ledger, patient), task, order)
        except NodeError as error:
            fail(error)
