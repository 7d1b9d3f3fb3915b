"""What a jump of the clock does to the times that something is waited from, or until.

Only what is still open is moved: when things happened stays as it was told. Put forward, what was waited from moves
along, so that no wait ends early. Put back, nothing may lie in the future: waits begin anew, and what waits for its
next attempt is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from dicom_node.ledger.deliveries import OPEN_STATES
from dicom_node.ledger.tables import (
    ArrivalState,
    LookupState,
    PriorState,
    arrival,
    delivery,
    executor,
    patient,
    prior_lookup,
    prior_series,
    study,
)

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Connection, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """A clock that was put forward: by how much, and which times were noted before it was, up to `until`."""

    before: datetime  # the last time that it told before
    by: timedelta
    until: datetime


def put_forward(connection: Connection, jump: Jump, waits: timedelta) -> None:
    """Move what is waited from along with the clock; `waits` is the longest time that a study is waited for."""
    recent = jump.before - waits
    for table, columns, chosen in (
        (study, [study.c.last_received_at, study.c.burst_started_at], study.c.last_received_at > recent),
        (arrival, [arrival.c.received_at], arrival.c.state == ArrivalState.RECEIVED),
        (delivery, [delivery.c.first_attempt_at], delivery.c.state.in_(OPEN_STATES)),
        (prior_lookup, [prior_lookup.c.opened_at, prior_lookup.c.finished_at], prior_lookup.c.opened_at > recent),
        (prior_series, [prior_series.c.first_attempt_at], prior_series.c.state == PriorState.WANTED),
    ):
        _move(connection, table, columns, chosen, jump)
    _move(connection, executor, [executor.c.last_seen], executor.c.last_seen <= jump.before, jump)


def put_back(connection: Connection, now: datetime) -> None:
    """Let nothing that is waited from lie in the future, and have looked at now what waits for a time to come."""
    for table, column in (
        (study, study.c.last_received_at),
        (study, study.c.burst_started_at),
        (executor, executor.c.last_seen),
        (delivery, delivery.c.first_attempt_at),
        (prior_lookup, prior_lookup.c.opened_at),
        (prior_lookup, prior_lookup.c.finished_at),
        (prior_series, prior_series.c.first_attempt_at),
        (patient, patient.c.next_check_at),
    ):
        connection.execute(update(table).where(column > now).values({column: now}))
    for table, column, is_open in (
        (arrival, arrival.c.received_at, arrival.c.state == ArrivalState.RECEIVED),
        (delivery, delivery.c.next_attempt_at, delivery.c.state.in_(OPEN_STATES)),
        (prior_lookup, prior_lookup.c.next_attempt_at, prior_lookup.c.state == LookupState.OPEN),
        (prior_series, prior_series.c.next_attempt_at, prior_series.c.state == PriorState.WANTED),
    ):
        connection.execute(update(table).where(column > now, is_open).values({column: now}))


def _move(
    connection: Connection, table: Table, columns: list[Column[datetime]], chosen: ColumnElement[bool], jump: Jump
) -> None:
    """Add to times that were noted before the jump; in Python, for databases count time differently."""
    keys = list(table.primary_key.columns)
    for row in connection.execute(select(*keys, *columns).where(chosen)).all():
        old = {column: row._mapping[column] for column in columns}  # noqa: SLF001 - public row mapping
        moved = {column: at + jump.by for column, at in old.items() if at is not None and at <= jump.until}
        if moved:
            same = [key == row._mapping[key] for key in keys]  # noqa: SLF001 - public row mapping
            connection.execute(update(table).where(*same).values(moved))
