"""Deliveries: one row per report and destination, each on its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, insert, or_, select, update

from dicom_node.ledger.tables import DeliveryState, delivery, outbox_object

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
    encoding: int  # the one to send, or that was sent


def create(
    connection: Connection, run_key: str, destinations: Sequence[str], now: datetime, *, encoding: int = 1
) -> None:
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
                    encoding=encoding,
                )
            )


def of_run(connection: Connection, run_key: str) -> list[Delivery]:
    """Return the deliveries of a run in order of destination."""
    query = select(delivery).where(delivery.c.run_key == run_key).order_by(delivery.c.destination)
    return [_delivery(row) for row in connection.execute(query)]


def due(connection: Connection, now: datetime) -> list[Delivery]:
    """Return open deliveries whose next attempt may be made; an encoding after the first may still be in the making."""
    made = exists().where(
        outbox_object.c.run_key == delivery.c.run_key, outbox_object.c.encoding == delivery.c.encoding
    )
    query = (
        select(delivery)
        .where(delivery.c.state.in_(OPEN_STATES), delivery.c.next_attempt_at <= now)
        .where(or_(delivery.c.encoding == 1, made))
        .order_by(delivery.c.next_attempt_at, delivery.c.run_key)
    )
    return [_delivery(row) for row in connection.execute(query)]


def get(connection: Connection, run_key: str, destination: str) -> Delivery | None:
    """Return one delivery."""
    return next((each for each in of_run(connection, run_key) if each.destination == destination), None)


def sent(connection: Connection, found: Delivery, now: datetime) -> None:
    """Note that the destination holds every object, of the encoding that was sent."""
    _change(
        connection,
        found,
        state=DeliveryState.SENT,
        attempts=found.attempts + 1,
        sent_at=now,
        error=None,
        encoding=found.encoding,
    )


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


def void(connection: Connection, found: Delivery, *, error: str, now: datetime) -> None:
    """Note an attempt that ended before anything was sent, for another encoding has to be sent."""
    _change(
        connection,
        found,
        state=DeliveryState.PENDING,
        attempts=found.attempts + 1,
        first_attempt_at=found.first_attempt_at or now,
        next_attempt_at=now,
        error=error,
    )


def stop_all(connection: Connection, run_key: str, *, error: str) -> None:
    """Note that what was not sent of a report is sent to nobody until a person says so."""
    connection.execute(
        update(delivery)
        .where(delivery.c.run_key == run_key, delivery.c.state.in_(OPEN_STATES))
        .values(state=DeliveryState.DEAD, error=error)
    )


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
        encoding=row.encoding,
    )


def _change(connection: Connection, found: Delivery, **values: object) -> None:
    connection.execute(
        update(delivery)
        .where(delivery.c.run_key == found.run_key, delivery.c.destination == found.destination)
        .values(**values)
    )
