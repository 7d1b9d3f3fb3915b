"""What a person orders: try again, hold, release; the same from the command line and the status page, and audited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.errors import NodeError
from dicom_node.ledger import cases, cohort, deliveries, orders, patients, runs
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.orders import Order, OrderKind
from dicom_node.ledger.tables import DeliveryState
from dicom_node.timeline.model import RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient


def retry(ledger: Connection, run_or_delivery: str, by: By) -> None:
    """Try again: a failed run by its key (or its first digits), or a dead delivery as RUN/DESTINATION.

    Raises:
        NodeError: if there is no such thing, or nothing to try again.
    """
    key, _, destination = run_or_delivery.partition("/")
    run = find_run(ledger, key)
    if destination:
        found = deliveries.get(ledger, run.run_key, destination)
        if found is None:
            msg = f"run {run.run_key[:12]} has no delivery to {destination!r}"
            raise NodeError(msg)
        if found.state is DeliveryState.VOID:
            msg = f"run {run.run_key[:12]} was withdrawn before anything was sent to {destination!r}"
            raise NodeError(msg)
        deliveries.revive(ledger, found, by.at)
    elif run.state is RunState.FAILED:
        runs.set_state(ledger, run.run_key, RunState.QUEUED)
    else:
        msg = f"run {run.run_key[:12]}: expected a failed run, found it {run.state}"
        raise NodeError(msg)
    patients.touch(ledger, run.patient_row)
    cohort.write_audit(ledger, at=by.at, actor=by.actor, action="retry", subject=run_or_delivery, details={})


def give(ledger: Connection, patient: Patient, task: str | None, order: Order) -> None:
    """Hold a case, or force its run.

    Raises:
        NodeError: if no or several tasks may be meant.
    """
    name = find_task(ledger, patient, task)
    orders.give(ledger, patient.row_id, name, order)
    by = By(actor=order.actor, at=order.given_at)
    _audit(ledger, patient, str(order.kind), by, {"task": name, "reason": order.reason})


def release(ledger: Connection, patient: Patient, task: str | None, by: By) -> None:
    """Take back a hold, and a forced run that was not made yet.

    Raises:
        NodeError: if there is neither, or no or several tasks may be meant.
    """
    name = find_task(ledger, patient, task)
    taken_back = [kind for kind in OrderKind if orders.withdraw(ledger, patient.row_id, name, kind)]
    if not taken_back:
        msg = f"the case of task {name} is neither held nor forced by hand"
        raise NodeError(msg)
    _audit(ledger, patient, "release", by, {"task": name, "orders": [str(kind) for kind in taken_back]})


def find_run(ledger: Connection, key: str) -> runs.Run:
    """Return the one run whose key starts with these digits.

    Raises:
        NodeError: if there is none, or several.
    """
    found = runs.starting_with(ledger, key)
    if len(found) != 1:
        msg = f"expected one run whose key starts with {key!r}, found {len(found)}"
        raise NodeError(msg)
    return found[0]


def find_task(ledger: Connection, patient: Patient, task: str | None) -> str:
    """Return the task that is meant.

    Raises:
        NodeError: if that is none or several.
    """
    names = [case.task for case in cases.of_patient(ledger, patient.row_id)]
    meant = [name for name in names if task in {None, name}]
    if len(meant) != 1:
        msg = f"this patient has cases of: {', '.join(names) or 'no task'}; name one with --task"
        raise NodeError(msg)
    return meant[0]


def _audit(ledger: Connection, patient: Patient, action: str, by: By, details: dict[str, object]) -> None:
    subject = cohort.subject(patient.issuer, patient.patient_id)
    cohort.write_audit(ledger, at=by.at, actor=by.actor, action=action, subject=subject, details=details)
