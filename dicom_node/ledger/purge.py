"""Forget a patient: facts, results and reports go; bare keys stay, to keep wrong things from happening again.

An issued run stays as a tombstone: its key, version and time, without inputs, result or demographics, so that no run
of these inputs is ever issued again. With it stay the patient's IDs, which of them are one patient, studies given to
the patient by hand, and the UIDs that rejection notes named: without these, images that are sent again could end in
another human's time line, or be used though they were taken back. Audit records stay. If there is none of this, the
patient's row goes as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, delete, exists, or_, select, tuple_, update

from dicom_node.ledger import identity
from dicom_node.ledger.deliveries import OPEN_STATES as OPEN_DELIVERIES
from dicom_node.ledger.ownership import READ_AGAIN
from dicom_node.ledger.patients import touch
from dicom_node.ledger.retention import AT_ONCE, StoredFile
from dicom_node.ledger.runs import OPEN_STATES as OPEN_RUNS
from dicom_node.ledger.tables import (
    ArrivalState,
    PriorState,
    accepted_value,
    arrival,
    case,
    case_order,
    cohort_fact,
    commitment,
    delivery,
    handed_over,
    instance,
    outbox_object,
    patient,
    patient_alias,
    patient_statement,
    prior_lookup,
    prior_series,
    prior_study,
    rejected_instance,
    run,
    study,
    study_owner,
    withdrawal,
)
from dicom_node.timeline.model import Inputs, RunState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

NOTHING: Final = Inputs(time_points=()).to_json()
ISSUED: Final = or_(run.c.encoded_at.is_not(None), run.c.state == RunState.WITHDRAWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What is kept of a patient: `rows` are those of all IDs, the surviving one first."""

    rows: tuple[int, ...]
    files: tuple[StoredFile, ...]
    run_keys: tuple[str, ...]
    reports: tuple[str, ...]  # SOP Instance UIDs of issued reports, which the archives go on holding


@dataclass(frozen=True, slots=True, kw_only=True)
class Unattributed:
    """A file of which the ledger does not know whose it is, since nothing was read of it but that it is no input."""

    file: StoredFile
    default_issuer: str


def belongings(connection: Connection, row_id: int) -> Belongings:
    """Return what is kept of a patient under any of the IDs."""
    rows = tuple(identity.rows_of(connection, row_id))
    query = select(arrival.c.id, arrival.c.sop_instance_uid, arrival.c.path).where(_arrived(rows))
    in_another_class = outbox_object.c.kind.startswith("report")
    somewhere = exists().where(handed_over.c.sop_instance_uid == outbox_object.c.sop_instance_uid)
    reports = (
        select(outbox_object.c.sop_instance_uid)
        .join(run, run.c.run_key == outbox_object.c.run_key)
        .where(run.c.patient.in_(rows), or_(outbox_object.c.kind == "report", and_(in_another_class, somewhere)))
    )
    return Belongings(
        rows=rows,
        files=tuple(
            StoredFile(arrival_id=row.id, sop_instance_uid=row.sop_instance_uid, path=row.path)
            for row in connection.execute(query.order_by(arrival.c.id))
        ),
        run_keys=tuple(connection.scalars(select(run.c.run_key).where(run.c.patient.in_(rows)).order_by("run_key"))),
        reports=tuple(connection.scalars(reports.order_by("sop_instance_uid"))),
    )


def unattributed(connection: Connection) -> list[Unattributed]:
    """Return the files whose patient the ledger does not know."""
    query = select(arrival).where(
        arrival.c.patient.is_(None), arrival.c.state.in_((ArrivalState.NOT_AN_INPUT, ArrivalState.SET_ASIDE))
    )
    return [
        Unattributed(
            file=StoredFile(arrival_id=row.id, sop_instance_uid=row.sop_instance_uid, path=row.path),
            default_issuer=row.default_issuer,
        )
        for row in connection.execute(query.order_by(arrival.c.id))
    ]


def obstacles(connection: Connection, rows: Sequence[int]) -> list[str]:
    """Say what must end first: work that would go on without its facts, or bring them back."""
    found = []
    open_runs = connection.scalars(select(run.c.run_key).where(run.c.patient.in_(rows), run.c.state.in_(OPEN_RUNS)))
    found += [f"run {key[:12]} is queued or running" for key in open_runs]
    on_their_way = (
        select(delivery.c.run_key, delivery.c.destination)
        .join(run, run.c.run_key == delivery.c.run_key)
        .where(run.c.patient.in_(rows), delivery.c.state.in_(OPEN_DELIVERIES))
    )
    found += [f"report {row[0][:12]} is on its way to {row[1]}" for row in connection.execute(on_their_way)]
    fetching = select(prior_series.c.pacs).where(
        prior_series.c.patient.in_(rows),
        prior_series.c.state == PriorState.WANTED,
        prior_series.c.started_at >= prior_series.c.next_attempt_at,
    )
    found += [f"older studies are being fetched from {name}" for name in sorted(set(connection.scalars(fetching)))]
    return found


def forget(connection: Connection, leaving: Belongings, at: datetime) -> int:
    """Delete everything of a patient but bare keys, and have what contradicted it compared again.

    Args:
        connection: a write transaction in which there are no `obstacles`.
        leaving: what to forget.
        at: now.

    Returns:
        How many issued runs stay as tombstones.
    """
    rows = leaving.rows
    _forget_runs(connection, rows)
    _free_others(connection, rows, at)
    _forget_received(connection, leaving)
    keys = [tuple(each) for each in identity.ids_of(connection, rows[0])]
    for by_key in (cohort_fact, patient_statement):
        connection.execute(delete(by_key).where(tuple_(by_key.c.issuer, by_key.c.patient_id).in_(keys)))
    for table in (case, case_order, accepted_value, prior_series, prior_study):
        connection.execute(delete(table).where(table.c.patient.in_(rows)))
    told = [exists().where(each.c.lookup == prior_lookup.c.id) for each in (prior_series, prior_study)]
    connection.execute(delete(prior_lookup).where(prior_lookup.c.patient.in_(rows), ~or_(*told)))
    _forget_row(connection, rows)
    return len(connection.scalars(select(run.c.run_key).where(run.c.patient.in_(rows))).all())


def _arrived(rows: Sequence[int]) -> ColumnElement[bool]:
    held = select(instance.c.arrival).where(instance.c.patient.in_(rows))
    return or_(arrival.c.patient.in_(rows), arrival.c.id.in_(held))


def _forget_runs(connection: Connection, rows: Sequence[int]) -> None:
    """Delete what was made: of issued runs all but key, version and time, of others everything."""
    theirs = select(run.c.run_key).where(run.c.patient.in_(rows))
    for table in (delivery, commitment, withdrawal, handed_over, outbox_object):
        connection.execute(delete(table).where(table.c.run_key.in_(theirs)))
    connection.execute(delete(run).where(run.c.patient.in_(rows), ~ISSUED))
    connection.execute(
        update(run)
        .where(run.c.patient.in_(rows))
        .values(state=RunState.WITHDRAWN, inputs=NOTHING, remarks="[]", result=None, demographics=None, error=None)
    )


def _free_others(connection: Connection, rows: Sequence[int], at: datetime) -> None:
    """Have other patients' files read again that contradicted an instance which is forgotten now."""
    held = select(instance.c.sop_instance_uid).where(instance.c.patient.in_(rows))
    others = and_(arrival.c.state == ArrivalState.CONFLICT, arrival.c.patient.not_in(rows))
    connection.execute(
        update(arrival)
        .where(others, arrival.c.sop_instance_uid.in_(held))
        .values(state=ArrivalState.RECEIVED, reason=READ_AGAIN, tries=0, received_at=at)
    )


def _forget_received(connection: Connection, leaving: Belongings) -> None:
    rows = leaving.rows
    ids = [each.arrival_id for each in leaving.files]
    connection.execute(delete(instance).where(instance.c.patient.in_(rows)))
    for start in range(0, len(ids), AT_ONCE):
        connection.execute(delete(arrival).where(arrival.c.id.in_(ids[start : start + AT_ONCE])))
    shared = select(instance.c.patient).where(instance.c.study_instance_uid == study.c.study_instance_uid).limit(1)
    given = update(study).where(study.c.patient.in_(rows), shared.exists())
    connection.execute(given.values(patient=shared.scalar_subquery()))
    connection.execute(delete(study).where(study.c.patient.in_(rows)))


def _forget_row(connection: Connection, rows: Sequence[int]) -> None:
    """Delete the patient's rows and aliases, unless a bare key is kept under one of them."""
    for table in (run, study_owner, rejected_instance, prior_lookup):
        if connection.scalar(select(exists().where(table.c.patient.in_(rows)))):
            for row_id in rows:
                touch(connection, row_id)
            return
    connection.execute(delete(patient_alias).where(patient_alias.c.patient.in_(rows)))
    connection.execute(delete(patient).where(patient.c.id.in_(rows)))
