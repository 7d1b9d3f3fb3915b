"""What an admin surveys: counts, and lists page by page. No question here reads more than a bounded number of rows.

Only the counts of files go through an index of all files; who asks often keeps the answer for some seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from dicom_node.ledger import cases, cohort, deliveries
from dicom_node.ledger.patients import Patient
from dicom_node.ledger.presence import FAILED_LOGIN
from dicom_node.ledger.tables import (
    CaseState,
    DeliveryState,
    LookupState,
    arrival,
    audit,
    case,
    delivery,
    executor,
    patient,
    prior_lookup,
    refusal,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection, Row, Select

RECENT_FILES: Final = 50_000  # so far back the latest file of each peer is looked for
MOST_REFUSED: Final = 20
ATTENTION: Final = (CaseState.FAILED, CaseState.HELD)  # states in which a case needs a person


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOf:
    """A case, and whose it is."""

    patient: Patient
    case: cases.Case


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOf:
    """A delivery, its task, and whose report it is."""

    patient: Patient
    task: str
    delivery: deliveries.Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealings:
    """What passed between us and one archive."""

    last_sent_at: datetime | None = None
    last_answer_at: datetime | None = None  # to a question about priors
    oldest_open_at: datetime | None = None  # first attempt of the oldest report that waits to be sent
    last_error: str | None = None  # of what is open or dead
    counts: dict[str, int]  # deliveries by state
    open_lookups: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What one peer sent of the most recent files."""

    calling_ae_title: str
    last_received_at: datetime
    files: int


def case_counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Count cases by (task, state)."""
    query = select(case.c.task, case.c.state, func.count()).group_by(case.c.task, case.c.state)
    return {(row[0], row[1]): row[2] for row in connection.execute(query.order_by(case.c.task, case.c.state))}


def case_page(
    connection: Connection, *, states: Sequence[str] = (), task: str | None = None, start: int = 0, limit: int = 100
) -> list[CaseOf]:
    """Return some cases with their patients, those decided latest first."""
    query = select(
        case.c.patient,
        case.c.task,
        patient.c.issuer,
        patient.c.patient_id,
        patient.c.revision,
    ).join(patient, patient.c.id == case.c.patient)
    if states:
        query = query.where(case.c.state.in_(states))
    if task is not None:
        query = query.where(case.c.task == task)
    order = (case.c.decided_at.desc(), case.c.patient, case.c.task)
    found = []
    for row in connection.execute(query.order_by(*order).offset(start).limit(limit)):
        whose = Patient(row_id=row.patient, issuer=row.issuer, patient_id=row.patient_id, revision=row.revision)
        one = cases.get(connection, row.patient, row.task)
        assert one is not None  # noqa: S101 - read in the same snapshot
        found.append(CaseOf(patient=whose, case=one))
    return found


def delivery_page(
    connection: Connection, *, states: Sequence[str] = (), start: int = 0, limit: int = 100
) -> list[DeliveryOf]:
    """Return some deliveries, the newest reports first."""
    query = (
        select(delivery.c.run_key, delivery.c.destination, run.c.task, patient)
        .join(run, run.c.run_key == delivery.c.run_key)
        .join(patient, patient.c.id == run.c.patient)
    )
    if states:
        query = query.where(delivery.c.state.in_(states))
    order = (run.c.created_at.desc(), delivery.c.run_key, delivery.c.destination)
    found = []
    for row in connection.execute(query.order_by(*order).offset(start).limit(limit)):
        one = deliveries.get(connection, row.run_key, row.destination)
        assert one is not None  # noqa: S101 - read in the same snapshot
        found.append(DeliveryOf(patient=_patient(row), task=row.task, delivery=one))
    return found


def dealings(connection: Connection, pacs: str) -> Dealings:
    """Return what passed between us and one archive."""
    of_archive = delivery.c.destination == pacs
    counts = select(delivery.c.state, func.count()).where(of_archive).group_by(delivery.c.state)
    waiting = delivery.c.state.in_(deliveries.OPEN_STATES)
    troubled = delivery.c.state.in_((DeliveryState.RETRYING, DeliveryState.DEAD)) & delivery.c.error.is_not(None)
    asked = prior_lookup.c.pacs == pacs
    return Dealings(
        last_sent_at=_scalar(connection, select(func.max(delivery.c.sent_at)).where(of_archive)),
        last_answer_at=_scalar(
            connection,
            select(func.max(prior_lookup.c.finished_at)).where(asked, prior_lookup.c.state == LookupState.DONE),
        ),
        oldest_open_at=_scalar(connection, select(func.min(delivery.c.first_attempt_at)).where(of_archive, waiting)),
        last_error=_scalar(
            connection,
            select(delivery.c.error).where(of_archive, troubled).order_by(delivery.c.first_attempt_at.desc()).limit(1),
        ),
        counts={row[0]: row[1] for row in connection.execute(counts)},
        open_lookups=_scalar(
            connection,
            select(func.count()).select_from(prior_lookup).where(asked, prior_lookup.c.state == LookupState.OPEN),
        ),
    )


def executors(connection: Connection) -> dict[str, datetime]:
    """Return executor -> when it was last heard of; one that was silent for long is no longer among them."""
    query = select(executor).order_by(executor.c.executor_id)
    return {row.executor_id: row.last_seen for row in connection.execute(query)}


def receptions(connection: Connection) -> list[Reception]:
    """Return who sent the most recent files, the latest first; what we fetched ourselves is not among them."""
    newest = connection.scalar(select(func.max(arrival.c.id))) or 0
    last, count = func.max(arrival.c.received_at).label("last"), func.count().label("files")
    query = (
        select(arrival.c.calling_ae_title, last, count)
        .where(arrival.c.id > newest - RECENT_FILES, arrival.c.fetched_from.is_(None))
        .group_by(arrival.c.calling_ae_title)
        .order_by(last.desc())
    )
    return [
        Reception(calling_ae_title=row.calling_ae_title, last_received_at=row.last, files=row.files)
        for row in connection.execute(query)
    ]


def refusals(connection: Connection) -> list[dict[str, Any]]:
    """Return the callers that were refused lately, the latest first."""
    query = select(refusal).order_by(refusal.c.last_at.desc()).limit(MOST_REFUSED)
    return [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001 - public row mapping


def refused_in_all(connection: Connection) -> int:
    """Count the associations and connections that were ever refused; logins are counted by the page itself."""
    query = select(func.sum(refusal.c.count)).where(refusal.c.reason != FAILED_LOGIN)
    return int(connection.scalar(query) or 0)


def patient_of_row(connection: Connection, row_id: int) -> Patient | None:
    """Return the patient of a row, None where there is no such row."""
    row = connection.execute(select(patient).where(patient.c.id == row_id)).one_or_none()
    return None if row is None else _patient(row)


def patients_after(connection: Connection, row_id: int) -> list[Patient]:
    """Return the patients that were heard of after the one of this row."""
    query = select(patient).where(patient.c.id > row_id).order_by(patient.c.id)
    return [_patient(row) for row in connection.execute(query)]


def orders_about(connection: Connection, subjects: Collection[str]) -> list[cohort.Change]:
    """Return what was done by hand about these subjects, the latest first."""
    query = select(audit).where(audit.c.subject.in_(subjects))
    return [
        cohort.Change(
            at=row.at, actor=row.actor, action=row.action, subject=row.subject, details=json.loads(row.details)
        )
        for row in connection.execute(query.order_by(audit.c.at.desc(), audit.c.id.desc()))
    ]


def _patient(row: Row[Any]) -> Patient:
    return Patient(row_id=row.id, issuer=row.issuer, patient_id=row.patient_id, revision=row.revision)


def _scalar(connection: Connection, query: Select[Any]) -> Any:
    return connection.scalar(query)
