"""What lies here of a series, however it came: asked before and after something is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, func, or_, select

from dicom_node.ledger import identity, patients
from dicom_node.ledger.tables import GONE, ArrivalState, PriorState, arrival, instance, outbox_object, prior_series, run

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

readable = arrival.alias()  # the copy that an instance was read from


def instances_per_series(connection: Connection, patient_row: int) -> dict[str, int]:
    """Return series UID -> number of instances known of a patient, those whose bytes aged out included."""
    query = (
        select(instance.c.series_instance_uid, func.count())
        .where(instance.c.patient.in_(identity.rows_of(connection, patient_row)))
        .group_by(instance.c.series_instance_uid)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def own_series(connection: Connection, patient_row: int) -> frozenset[str]:
    """Return the series that we made ourselves for a patient (invariant 11)."""
    query = (
        select(outbox_object.c.series_instance_uid)
        .join(run, run.c.run_key == outbox_object.c.run_key)
        .where(run.c.patient.in_(identity.rows_of(connection, patient_row)))
        .distinct()
    )
    return frozenset(connection.scalars(query))


def newest_arrival(connection: Connection) -> int:
    """Return the number of the newest file; what comes later has a larger one."""
    return connection.scalar(select(func.max(arrival.c.id))) or 0


def unread_between(connection: Connection, after: int, until: int) -> int:
    """Count the files of a span that were not read yet."""
    query = (
        select(func.count())
        .select_from(arrival)
        .where(arrival.c.id > after, arrival.c.id <= until, arrival.c.state == ArrivalState.RECEIVED)
    )
    return connection.scalar(query) or 0


def instances_here(connection: Connection, study_instance_uid: str, series_instance_uid: str) -> int:
    """Count the instances of a series whose bytes lie here."""
    query = (
        select(func.count())
        .select_from(instance)
        .join(arrival, arrival.c.id == instance.c.arrival)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.series_instance_uid == series_instance_uid,
            arrival.c.state.not_in(GONE),
        )
    )
    return connection.scalar(query) or 0


def fetched_but_no_input(connection: Connection, pacs: str, after: int) -> set[str]:
    """Return the SOP Instance UIDs fetched from an archive after a file that are of no series: no input, or unreadable.

    One of which a readable copy lies here is not among them.
    """
    here = (
        select(instance.c.sop_instance_uid)
        .join(readable, readable.c.id == instance.c.arrival)
        .where(instance.c.sop_instance_uid == arrival.c.sop_instance_uid, readable.c.state.not_in(GONE))
    )
    query = select(arrival.c.sop_instance_uid).where(
        arrival.c.id > after,
        arrival.c.fetched_from == pacs,
        arrival.c.state.in_((ArrivalState.NOT_AN_INPUT, ArrivalState.SET_ASIDE)),
        ~here.exists(),
    )
    return set(connection.scalars(query))


def others_at_work(connection: Connection, pacs: str, series_instance_uid: str, since: datetime) -> bool:
    """Say whether another series of an archive is being fetched, or an attempt to began after a time.

    While an attempt is at work its series is wanted and was due when it began; afterwards it has an end, or a later
    time to try again.
    """
    at_work = and_(
        prior_series.c.state == PriorState.WANTED, prior_series.c.started_at >= prior_series.c.next_attempt_at
    )
    query = select(prior_series.c.series_instance_uid).where(
        prior_series.c.pacs == pacs,
        prior_series.c.series_instance_uid != series_instance_uid,
        or_(at_work, prior_series.c.started_at > since),
    )
    return connection.execute(query.limit(1)).one_or_none() is not None


def strangers(connection: Connection, patient_row: int, series_instance_uid: str, *, pacs: str, after: int) -> int:
    """Count the instances of other patients that a retrieval brought: in its series, or in one nobody asked for.

    Args:
        connection: a transaction.
        patient_row: whose series was asked for.
        series_instance_uid: what was asked for.
        pacs: the archive's name.
        after: the newest file before the retrieval began.
    """
    asked_for = select(prior_series.c.series_instance_uid).where(prior_series.c.pacs == pacs)
    unasked = and_(arrival.c.fetched_from == pacs, instance.c.series_instance_uid.not_in(asked_for))
    query = (
        select(instance.c.patient, func.count())
        .join(arrival, arrival.c.sop_instance_uid == instance.c.sop_instance_uid)
        .where(arrival.c.id > after, or_(instance.c.series_instance_uid == series_instance_uid, unasked))
        .group_by(instance.c.patient)
    )
    ours = set(identity.rows_of(connection, patients.survivor(connection, patient_row)))
    return sum(row[1] for row in connection.execute(query) if row[0] not in ours)
