"""Storage commitment: which archive was asked when to commit itself to what, and what came of it.

A transaction UID is entered before the request is sent, so that an answer never meets a node that does not know what
it is about. An answer counts for a delivery as long as that still holds what the request named: what comes late counts,
what comes twice changes nothing, what was withdrawn meanwhile stays withdrawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from dicom_node.ledger import deliveries
from dicom_node.ledger.tables import DeliveryState, commitment

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from dicom_node.ledger.deliveries import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """One request for commitment."""

    transaction_uid: str
    run_key: str
    destination: str
    instances: frozenset[str]  # SOP Instance UIDs
    answered_at: datetime | None


def enter(
    connection: Connection, transaction_uid: str, found: Delivery, instances: Collection[str], now: datetime
) -> None:
    """Note a request that is about to be sent."""
    connection.execute(
        insert(commitment).values(
            transaction_uid=transaction_uid,
            run_key=found.run_key,
            destination=found.destination,
            instances=json.dumps(sorted(instances)),
            requested_at=now,
        )
    )


def get(connection: Connection, transaction_uid: str) -> Commitment | None:
    """Return the request of a transaction UID."""
    row = connection.execute(select(commitment).where(commitment.c.transaction_uid == transaction_uid)).one_or_none()
    if row is None:
        return None
    return Commitment(
        transaction_uid=row.transaction_uid,
        run_key=row.run_key,
        destination=row.destination,
        instances=frozenset(json.loads(row.instances)),
        answered_at=row.answered_at,
    )


def answered(connection: Connection, asked: Commitment, now: datetime) -> Delivery | None:
    """Note that an answer came; return the delivery that it counts for, None if it counts for none any more."""
    connection.execute(
        update(commitment).where(commitment.c.transaction_uid == asked.transaction_uid).values(answered_at=now)
    )
    found = deliveries.get(connection, asked.run_key, asked.destination)
    if asked.answered_at is not None or found is None or found.state is not DeliveryState.SENT:
        return None
    held = {each.sop_instance_uid for each in deliveries.awaited(connection, found)}
    return found if held == asked.instances else None
