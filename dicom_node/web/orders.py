"""What a visitor may order: retry, hold, release; asked for again where it stops something, and audited by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from werkzeug.exceptions import BadRequest, Conflict, NotFound
from werkzeug.utils import redirect

from dicom_node import by_hand
from dicom_node.errors import NodeError
from dicom_node.ledger import cases, deliveries, orders
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.orders import Order, OrderKind
from dicom_node.ledger.tables import DeliveryState

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from werkzeug import Response

    from dicom_node.ledger.patients import Patient
    from dicom_node.web.visit import Visit

LONGEST_REASON: Final = 500
MAY_RETRY: Final = (DeliveryState.DEAD, DeliveryState.RETRYING)


def confirm(visit: Visit, pseudonym: str, order: str) -> Response:
    """Ask whether a case shall be held or released."""
    with visit.parts.database.read() as ledger:
        patient, task = _meant(visit, ledger, pseudonym, visit.argument("task"))
        case = cases.get(ledger, patient.row_id, task)
        standing = orders.of_case(ledger, patient.row_id, task)
    if order == "release" and not standing:
        raise Conflict(description="This case is neither held nor forced by hand.")
    return visit.page(
        "order.html", order=order, patient=patient, task=task, case=case, standing=standing, pseudonym=pseudonym
    )


def carry_out(visit: Visit, pseudonym: str, order: str) -> Response:
    """Hold or release a case."""
    parts = visit.parts
    with parts.database.write() as ledger:
        patient, task = _meant(visit, ledger, pseudonym, visit.field("task"))
        try:
            if order == "hold":
                given = Order(
                    kind=OrderKind.HOLD,
                    given_at=parts.clock(),
                    actor=visit.who.name,
                    reason=visit.field("reason", LONGEST_REASON),
                )
                by_hand.give(ledger, patient, task, given)
            else:
                by_hand.release(ledger, patient, task, _by(visit))
        except NodeError as error:
            raise Conflict(description=str(error)) from error
    return _back(f"/patient/{pseudonym}", order)


def retry(visit: Visit) -> Response:
    """Try a failed run or a dead delivery again."""
    what, pseudonym = visit.field("what"), visit.field("patient")
    key, _, destination = what.partition("/")
    if len(key) != 64:  # the whole key: a button means one run, not what begins alike
        raise BadRequest
    with visit.parts.database.write() as ledger:
        if destination:
            found = deliveries.get(ledger, key, destination)
            if found is None or found.state not in MAY_RETRY:
                raise Conflict(description="This delivery is neither given up nor waiting for another try any more.")
        try:
            by_hand.retry(ledger, what, _by(visit))
        except NodeError as error:
            raise Conflict(description=str(error)) from error
    on_patient = visit.field("back") == "patient" and pseudonym.isalnum()
    return _back(f"/patient/{pseudonym}" if on_patient else "/deliveries", "retry")


def _meant(visit: Visit, ledger: Connection, pseudonym: str, task: str | None) -> tuple[Patient, str]:
    patient = visit.parts.names.find(ledger, pseudonym)
    if patient is None or not task or cases.get(ledger, patient.row_id, task) is None:
        raise NotFound
    return patient, task


def _by(visit: Visit) -> By:
    return By(actor=visit.who.name, at=visit.parts.clock())


def _back(path: str, done: str) -> Response:
    return redirect(f"{path}?{urlencode({'done': done})}", 303)
