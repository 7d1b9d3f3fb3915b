"""What the ledger remembers of when things happened to a patient: the history that a replay is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select

from dicom_node.ledger import rejections
from dicom_node.ledger.tables import GONE, ArrivalState, arrival, instance
from dicom_node.timeline.history import Arrived, Contradicted, Rejected
from dicom_node.timeline.model import InstanceFacts

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from dicom_node.timeline.history import Event

FIRST_COPIES = (ArrivalState.INDEXED, ArrivalState.DUPLICATE, *GONE)


def events_of(connection: Connection, patient_row: int) -> list[Event]:
    """Return what happened to a patient, oldest first: instances, rejection notes, contradicting files.

    Who owns what is as it stands now: a merge or a split counts from the beginning.
    """
    events: list[Event] = [
        *_arrived(connection, patient_row),
        *(Rejected(at=at, sop_instance_uids=uids) for at, uids in rejections.notes(connection, patient_row)),
        *_contradicted(connection, patient_row),
    ]
    return sorted(events, key=lambda each: each.at)


def _arrived(connection: Connection, patient_row: int) -> list[Arrived]:
    """Return every instance with the arrival of its first copy, which may have aged out since."""
    first: dict[str, datetime] = {
        row.sop_instance_uid: row.at
        for row in connection.execute(
            select(arrival.c.sop_instance_uid, func.min(arrival.c.received_at).label("at"))
            .join(instance, instance.c.sop_instance_uid == arrival.c.sop_instance_uid)
            .where(instance.c.patient == patient_row, arrival.c.state.in_(FIRST_COPIES))
            .group_by(arrival.c.sop_instance_uid)
        )
    }
    query = (
        select(instance.c.sop_instance_uid, instance.c.facts, arrival.c.received_at)
        .join(arrival, arrival.c.id == instance.c.arrival)
        .where(instance.c.patient == patient_row)
        .order_by(arrival.c.id)
    )
    return [
        Arrived(
            at=first.get(row.sop_instance_uid, row.received_at),
            facts=InstanceFacts.from_json(row.facts),
        )
        for row in connection.execute(query)
    ]


def _contradicted(connection: Connection, patient_row: int) -> list[Contradicted]:
    """Return the files that contradict an instance of the patient, or claim to be the patient's and are another's."""
    query = (
        select(arrival.c.received_at)
        .outerjoin(instance, instance.c.sop_instance_uid == arrival.c.sop_instance_uid)
        .where(
            arrival.c.state == ArrivalState.CONFLICT,
            or_(arrival.c.patient == patient_row, instance.c.patient == patient_row),
        )
        .order_by(arrival.c.id)
    )
    return [Contradicted(at=at) for at in connection.scalars(query)]
