"""The cohort: what the images do not say, kept under (issuer, PatientID) so that it may come before the first image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from dicom_node.ledger.patients import patient_row, survivor, touch
from dicom_node.ledger.tables import audit, cohort_fact
from dicom_node.timeline.model import CohortFacts, Event, Surgery

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the audit: who changed what; `details` holds the fields before and after."""

    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]


def replace(connection: Connection, issuer: str, patient_id: str, facts: CohortFacts) -> bool:
    """Set all cohort facts of a patient; say whether anything changed."""
    if read(connection, issuer, patient_id) == facts:
        return False
    owner = {"issuer": issuer, "patient_id": patient_id}
    connection.execute(
        delete(cohort_fact).where(cohort_fact.c.issuer == issuer, cohort_fact.c.patient_id == patient_id)
    )
    rows: list[dict[str, object]] = []
    rows += [{"kind": "surgery", "day": each.on, "time": each.at, "value": None} for each in facts.surgeries]
    rows += [{"kind": "radiotherapy", "day": day, "time": None, "value": None} for day in facts.radiotherapy]
    rows += [{"kind": "event", "day": each.on, "time": None, "value": each.kind} for each in facts.events]
    if facts.diagnosis:
        rows.append({"kind": "diagnosis", "day": None, "time": None, "value": facts.diagnosis})
    if facts.birth_date:
        rows.append({"kind": "birth-date", "day": facts.birth_date, "time": None, "value": None})
    if rows:
        connection.execute(insert(cohort_fact), [owner | row for row in rows])
    touch(connection, survivor(connection, patient_row(connection, issuer, patient_id)))
    return True


def read(connection: Connection, issuer: str, patient_id: str) -> CohortFacts:
    """Return what is recorded of a patient; empty where nothing is."""
    query = (
        select(cohort_fact)
        .where(cohort_fact.c.issuer == issuer, cohort_fact.c.patient_id == patient_id)
        .order_by(cohort_fact.c.day, cohort_fact.c.id)
    )
    rows = connection.execute(query).all()
    days: dict[str, list[date]] = {}
    for row in rows:
        days.setdefault(row.kind, []).append(row.day)
    return CohortFacts(
        diagnosis=next((row.value for row in rows if row.kind == "diagnosis"), ""),
        surgeries=tuple(Surgery(on=row.day, at=row.time) for row in rows if row.kind == "surgery"),
        radiotherapy=tuple(days.get("radiotherapy", ())),
        events=tuple(Event(on=row.day, kind=row.value) for row in rows if row.kind == "event"),
        birth_date=next(iter(days.get("birth-date", ())), None),
    )


def patients(connection: Connection) -> list[tuple[str, str]]:
    """Return (issuer, PatientID) of everybody in the cohort."""
    query = select(cohort_fact.c.issuer, cohort_fact.c.patient_id).distinct()
    return [(row[0], row[1]) for row in connection.execute(query.order_by("issuer", "patient_id"))]


def changes(connection: Connection, subjects: Collection[str]) -> list[Change]:
    """Return what was changed in the cohort by hand, oldest first; a subject is an ID as `subject` writes it."""
    query = (
        select(audit)
        .where(audit.c.subject.in_(subjects), audit.c.action.like("cohort %"))
        .order_by(audit.c.at, audit.c.id)
    )
    return [
        Change(at=row.at, actor=row.actor, action=row.action, subject=row.subject, details=json.loads(row.details))
        for row in connection.execute(query)
    ]


def subject(issuer: str, patient_id: str) -> str:
    """Return a patient's name in the audit, as an HL7 CX says it."""
    return f"{patient_id}^^^{issuer}"


def write_audit(
    connection: Connection, *, at: datetime, actor: str, action: str, subject: str, details: Mapping[str, object]
) -> None:
    """Keep who changed what by hand. The one place where an identity stands beside an action."""
    connection.execute(
        insert(audit).values(
            at=at, actor=actor, action=action, subject=subject, details=json.dumps(details, sort_keys=True, default=str)
        )
    )
