"""Deliveries: one row per report and destination, each on its own.

What a destination took is noted object by object, so that a withdrawal can name it. The objects of an attempt are
entered before it begins and settled when it ends: one that is killed in between leaves them as what may be there.
Of a withdrawn report the same row carries the rejection note.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, exists, func, insert, or_, select, update

from dicom_node.ledger import runs
from dicom_node.ledger.tables import DeliveryState, delivery, handed_over, outbox_object, run

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, Row, Select

OPEN_STATES = (DeliveryState.PENDING, DeliveryState.RETRYING)
DONE_STATES = (DeliveryState.SENT, DeliveryState.COMMITTED)
REPORT = "report"  # how the kinds of the report begin, the same one in several SOP classes
_TO_COMMIT = and_(delivery.c.state == DeliveryState.SENT, delivery.c.to_commit)


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
    report_class: str | None = None  # of the SOP classes offered, the one that this destination takes
    note: str | None = None  # SOP Instance UID of the rejection note that takes the report's place
    to_commit: bool = False  # storage commitment is asked for, again if need be
    commit_requests: int = 0
    committed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A delivery whose next attempt may be made, and what decides how urgent it is."""

    delivery: Delivery
    stat: bool
    task: str


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


def is_unsent(connection: Connection, run_key: str) -> bool:
    """Say whether no archive got anything of a report, nor may have; no attempt begins before this transaction ends."""
    connection.execute(_locking(run_key))
    begun = select(handed_over.c.sop_instance_uid).where(handed_over.c.run_key == run_key).limit(1)
    done = any(each.state in DONE_STATES for each in of_run(connection, run_key))
    return not done and connection.scalar(begun) is None


def due(connection: Connection, now: datetime) -> list[Due]:
    """Return open deliveries whose next attempt may be made, and sent ones whose commitment has to be asked for.

    Those that have been due for longest come first.

    An encoding after the first may still be in the making.
    """
    made = exists().where(
        outbox_object.c.run_key == delivery.c.run_key, outbox_object.c.encoding == delivery.c.encoding
    )
    query = (
        select(delivery, run.c.stat, run.c.task)
        .join(run, run.c.run_key == delivery.c.run_key)
        .where(or_(delivery.c.state.in_(OPEN_STATES), _TO_COMMIT), delivery.c.next_attempt_at <= now)
        .where(or_(delivery.c.encoding == 1, delivery.c.note.is_not(None), made))
        .order_by(delivery.c.next_attempt_at, delivery.c.run_key)
    )
    return [Due(delivery=_delivery(row), stat=row.stat, task=row.task) for row in connection.execute(query)]


def failing(connection: Connection, now: datetime) -> set[str]:
    """Return the destinations at which something failed that still waits for its next try."""
    query = select(delivery.c.destination).where(
        delivery.c.state == DeliveryState.RETRYING, delivery.c.next_attempt_at > now
    )
    return set(connection.scalars(query))


def is_open(found: Delivery) -> bool:
    """Say whether there is something to do: to send, or to have what was sent committed."""
    return found.state in OPEN_STATES or (found.state is DeliveryState.SENT and found.to_commit)


def get(connection: Connection, run_key: str, destination: str) -> Delivery | None:
    """Return one delivery."""
    return next((each for each in of_run(connection, run_key) if each.destination == destination), None)


def locked(connection: Connection, run_key: str, destination: str) -> Delivery | None:
    """Return one delivery, which nobody else changes before this transaction ends."""
    connection.execute(_locking(run_key))
    return get(connection, run_key, destination)


def contents(connection: Connection, found: Delivery) -> list[runs.OutboxObject]:
    """Return what a delivery sends, in order: the note, or the images and the report in each SOP class that is offered.

    The class that the destination takes stands first, if it is known: else that of the report before this one.
    """
    if found.note is not None:
        notes = runs.objects_of(connection, found.run_key, 0)
        return [each for each in notes if each.sop_instance_uid == found.note]
    objects = runs.objects_of(connection, found.run_key, found.encoding)
    preferred = found.report_class or _class_before(connection, found)
    reports = [each for each in objects if each.kind.startswith(REPORT)]
    images = [each for each in objects if each not in reports]
    return [*images, *sorted(reports, key=lambda each: each.sop_class_uid != preferred)]


def awaited(connection: Connection, found: Delivery) -> list[runs.OutboxObject]:
    """Return what the destination holds of a delivery that was sent: the report in one class only."""
    objects = contents(connection, found)
    first = next((each for each in objects if each.kind.startswith(REPORT)), None)
    return [each for each in objects if each is first or not each.kind.startswith(REPORT)]


def begin(connection: Connection, found: Delivery, sop_instance_uids: Collection[str]) -> None:
    """Note what an attempt is about to send: from now on it may be there."""
    known = set(_handed_over(connection, found))
    for uid in sop_instance_uids:
        if uid not in known:
            connection.execute(
                insert(handed_over).values(
                    run_key=found.run_key,
                    destination=found.destination,
                    sop_instance_uid=uid,
                    attempt=found.attempts + 1,
                )
            )


def settle(connection: Connection, found: Delivery, taken: Collection[str]) -> None:
    """Note which of these objects are there or may be; what else the attempt was about is not."""
    mine = and_(handed_over.c.run_key == found.run_key, handed_over.c.destination == found.destination)
    there = update(handed_over).where(mine, handed_over.c.sop_instance_uid.in_(taken))
    connection.execute(there.values(attempt=None))
    connection.execute(delete(handed_over).where(mine, handed_over.c.attempt == found.attempts + 1))


def held_by(connection: Connection, found: Delivery) -> list[runs.OutboxObject]:
    """Return every object of a run that is at a destination or may be, of whatever encoding; the note is none."""
    uids = set(_handed_over(connection, found))
    newest = connection.scalar(select(func.max(outbox_object.c.encoding)).where(_of(found.run_key))) or 0
    objects = [each for number in range(1, newest + 1) for each in runs.objects_of(connection, found.run_key, number)]
    return [each for each in objects if each.sop_instance_uid in uids]


def encoding_held(connection: Connection, run_key: str) -> int | None:
    """Return the encoding that most destinations of a report hold, the newer of two; None if none holds anything."""
    held = Counter(each.encoding for each in of_run(connection, run_key) if held_by(connection, each))
    return max(held, key=lambda number: (held[number], number), default=None)


def at_work(connection: Connection, found: Delivery) -> bool:
    """Say whether an attempt has begun whose end is not known."""
    return any(attempt is not None for attempt in _handed_over(connection, found).values())


def remember_class(connection: Connection, found: Delivery, report_class: str | None) -> None:
    """Note the SOP class in which a destination takes the report."""
    if report_class is not None:
        _change(connection, found, report_class=report_class)


def sent(connection: Connection, found: Delivery, now: datetime, *, to_commit: bool = False) -> None:
    """Note that the destination holds every object, of the encoding that was sent; ask for its commitment next.

    It is there again: whatever waits for its next try there is due now.
    """
    waits = and_(delivery.c.destination == found.destination, delivery.c.state == DeliveryState.RETRYING)
    hasten = update(delivery).where(waits, delivery.c.run_key != found.run_key, delivery.c.next_attempt_at > now)
    connection.execute(hasten.values(next_attempt_at=now))
    _change(
        connection,
        found,
        state=DeliveryState.SENT,
        attempts=found.attempts + 1,
        sent_at=now,
        error=None,
        encoding=found.encoding,
        to_commit=to_commit,
        next_attempt_at=now,
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


def ask_commitment(connection: Connection, found: Delivery, *, next_attempt_at: datetime) -> None:
    """Note a request for commitment that is about to be made, and when to make it again if nothing is heard of it."""
    _change(
        connection,
        found,
        attempts=found.attempts + 1,
        commit_requests=found.commit_requests + 1,
        next_attempt_at=next_attempt_at,
    )


def asked_commitment(connection: Connection, found: Delivery, *, error: str | None, next_attempt_at: datetime) -> None:
    """Note how a request was taken, and when to ask again; an answer that came meanwhile stands."""
    connection.execute(
        update(delivery)
        .where(delivery.c.run_key == found.run_key, delivery.c.destination == found.destination)
        .where(delivery.c.state == DeliveryState.SENT, delivery.c.attempts == found.attempts + 1)
        .values(error=error, next_attempt_at=next_attempt_at)
    )


def give_up_commitment(connection: Connection, found: Delivery, *, error: str | None) -> None:
    """Note that the report stays sent without the archive's commitment, until a person asks again."""
    _change(connection, found, attempts=found.attempts + 1, to_commit=False, error=error)


def committed(connection: Connection, found: Delivery, now: datetime) -> None:
    """Note that the destination took responsibility for every object."""
    _change(connection, found, state=DeliveryState.COMMITTED, committed_at=now, to_commit=False, error=None)


def send_again(connection: Connection, found: Delivery, *, error: str, next_attempt_at: datetime | None) -> None:
    """Note that the destination does not hold what it took: send it again, or end it where no time is given."""
    _change(
        connection,
        found,
        state=DeliveryState.DEAD if next_attempt_at is None else DeliveryState.RETRYING,
        next_attempt_at=next_attempt_at or found.next_attempt_at,
        to_commit=False,
        error=error,
    )


def carry_note(connection: Connection, found: Delivery, note: str, next_attempt_at: datetime) -> None:
    """Let a delivery send a rejection note from now on; an attempt at work belongs to what was before."""
    _change(
        connection,
        found,
        state=DeliveryState.PENDING,
        note=note,
        attempts=found.attempts + 1,
        first_attempt_at=None,
        next_attempt_at=next_attempt_at,
        to_commit=False,
        commit_requests=0,
        error=None,
    )


def end_unsent(connection: Connection, found: Delivery) -> None:
    """Note that nothing of a withdrawn report will be sent."""
    _change(connection, found, state=DeliveryState.VOID, attempts=found.attempts + 1, to_commit=False, error=None)


def stop_all(connection: Connection, run_key: str, *, error: str) -> None:
    """Note that what was not sent of a report is sent to nobody until a person says so."""
    connection.execute(
        update(delivery)
        .where(delivery.c.run_key == run_key, delivery.c.state.in_(OPEN_STATES))
        .values(state=DeliveryState.DEAD, error=error)
    )


def revive(connection: Connection, found: Delivery, now: datetime) -> None:
    """Try again at once, with a fresh end, as an admin asked: to send, or to have the commitment of what was sent."""
    if found.state is DeliveryState.SENT and found.commit_requests:
        _change(connection, found, to_commit=True, commit_requests=0, next_attempt_at=now)
        return
    fresh = {"first_attempt_at": None, "next_attempt_at": now, "commit_requests": 0, "to_commit": False}
    _change(connection, found, state=DeliveryState.PENDING, **fresh)


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
        report_class=row.report_class,
        note=row.note,
        to_commit=row.to_commit,
        commit_requests=row.commit_requests,
        committed_at=row.committed_at,
    )


def _handed_over(connection: Connection, found: Delivery) -> dict[str, int | None]:
    query = select(handed_over.c.sop_instance_uid, handed_over.c.attempt).where(
        handed_over.c.run_key == found.run_key, handed_over.c.destination == found.destination
    )
    return {row.sop_instance_uid: row.attempt for row in connection.execute(query)}


def _class_before(connection: Connection, found: Delivery) -> str | None:
    """Return the SOP class in which this destination took the report that this one follows, if it did."""
    run = runs.get(connection, found.run_key)
    before = get(connection, run.predecessor, found.destination) if run and run.predecessor else None
    return before.report_class if before else None


def _locking(run_key: str) -> Select[Any]:
    return select(delivery.c.destination).where(delivery.c.run_key == run_key).with_for_update()


def _of(run_key: str) -> ColumnElement[bool]:
    return outbox_object.c.run_key == run_key


def _change(connection: Connection, found: Delivery, **values: object) -> None:
    connection.execute(
        update(delivery)
        .where(delivery.c.run_key == found.run_key, delivery.c.destination == found.destination)
        .values(**values)
    )
