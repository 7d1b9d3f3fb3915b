"""Whose is what: patients under several IDs, studies given to somebody by hand, values a person has accepted.

An instance says whom it shows, and what it says is never rewritten. Beside it the ledger keeps what people and
registries said of identities: `patient_alias` (this ID is that patient), `study_owner` (this study is that patient's,
whatever ID it carries), `accepted_value` (these spellings are one human) and `patient_statement` (what a registry says
of an ID today). Who owns an instance follows from these alone, so that taking one back brings the old picture back.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import and_, select

from dicom_node.ledger import cohort
from dicom_node.ledger.patients import patient_row, survivor
from dicom_node.ledger.tables import accepted_value, patient, patient_alias, patient_statement, study_owner
from dicom_node.timeline.cohort_union import unite_cohorts
from dicom_node.timeline.model import CohortFacts, PatientFacts

if TYPE_CHECKING:
    from sqlalchemy import Connection


def owner_row(connection: Connection, facts_patient: PatientFacts, study_instance_uid: str) -> int:
    """Return the row of the patient an instance belongs to, made when missing.

    What was said of the study comes first, then what was said of the ID, then the ID itself.
    """
    given = connection.scalar(
        select(study_owner.c.patient).where(study_owner.c.study_instance_uid == study_instance_uid)
    )
    return survivor(connection, patient_row(connection, *facts_patient.key) if given is None else int(given))


def rows_of(connection: Connection, row_id: int) -> list[int]:
    """Return the row of a patient and those of all IDs merged into it, directly or over others; its own first."""
    found = [row_id]
    for each in found:  # grows while it is walked
        query = (
            select(patient.c.id)
            .join(
                patient_alias,
                and_(patient.c.issuer == patient_alias.c.issuer, patient.c.patient_id == patient_alias.c.patient_id),
            )
            .where(patient_alias.c.patient == each)
            .order_by(patient.c.id)
        )
        found.extend(other for other in connection.scalars(query).all() if other not in found)
    return found


def ids_of(connection: Connection, row_id: int) -> list[tuple[str, str]]:
    """Return every (issuer, PatientID) of a patient, the surviving one first."""
    rows = rows_of(connection, row_id)
    query = select(patient.c.id, patient.c.issuer, patient.c.patient_id).where(patient.c.id.in_(rows))
    names = {row.id: (row.issuer, row.patient_id) for row in connection.execute(query)}
    return [names[each] for each in rows]


def accepted(connection: Connection, row_id: int) -> dict[str, frozenset[str]]:
    """Return DICOM keyword -> the values a person has accepted as this one human's, under any of the IDs."""
    query = select(accepted_value.c.field, accepted_value.c.value).where(
        accepted_value.c.patient.in_(rows_of(connection, row_id))
    )
    values: dict[str, set[str]] = defaultdict(set)
    for row in connection.execute(query):
        values[row.field].add(row.value)
    return {field: frozenset(found) for field, found in values.items()}


def stated(connection: Connection, row_id: int) -> list[PatientFacts]:
    """Return what a registry says today of each ID of a patient, to be compared with what the instances say."""
    found = []
    for issuer, patient_id in ids_of(connection, row_id):
        said = statement(connection, issuer, patient_id)
        if said is not None:
            found.append(said)
    return found


def statement(connection: Connection, issuer: str, patient_id: str) -> PatientFacts | None:
    """Return what a registry says today of one ID."""
    query = select(patient_statement).where(
        patient_statement.c.issuer == issuer, patient_statement.c.patient_id == patient_id
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return PatientFacts(issuer=issuer, patient_id=patient_id, name=row.name, birth_date=row.birth_date, sex=row.sex)


def cohort_of(connection: Connection, row_id: int) -> CohortFacts:
    """Return what is recorded of a patient under any of the IDs.

    What contradicts itself is left empty and told (`CohortFacts.conflicts`).
    """
    return unite_cohorts([cohort.read(connection, *key) for key in ids_of(connection, row_id)])
