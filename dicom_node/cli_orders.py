"""`force-run`, `hold` and `release`: a person decides for one case, audited."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.app import now
from dicom_node.cli_options import config_option, fail, find_patient, load_settings, open_ledger
from dicom_node.errors import NodeError
from dicom_node.ledger import cases, cohort, orders
from dicom_node.ledger.orders import Order, OrderKind

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient

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
    with open_ledger(load_settings(config)).write() as ledger:
        found = find_patient(ledger, patient)
        name = _task(ledger, found, task)
        taken_back = [kind for kind in OrderKind if orders.withdraw(ledger, found.row_id, name, kind)]
        if not taken_back:
            fail(NodeError(f"the case of task {name} is neither held nor forced by hand"))
        _audit(ledger, found, "release", {"task": name, "orders": [str(kind) for kind in taken_back]})
    click.echo("released")


def _give(patient: str, config: Path, task: str | None, kind: OrderKind, reason: str) -> None:
    with open_ledger(load_settings(config)).write() as ledger:
        found = find_patient(ledger, patient)
        name = _task(ledger, found, task)
        order = Order(kind=kind, given_at=now(), actor=getpass.getuser(), reason=reason)
        orders.give(ledger, found.row_id, name, order)
        _audit(ledger, found, str(kind), {"task": name, "reason": reason})


def _task(ledger: Connection, patient: Patient, task: str | None) -> str:
    """Return the task that is meant, or end with exit code 1."""
    names = [case.task for case in cases.of_patient(ledger, patient.row_id)]
    meant = [name for name in names if task in {None, name}]
    if len(meant) != 1:
        fail(NodeError(f"this patient has cases of: {', '.join(names) or 'no task'}; name one with --task"))
    return meant[0]


def _audit(ledger: Connection, patient: Patient, action: str, details: dict[str, object]) -> None:
    subject = f"{patient.patient_id}^^^{patient.issuer}"
    cohort.write_audit(ledger, at=now(), actor=getpass.getuser(), action=action, subject=subject, details=details)
