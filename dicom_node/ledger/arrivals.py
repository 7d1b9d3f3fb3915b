"""Received files and what became of them: durable bytes first, facts later, duplicates and conflicts told apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, insert, select, update

from dicom_node.ledger.patients import patient_row, touch
from dicom_node.ledger.tables import ArrivalState, arrival, instance, outbox_object, study

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.timeline.model import InstanceFacts

MOST_TRIES: Final = 3
BURST_PAUSE: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A file that lies durably under its final name; `path` is relative to the instance folder."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size_bytes: int
    calling_ae_title: str
    default_issuer: str
    stat: bool
    received_at: datetime
    fetched_from: str | None = None  # the archive it was fetched from; none: it was sent to us


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingArrival:
    """A file waiting to be read."""

    arrival_id: int
    sop_instance_uid: str
    path: str
    default_issuer: str
    tries: int


def record(connection: Connection, new: Arrival) -> None:
    """Note a durable file; what it is will be read later, where a crash is harmless."""
    connection.execute(
        insert(arrival).values(
            sop_instance_uid=new.sop_instance_uid,
            sop_class_uid=new.sop_class_uid,
            transfer_syntax_uid=new.transfer_syntax_uid,
            path=new.path,
            size_bytes=new.size_bytes,
            calling_ae_title=new.calling_ae_title,
            default_issuer=new.default_issuer,
            stat=new.stat,
            received_at=new.received_at,
            fetched_from=new.fetched_from,
            state=ArrivalState.RECEIVED,
            tries=0,
        )
    )


def pending(connection: Connection, limit: int) -> list[PendingArrival]:
    """Return files not yet read, urgent ones first, then in order of arrival."""
    query = (
        select(arrival.c.id, arrival.c.sop_instance_uid, arrival.c.path, arrival.c.default_issuer, arrival.c.tries)
        .where(arrival.c.state == ArrivalState.RECEIVED)
        .order_by(arrival.c.stat.desc(), arrival.c.id)
        .limit(limit)
    )
    return [
        PendingArrival(
            arrival_id=row.id,
            sop_instance_uid=row.sop_instance_uid,
            path=row.path,
            default_issuer=row.default_issuer,
            tries=row.tries,
        )
        for row in connection.execute(query)
    ]


def oldest_pending(connection: Connection) -> datetime | None:
    """Return when the oldest file that is still unread arrived: no study is known to be quiet after that."""
    query = select(func.min(arrival.c.received_at)).where(arrival.c.state == ArrivalState.RECEIVED)
    oldest: datetime | None = connection.scalar(query)
    return oldest


def count_try(connection: Connection, arrival_id: int) -> None:
    """Note that a file is about to be read, before it can take the reader down."""
    connection.execute(update(arrival).where(arrival.c.id == arrival_id).values(tries=arrival.c.tries + 1))


def set_aside(connection: Connection, arrival_id: int, state: ArrivalState, reason: str) -> None:
    """Keep a file out of the time line, with its reason; the bytes stay."""
    connection.execute(update(arrival).where(arrival.c.id == arrival_id).values(state=state, reason=reason))


def is_our_own(connection: Connection, sop_instance_uid: str) -> bool:
    """Say whether an object came out of our own outbox (invariant 11)."""
    query = select(outbox_object.c.run_key).where(outbox_object.c.sop_instance_uid == sop_instance_uid)
    return connection.scalar(query) is not None


def index(connection: Connection, arrival_id: int, facts: InstanceFacts) -> ArrivalState:
    """Enter the facts of one file: a new instance, a duplicate of one we hold, or a conflict with it."""
    patient_id = patient_row(connection, facts.patient.issuer, facts.patient.patient_id)
    held = connection.execute(
        select(instance.c.content_digest, instance.c.patient, arrival.c.state)
        .join(arrival, arrival.c.id == instance.c.arrival)
        .where(instance.c.sop_instance_uid == facts.sop_instance_uid)
    ).one_or_none()
    if held is None:
        _enter(connection, arrival_id, patient_id, facts)
        return _close(connection, arrival_id, patient_id, facts, (ArrivalState.INDEXED, None))
    if held.content_digest == facts.content_digest and held.patient == patient_id:
        if held.state == ArrivalState.AGED_OUT:
            _bring_back(connection, arrival_id, patient_id, facts)
            return _close(connection, arrival_id, patient_id, facts, (ArrivalState.INDEXED, None))
        return _close(connection, arrival_id, patient_id, facts, (ArrivalState.DUPLICATE, "the first copy stays"))
    touch(connection, patient_id)
    touch(connection, held.patient)
    reason = "same SOP Instance UID, other " + ("patient" if held.patient != patient_id else "content")
    return _close(connection, arrival_id, held.patient, facts, (ArrivalState.CONFLICT, reason))


def conflicts(connection: Connection, patient_id: int) -> int:
    """Count the files of a patient that contradict an instance we hold."""
    query = (
        select(func.count())
        .select_from(arrival)
        .where(arrival.c.patient == patient_id, arrival.c.state == ArrivalState.CONFLICT)
    )
    return connection.scalar(query) or 0


def instance_paths(connection: Connection, sop_instance_uids: list[str]) -> dict[str, str]:
    """Return SOP Instance UID -> path relative to the instance folder, for instances whose bytes we hold."""
    paths: dict[str, str] = {}
    for start in range(0, len(sop_instance_uids), 500):  # SQLite bounds the variables of one statement
        query = (
            select(instance.c.sop_instance_uid, arrival.c.path)
            .join(arrival, arrival.c.id == instance.c.arrival)
            .where(
                instance.c.sop_instance_uid.in_(sop_instance_uids[start : start + 500]),
                arrival.c.state != ArrivalState.AGED_OUT,
            )
        )
        paths.update({row.sop_instance_uid: row.path for row in connection.execute(query)})
    return paths


def known_paths(connection: Connection) -> set[str]:
    """Return the path of every file that has a row and did not age out."""
    return set(connection.scalars(select(arrival.c.path).where(arrival.c.state != ArrivalState.AGED_OUT)))


def counts_by_state(connection: Connection) -> dict[str, int]:
    """Count files by what became of them."""
    query = select(arrival.c.state, func.count()).group_by(arrival.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def set_aside_reasons(connection: Connection) -> list[dict[str, object]]:
    """Count files that no case can use by state and reason, the commonest first."""
    out_of_use = (ArrivalState.SET_ASIDE, ArrivalState.CONFLICT, ArrivalState.NOT_AN_INPUT)
    count = func.count().label("count")
    query = (
        select(arrival.c.state, arrival.c.reason, count)
        .where(arrival.c.state.in_(out_of_use))
        .group_by(arrival.c.state, arrival.c.reason)
        .order_by(count.desc(), arrival.c.reason)
    )
    return [{"state": row.state, "reason": row.reason, "count": row[2]} for row in connection.execute(query)]


def _enter(connection: Connection, arrival_id: int, patient_id: int, facts: InstanceFacts) -> None:
    connection.execute(
        insert(instance).values(
            sop_instance_uid=facts.sop_instance_uid,
            arrival=arrival_id,
            patient=patient_id,
            study_instance_uid=facts.study_instance_uid,
            series_instance_uid=facts.series_instance_uid,
            content_digest=facts.content_digest,
            phantom=facts.patient.phantom,
            facts=facts.to_json(),
        )
    )
    row = connection.execute(select(arrival.c.received_at, arrival.c.stat).where(arrival.c.id == arrival_id)).one()
    _receive_into_study(connection, patient_id, facts.study_instance_uid, row.received_at, stat=row.stat)
    touch(connection, patient_id)


def _bring_back(connection: Connection, arrival_id: int, patient_id: int, facts: InstanceFacts) -> None:
    """Let the bytes of an instance whose first copy aged out be those that came again; what is known of it stays."""
    connection.execute(
        update(instance).where(instance.c.sop_instance_uid == facts.sop_instance_uid).values(arrival=arrival_id)
    )
    touch(connection, patient_id)


def _receive_into_study(connection: Connection, patient_id: int, uid: str, at: datetime, *, stat: bool) -> None:
    held = connection.execute(select(study).where(study.c.study_instance_uid == uid)).one_or_none()
    if held is None:
        connection.execute(
            insert(study).values(
                study_instance_uid=uid, patient=patient_id, burst_started_at=at, last_received_at=at, stat=stat
            )
        )
        return
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == uid)
        .values(
            burst_started_at=at if at - held.last_received_at > BURST_PAUSE else min(held.burst_started_at, at),
            last_received_at=max(held.last_received_at, at),
            stat=held.stat or stat,
        )
    )


def _close(
    connection: Connection,
    arrival_id: int,
    patient_id: int,
    facts: InstanceFacts,
    verdict: tuple[ArrivalState, str | None],
) -> ArrivalState:
    state, reason = verdict
    connection.execute(
        update(arrival)
        .where(arrival.c.id == arrival_id)
        .values(state=state, reason=reason, patient=patient_id, study_instance_uid=facts.study_instance_uid)
    )
    return state
