"""Received files and what became of them: durable bytes first, facts later, duplicates and conflicts told apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, func, insert, or_, select, update

from dicom_node.ledger.cohort import write_audit
from dicom_node.ledger.identity import owner_row
from dicom_node.ledger.patients import touch
from dicom_node.ledger.tables import GONE, ArrivalState, arrival, instance, outbox_object, study
from dicom_node.timeline.circumstances import heard
from dicom_node.timeline.decision import StudyClock
from dicom_node.timeline.model import InstanceFacts

if TYPE_CHECKING:
    from sqlalchemy import Connection

ENTER: Final = insert(arrival)  # made once: its SQL is then found without making it again
MOST_TRIES: Final = 3
FIRST_STAYS: Final = "the first copy stays"
ACCEPTED_AS_NEW: Final = "to be read again: a person accepted it in place of the instance held"
REPLACED: Final = "a person accepted another file in its place"
UNDER_ANOTHER_ID: Final = "the first copy stays; this one carries another ID of the patient"


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


def record(connection: Connection, *new: Arrival) -> None:
    """Note durable files; what they are will be read later, where a crash is harmless."""
    connection.execute(
        ENTER,
        [
            {
                "sop_instance_uid": each.sop_instance_uid,
                "sop_class_uid": each.sop_class_uid,
                "transfer_syntax_uid": each.transfer_syntax_uid,
                "path": each.path,
                "size_bytes": each.size_bytes,
                "calling_ae_title": each.calling_ae_title,
                "default_issuer": each.default_issuer,
                "stat": each.stat,
                "received_at": each.received_at,
                "fetched_from": each.fetched_from,
                "state": ArrivalState.RECEIVED,
                "tries": 0,
            }
            for each in new
        ],
    )


def pending(connection: Connection, limit: int) -> list[PendingArrival]:
    """Return files not yet read, urgent ones first, then in order of arrival; those that broke the reader come last."""
    query = (
        select(arrival.c.id, arrival.c.sop_instance_uid, arrival.c.path, arrival.c.default_issuer, arrival.c.tries)
        .where(arrival.c.state == ArrivalState.RECEIVED)
        .order_by(arrival.c.tries, arrival.c.stat.desc(), arrival.c.id)
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
    """Return when the oldest file that is still unread arrived: no study is known to be quiet after that.

    One that broke the reader is not waited for, or a few of them would stop every patient's clock: should it be
    readable after all, it is a late instance.
    """
    unread = and_(arrival.c.state == ArrivalState.RECEIVED, arrival.c.tries == 0)
    query = select(func.min(arrival.c.received_at)).where(unread)
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
    """Enter the facts of one file: a new instance, a duplicate of one we hold, or a conflict with it.

    A conflict belongs to the patient whom the file names, and holds that one and the one it contradicts, until a person
    says which counts; the file accepted then takes the place of the instance.
    """
    owner = owner_row(connection, facts.patient, facts.study_instance_uid)
    held = connection.execute(
        select(instance.c.content_digest, instance.c.patient, instance.c.facts, arrival.c.state)
        .join(arrival, arrival.c.id == instance.c.arrival)
        .where(instance.c.sop_instance_uid == facts.sop_instance_uid)
    ).one_or_none()
    if held is None:
        _enter(connection, arrival_id, owner, facts)
        return _close(connection, arrival_id, owner, facts, (ArrivalState.INDEXED, None))
    if held.content_digest == facts.content_digest and held.patient == owner:
        if held.state in GONE:
            _bring_back(connection, arrival_id, owner, facts)
            return _close(connection, arrival_id, owner, facts, (ArrivalState.INDEXED, None))
        same_id = InstanceFacts.from_json(held.facts).patient.key == facts.patient.key
        if not same_id:
            touch(connection, owner)  # it may have been a conflict until the two IDs became one patient
        reason = FIRST_STAYS if same_id else UNDER_ANOTHER_ID
        return _close(connection, arrival_id, owner, facts, (ArrivalState.DUPLICATE, reason))
    if _accepted_as_new(connection, arrival_id):
        _replace(connection, arrival_id, owner, facts)
        return _close(connection, arrival_id, owner, facts, (ArrivalState.INDEXED, None))
    touch(connection, owner)
    touch(connection, held.patient)
    reason = "same SOP Instance UID, other " + ("patient" if held.patient != owner else "content")
    _audit_conflict(connection, arrival_id, facts, reason)
    return _close(connection, arrival_id, owner, facts, (ArrivalState.CONFLICT, reason))


def conflicts(connection: Connection, patient_id: int) -> int:
    """Count the files that contradict an instance of a patient, or claim to be a patient's and are another's.

    One that is to be read again, because identities changed, counts until it was read.
    """
    unsettled = or_(
        arrival.c.state == ArrivalState.CONFLICT,
        and_(arrival.c.state == ArrivalState.RECEIVED, arrival.c.reason.is_not(None)),
    )
    query = (
        select(func.count())
        .select_from(arrival)
        .outerjoin(instance, instance.c.sop_instance_uid == arrival.c.sop_instance_uid)
        .where(unsettled, or_(arrival.c.patient == patient_id, instance.c.patient == patient_id))
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
                arrival.c.state.not_in(GONE),
            )
        )
        paths.update({row.sop_instance_uid: row.path for row in connection.execute(query)})
    return paths


def known_paths(connection: Connection) -> set[str]:
    """Return the path of every file that has a row and is not known to be gone."""
    return set(connection.scalars(select(arrival.c.path).where(arrival.c.state.not_in(GONE))))


def counts_by_state(connection: Connection) -> dict[str, int]:
    """Count files by what became of them."""
    query = select(arrival.c.state, func.count()).group_by(arrival.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def set_aside_reasons(connection: Connection) -> list[dict[str, object]]:
    """Count files that no case can use by state and reason, the commonest first."""
    out_of_use = (ArrivalState.SET_ASIDE, ArrivalState.CONFLICT, ArrivalState.NOT_AN_INPUT, ArrivalState.LOST)
    count = func.count().label("count")
    query = (
        select(arrival.c.state, arrival.c.reason, count)
        .where(arrival.c.state.in_(out_of_use))
        .group_by(arrival.c.state, arrival.c.reason)
        .order_by(count.desc(), arrival.c.reason)
    )
    return [{"state": row.state, "reason": row.reason, "count": row[2]} for row in connection.execute(query)]


def _enter(connection: Connection, arrival_id: int, patient_id: int, facts: InstanceFacts) -> None:
    values = _values(arrival_id, patient_id, facts)
    connection.execute(insert(instance).values(sop_instance_uid=facts.sop_instance_uid, **values))
    _heard_of(connection, arrival_id, patient_id, facts.study_instance_uid)


def _values(arrival_id: int, patient_id: int, facts: InstanceFacts) -> dict[str, object]:
    return {
        "arrival": arrival_id,
        "patient": patient_id,
        "study_instance_uid": facts.study_instance_uid,
        "series_instance_uid": facts.series_instance_uid,
        "content_digest": facts.content_digest,
        "phantom": facts.patient.phantom,
        "facts": facts.to_json(),
    }


def _heard_of(connection: Connection, arrival_id: int, patient_id: int, study_instance_uid: str) -> None:
    row = connection.execute(select(arrival.c.received_at, arrival.c.stat).where(arrival.c.id == arrival_id)).one()
    _receive_into_study(connection, patient_id, study_instance_uid, row.received_at, stat=row.stat)
    touch(connection, patient_id)


def _accepted_as_new(connection: Connection, arrival_id: int) -> bool:
    return connection.scalar(select(arrival.c.reason).where(arrival.c.id == arrival_id)) == ACCEPTED_AS_NEW


def _replace(connection: Connection, arrival_id: int, patient_id: int, facts: InstanceFacts) -> None:
    """Let a file take the place of the instance held, whoever that belonged to; the older bytes stay beside it.

    A study goes with the last of its instances: what is left of it under another patient keeps it there.
    """
    same = instance.c.sop_instance_uid == facts.sop_instance_uid
    held = connection.execute(select(instance.c.arrival, instance.c.patient).where(same)).one()
    connection.execute(
        update(arrival)
        .where(arrival.c.id == held.arrival, arrival.c.state.not_in(GONE))
        .values(state=ArrivalState.SET_ASIDE, reason=REPLACED)
    )
    connection.execute(update(instance).where(same).values(**_values(arrival_id, patient_id, facts)))
    in_study = instance.c.study_instance_uid == facts.study_instance_uid
    others = select(instance.c.arrival).where(in_study, instance.c.patient != patient_id)
    if connection.execute(others.limit(1)).one_or_none() is None:
        chosen = study.c.study_instance_uid == facts.study_instance_uid
        connection.execute(update(study).where(chosen).values(patient=patient_id))
    _heard_of(connection, arrival_id, patient_id, facts.study_instance_uid)
    touch(connection, held.patient)


def _bring_back(connection: Connection, arrival_id: int, patient_id: int, facts: InstanceFacts) -> None:
    """Let the bytes of an instance whose first copy aged out be those that came again; what is known of it stays."""
    connection.execute(
        update(instance).where(instance.c.sop_instance_uid == facts.sop_instance_uid).values(arrival=arrival_id)
    )
    touch(connection, patient_id)


def _receive_into_study(connection: Connection, patient_id: int, uid: str, at: datetime, *, stat: bool) -> None:
    held = connection.execute(select(study).where(study.c.study_instance_uid == uid)).one_or_none()
    if held is None:
        clock = heard(None, at)
    else:
        clock = heard(StudyClock(burst_started_at=held.burst_started_at, last_received_at=held.last_received_at), at)
    times = {"burst_started_at": clock.burst_started_at, "last_received_at": clock.last_received_at}
    if held is None:
        connection.execute(insert(study).values(study_instance_uid=uid, patient=patient_id, stat=stat, **times))
        return
    connection.execute(update(study).where(study.c.study_instance_uid == uid).values(stat=held.stat or stat, **times))


def _audit_conflict(connection: Connection, arrival_id: int, facts: InstanceFacts, reason: str) -> None:
    row = connection.execute(
        select(arrival.c.received_at, arrival.c.calling_ae_title).where(arrival.c.id == arrival_id)
    ).one()
    details = {
        "reason": reason,
        "says": [facts.patient.issuer, facts.patient.patient_id],
        "sop_instance_uid": facts.sop_instance_uid,
    }
    write_audit(
        connection,
        at=row.received_at,
        actor=row.calling_ae_title,
        action="instance conflict",
        subject=facts.study_instance_uid,
        details=details,
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
