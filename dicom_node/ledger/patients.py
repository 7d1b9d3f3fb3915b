"""Patients and everything read of them; `revision` grows with every new fact, so that nothing is decided twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, insert, or_, select, update

from dicom_node.errors import NodeError
from dicom_node.ledger.tables import instance, patient, patient_alias, study
from dicom_node.timeline.decision import StudyClock
from dicom_node.timeline.model import InstanceFacts

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Whom a row is about: (issuer, PatientID), and how far the decisions have come."""

    row_id: int
    issuer: str
    patient_id: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReception:
    """When a study arrived, and whether it is urgent."""

    clock: StudyClock
    stat: bool


def patient_row(connection: Connection, issuer: str, patient_id: str) -> int:
    """Return the row of an ID, made when missing. Compared exactly (PS3.4 C.2.2.2.1).

    On PostgreSQL the row is locked, so that nothing of this ID is entered while the ID is merged or split.
    """
    query = select(patient.c.id).where(patient.c.issuer == issuer, patient.c.patient_id == patient_id)
    found: int | None = connection.scalar(query.with_for_update())
    if found is not None:
        return found
    made = connection.execute(
        insert(patient).values(issuer=issuer, patient_id=patient_id, revision=0, decided_revision=-1)
    )
    key = made.inserted_primary_key
    assert key is not None  # noqa: S101 - an INSERT without executemany always has one
    return int(key[0])


def survivor(connection: Connection, row_id: int) -> int:
    """Return the row that stands for a patient today: its own, or that of the ID it was merged into, transitively.

    Raises:
        NodeError: if merges form a ring, which `merge` refuses to make.
    """
    seen = [row_id]
    while True:
        query = (
            select(patient_alias.c.patient)
            .join(
                patient,
                and_(patient.c.issuer == patient_alias.c.issuer, patient.c.patient_id == patient_alias.c.patient_id),
            )
            .where(patient.c.id == seen[-1])
        )
        following: int | None = connection.scalar(query)
        if following is None:
            return seen[-1]
        if following in seen:
            msg = f"ledger: patient rows {seen} are merged in a ring; expected an end; `patient split` one of them"
            raise NodeError(msg)
        seen.append(following)


def touch(connection: Connection, row_id: int) -> None:
    """Note that something new is known of a patient."""
    connection.execute(update(patient).where(patient.c.id == row_id).values(revision=patient.c.revision + 1))


def touch_all(connection: Connection) -> None:
    """Have every patient decided anew, as after a change of configuration."""
    connection.execute(update(patient).values(revision=patient.c.revision + 1))


def undecided(connection: Connection, now: datetime, limit: int) -> list[Patient]:
    """Return patients with new facts, or whose time to be looked at again has come, whoever waits longest first."""
    query = (
        select(patient)
        .where(or_(patient.c.decided_revision != patient.c.revision, patient.c.next_check_at <= now))
        .order_by(patient.c.next_check_at.is_not(None), patient.c.next_check_at, patient.c.id)
        .limit(limit)
    )
    return [_patient(row) for row in connection.execute(query)]


def locked_revision(connection: Connection, row_id: int) -> int:
    """Return how far a patient's facts have come; nobody adds to them before this transaction ends."""
    query = select(patient.c.revision).where(patient.c.id == row_id).with_for_update()
    revision: int = connection.execute(query).scalar_one()
    return revision


def all_patients(connection: Connection) -> list[Patient]:
    """Return every patient, in order of first reception."""
    return [_patient(row) for row in connection.execute(select(patient).order_by(patient.c.id))]


def get(connection: Connection, row_id: int) -> Patient:
    """Return the patient of a row."""
    return _patient(connection.execute(select(patient).where(patient.c.id == row_id)).one())


def find(connection: Connection, patient_id: str, issuer: str | None = None) -> list[Patient]:
    """Return the patients with this ID, of one issuer or of any; for a retired ID, who it was merged into."""
    query = select(patient.c.id).where(patient.c.patient_id == patient_id.strip(" "))
    if issuer is not None:
        query = query.where(patient.c.issuer == issuer)
    standing = dict.fromkeys(survivor(connection, row_id) for row_id in connection.scalars(query.order_by("id")).all())
    return [get(connection, row_id) for row_id in standing]


def issuers_of(connection: Connection, patient_id: str) -> list[str]:
    """Return the issuers under whom exactly this ID is known here, retired or not."""
    query = select(patient.c.issuer).where(patient.c.patient_id == patient_id.strip(" "))
    return list(connection.scalars(query.order_by(patient.c.issuer)))


def decided(connection: Connection, found: Patient, next_check_at: datetime | None) -> None:
    """Note up to which revision a patient was decided on, and when to look again without news."""
    connection.execute(
        update(patient)
        .where(patient.c.id == found.row_id)
        .values(decided_revision=found.revision, next_check_at=next_check_at)
    )


def facts_of(connection: Connection, row_id: int) -> list[InstanceFacts]:
    """Return all facts read of a patient, in order of SOP Instance UID."""
    query = select(instance.c.facts).where(instance.c.patient == row_id).order_by(instance.c.sop_instance_uid)
    return [InstanceFacts.from_json(text) for text in connection.scalars(query)]


def is_phantom(connection: Connection, row_id: int) -> bool:
    """Say whether every instance held of a patient is marked as a phantom's; nothing held: no."""
    marks = set(connection.scalars(select(instance.c.phantom).where(instance.c.patient == row_id).distinct()))
    return marks == {True}


def patient_of_study(connection: Connection, study_instance_uid: str) -> Patient | None:
    """Return whose study this is."""
    query = (
        select(patient)
        .join(study, study.c.patient == patient.c.id)
        .where(study.c.study_instance_uid == study_instance_uid)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _patient(row)


def receptions(connection: Connection, row_id: int) -> dict[str, StudyReception]:
    """Return study UID -> when it was received, for a patient's studies."""
    query = select(study).where(study.c.patient == row_id)
    return {
        row.study_instance_uid: StudyReception(
            clock=StudyClock(burst_started_at=row.burst_started_at, last_received_at=row.last_received_at),
            stat=row.stat,
        )
        for row in connection.execute(query)
    }


def _patient(row: Row[Any]) -> Patient:
    return Patient(row_id=row.id, issuer=row.issuer, patient_id=row.patient_id, revision=row.revision)
