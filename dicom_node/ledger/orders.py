"""What a person ordered for a case: hold it until released, or run it now with what there is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from dicom_node.ledger.patients import touch
from dicom_node.ledger.tables import case_order

if TYPE_CHECKING:
    from sqlalchemy import Connection


class OrderKind(StrEnum):
    """What is ordered."""

    HOLD = "hold"  # until released
    FORCE = "force"  # until a run is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who ordered what, when and why."""

    kind: OrderKind
    given_at: datetime
    actor: str
    reason: str


def give(connection: Connection, patient_row: int, task: str, order: Order) -> None:
    """Enter an order; one of the same kind takes the place of the older."""
    withdraw(connection, patient_row, task, order.kind)
    connection.execute(
        insert(case_order).values(
            patient=patient_row,
            task=task,
            kind=order.kind,
            given_at=order.given_at,
            actor=order.actor,
            reason=order.reason,
        )
    )
    touch(connection, patient_row)


def withdraw(connection: Connection, patient_row: int, task: str, kind: OrderKind) -> bool:
    """Take an order back; say whether there was one."""
    gone = connection.execute(
        delete(case_order).where(
            case_order.c.patient == patient_row, case_order.c.task == task, case_order.c.kind == kind
        )
    )
    if gone.rowcount:
        touch(connection, patient_row)
    return bool(gone.rowcount)


def of_case(connection: Connection, patient_row: int, task: str) -> dict[OrderKind, Order]:
    """Return the orders that stand for a case."""
    query = select(case_order).where(case_order.c.patient == patient_row, case_order.c.task == task)
    return {
        OrderKind(row.kind): Order(kind=OrderKind(row.kind), given_at=row.given_at, actor=row.actor, reason=row.reason)
        for row in connection.execute(query)
    }
