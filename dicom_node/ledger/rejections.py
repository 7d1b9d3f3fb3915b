"""Instances that a received rejection note took out of use, before or after they came themselves.

Rows are kept by (instance, note), not by what is held: a note may come before its images, and an image that is sent
again stays rejected. A row counts for the patient whom the note is about, so that a note of one patient cannot reject
what is another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from dicom_node.ledger.patients import patient_row, touch
from dicom_node.ledger.tables import ArrivalState, arrival, rejected_instance
from dicom_node.timeline.rejection import WRONG

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.timeline.rejection import RejectionNote


def enter(connection: Connection, arrival_id: int, note: RejectionNote) -> ArrivalState:
    """Enter a rejection note and end its arrival, together; have its patient decided anew.

    Returns:
        NOT_AN_INPUT, or CONFLICT where a note of this SOP Instance UID was already entered for another patient.
    """
    owners = {
        each.study_instance_uid: patient_row(connection, note.patient.issuer, note.patient.patient_id)
        for each in note.studies
    }
    known = _known(connection, note.sop_instance_uid)
    for row_id in {*owners.values(), *known.values()}:
        touch(connection, row_id)
    strangers = set(known.values()) - set(owners.values())
    if strangers:
        reason = "same SOP Instance UID, other patient"
        return _close(connection, arrival_id, min(strangers), note, (ArrivalState.CONFLICT, reason))
    received_at = connection.scalar(select(arrival.c.received_at).where(arrival.c.id == arrival_id))
    rows = [
        {
            "sop_instance_uid": uid,
            "note_sop_instance_uid": note.sop_instance_uid,
            "patient": owners[each.study_instance_uid],
            "code": note.title,
            "noted_at": received_at,
        }
        for each in note.studies
        for uid in each.sop_instance_uids
        if uid not in known
    ]
    if rows:
        connection.execute(insert(rejected_instance), rows)
    reason = f"rejection note: {note.title}, {note.count} instances"
    first = owners[note.studies[0].study_instance_uid]
    return _close(connection, arrival_id, first, note, (ArrivalState.NOT_AN_INPUT, reason))


def rejected(connection: Connection, patient_row: int) -> frozenset[str]:
    """Return the SOP Instance UIDs that a note says are wrong, whether held or not; an expired retention is not."""
    return frozenset(uid for uid, code in codes(connection, patient_row).items() if code in WRONG)


def codes(connection: Connection, patient_row: int) -> dict[str, str]:
    """Return SOP Instance UID -> the document title (CID 7011) of a note, one that takes it out of use before others.

    For telling a person why an instance is left out, or that the archive no longer keeps it.
    """
    query = (
        select(rejected_instance.c.sop_instance_uid, rejected_instance.c.code)
        .where(rejected_instance.c.patient == patient_row)
        .order_by(rejected_instance.c.noted_at, rejected_instance.c.note_sop_instance_uid)
    )
    rows = [(row.sop_instance_uid, row.code) for row in connection.execute(query)]
    return dict(sorted(rows, key=lambda row: row[1] in WRONG))


def _known(connection: Connection, note_sop_instance_uid: str) -> dict[str, int]:
    query = select(rejected_instance.c.sop_instance_uid, rejected_instance.c.patient).where(
        rejected_instance.c.note_sop_instance_uid == note_sop_instance_uid
    )
    return {row.sop_instance_uid: row.patient for row in connection.execute(query)}


def _close(
    connection: Connection,
    arrival_id: int,
    patient_id: int,
    note: RejectionNote,
    verdict: tuple[ArrivalState, str],
) -> ArrivalState:
    state, reason = verdict
    connection.execute(
        update(arrival)
        .where(arrival.c.id == arrival_id)
        .values(
            state=state,
            reason=reason,
            patient=patient_id,
            study_instance_uid=note.studies[0].study_instance_uid,
        )
    )
    return state
