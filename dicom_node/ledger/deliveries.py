"""Deliveries: one row per report and destination, each on its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from dicom_node.ledger.tables import DeliveryState, delivery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

OPEN_STATES = (DeliveryState.PENDING, DeliveryState.RETRYING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where a report stands with one destination."""

    run_key: str
    destination: str
    state: DeliveryState
    attempts: int
    first_attempt_at: datetime | None
    next_attempt_at: datetime
    sent_at: datetime | None
    error: str | None


def create(connection: Connection, run_key: str, destinations: Sequence[str], now: datetime) -> None:
    """Open a delivery to each destination that has none yet."""
    known = {each.destination for each in of_run(connection, run_key)}
    for destination in destinations:
        if destination not in known:
            connection.execute(
                insert(delivery).values(
                    run_key=run_key,
                    destination=destination,
                    state=DeliveryState.PENDING,
                    attempts=0,
                    next_attempt_at=now,
                )
            )


def of_run(connection: Connection, run_key: str) -> list[Delivery]:
    """Return the deliveries of a run in order of destination."""
    query = select(delivery).where(delivery.c.run_key == run_key).order_by(delivery.c.destination)
    return [_delivery(row) for row in connection.execute(query)]


def due(connection: Connection, now: datetime) -> list[Delivery]:
    """Return open deliveries whose next attempt may be made."""
    query = (
        select(delivery)
        .where(delivery.c.state.in_(OPEN_STATES), delivery.c.next_attempt_at <= now)
        .order_by(delivery.c.next_attempt_at, delivery.c.run_key)
    )
    return [_delivery(row) for row in connection.execute(query)]


def get(connection: Connection, run_key: str, destination: str) -> Delivery | None:
    """Return one delivery."""
    return next((each for each in of_run(connection, run_key) if each.destination == destination), None)


def sent(connection: Connection, found: Delivery, now: datetime) -> None:
    """Note that the destination holds every object."""
    _change(connection, found, state=DeliveryState.SENT, attempts=found.attempts + 1, sent_at=now, error=None)


def retry(connection: Connection, found: Delivery, *, error: str, now: datetime, next_attempt_at: datetime) -> None:
    """Note a failed attempt and when to try again."""
    _change(
        connection,
        found,
        state=DeliveryState.RETRYING,
        attempts=found.attempts + 1,
        first_attempt_at=found.first_attempt_at or now,
        next_attempt_at=next_attempt_at,
        error=error,
    )


def dead(connection: Connection, found: Delivery, *, error: str) -> None:
    """Note that nobody will try again until told to."""
    _change(connection, found, state=DeliveryState.DEAD, attempts=found.attempts + 1, error=error)


def revive(connection: Connection, found: Delivery, now: datetime) -> None:
    """Try again at once, with a fresh end, as an admin asked."""
    _change(connection, found, state=DeliveryState.PENDING, first_attempt_at=None, next_attempt_at=now)


def counts_by_state(connection: Connection) -> dict[str, int]:
    """Count deliveries by state."""
    query = select(delivery.c.state, func.count()).group_by(delivery.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        run_key=row.run_key,
        destination=row.destination,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        first_attempt_at=row.first_attempt_at,
        next_attempt_at=row.next_attempt_at,
        sent_at=row.sent_at,
        error=row.error,
    )


def _change(connection: Connection, found: Delivery, **values: object) -> None:
    connection.execute(
        update(delivery)
        .where(delivery.c.run_key == found.run_key, delivery.c.destination == found.destination)
        .values(**values)
    )
