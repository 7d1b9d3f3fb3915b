"""Instances that a received rejection note took out of use, before or after they came themselves.

Rows are kept by (instance, note), not by what is held: a note may come before its images, and an image that is sent
again stays rejected. A row keeps the patient whom the note names, as it names them, and counts for what that human
owns: merging and splitting patients needs no change here, and a note of one patient cannot reject another's images.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, insert, select, update

from dicom_node.ledger.identity import owner_row, rows_of
from dicom_node.ledger.patients import patient_row, survivor, touch
from dicom_node.ledger.tables import ArrivalState, arrival, instance, patient, rejected_instance, study_owner
from dicom_node.timeline.model import InstanceFacts
from dicom_node.timeline.rejection import WRONG

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from dicom_node.timeline.rejection import RejectionNote


def enter(connection: Connection, arrival_id: int, note: RejectionNote) -> ArrivalState:
    """Enter a rejection note and end its arrival, together; have its patient decided anew.

    Returns:
        NOT_AN_INPUT, or CONFLICT where a note of this SOP Instance UID was already entered for another patient.
    """
    named = patient_row(connection, *note.patient.key)
    human = survivor(connection, named)
    known = _known(connection, note.sop_instance_uid)
    strangers = {survivor(connection, row) for row in known.values()} - {human}
    for row in {human, *strangers, *(owner_row(connection, note.patient, uid) for uid in note.study_instance_uids)}:
        touch(connection, row)
    if strangers:
        reason = "same SOP Instance UID, other patient"
        return _close(connection, arrival_id, min(strangers), note, (ArrivalState.CONFLICT, reason))
    received_at = connection.scalar(select(arrival.c.received_at).where(arrival.c.id == arrival_id))
    rows = [
        {
            "sop_instance_uid": uid,
            "note_sop_instance_uid": note.sop_instance_uid,
            "patient": named,
            "code": note.title,
            "noted_at": received_at,
        }
        for uid in note.sop_instance_uids
        if uid not in known
    ]
    if rows:
        connection.execute(insert(rejected_instance), rows)
    reason = f"rejection note: {note.title}, {len(note.sop_instance_uids)} instances"
    return _close(connection, arrival_id, human, note, (ArrivalState.NOT_AN_INPUT, reason))


def rejected(connection: Connection, row_id: int) -> frozenset[str]:
    """Return the SOP Instance UIDs that a note says are wrong, whether held or not; an expired retention is not."""
    return frozenset(uid for uid, code in codes(connection, row_id).items() if code in WRONG)


def codes(connection: Connection, row_id: int) -> dict[str, str]:
    """Return SOP Instance UID -> the document title (CID 7011) of a note, one that takes it out of use before others.

    For telling a person why an instance is left out, or that the archive no longer keeps it.
    """
    rows = sorted(_counting(connection, row_id), key=lambda row: row.code in WRONG)
    return {row.sop_instance_uid: row.code for row in rows}


def notes(connection: Connection, row_id: int) -> list[tuple[datetime, frozenset[str]]]:
    """Return when each note came that says images are wrong, and the SOP Instance UIDs it named, in this order."""
    named: dict[tuple[datetime, str], set[str]] = defaultdict(set)
    for row in _counting(connection, row_id):
        if row.code in WRONG:
            named[row.noted_at, row.note_sop_instance_uid].add(row.sop_instance_uid)
    return [(at, frozenset(uids)) for (at, _), uids in named.items()]


def _counting(connection: Connection, row_id: int) -> list[Any]:
    """Return the rows that count for a patient, in order of coming: of its IDs, and of studies given to it by hand.

    A study that was given away still carries the ID it was made with, and so do the notes about it: these count where
    note and instance name the same patient.
    """
    own = rows_of(connection, row_id)
    found = list(connection.execute(_rows().where(rejected_instance.c.patient.in_(own))))
    given = (
        _rows()
        .add_columns(instance.c.facts, patient.c.issuer, patient.c.patient_id)
        .join(instance, instance.c.sop_instance_uid == rejected_instance.c.sop_instance_uid)
        .join(study_owner, study_owner.c.study_instance_uid == instance.c.study_instance_uid)
        .join(patient, patient.c.id == rejected_instance.c.patient)
        .where(instance.c.patient == row_id, rejected_instance.c.patient.not_in(own))
    )
    found += [
        row
        for row in connection.execute(given)
        if InstanceFacts.from_json(row.facts).patient.key == (row.issuer, row.patient_id)
    ]
    return sorted(found, key=lambda row: (row.noted_at, row.note_sop_instance_uid))


def _rows() -> Select[Any]:
    return select(
        rejected_instance.c.sop_instance_uid,
        rejected_instance.c.note_sop_instance_uid,
        rejected_instance.c.code,
        rejected_instance.c.noted_at,
    )


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
        .values(state=state, reason=reason, patient=patient_id, study_instance_uid=note.study_instance_uids[0])
    )
    return state
