"""Whose bytes are old enough to go, what forbids it, and what has to be fetched again once it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, or_, select, update

from dicom_node.ledger import patients
from dicom_node.ledger.arrivals import FIRST_STAYS
from dicom_node.ledger.deliveries import OPEN_STATES as OPEN_DELIVERIES
from dicom_node.ledger.runs import OPEN_STATES as OPEN_RUNS
from dicom_node.ledger.tables import GONE, ArrivalState, arrival, delivery, instance, patient, run, study
from dicom_node.timeline.model import Inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

    from dicom_node.ledger.patients import Patient

AT_ONCE: Final = 500  # SQLite bounds the variables of one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A received file; `path` is relative to the instance folder."""

    arrival_id: int
    sop_instance_uid: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingSeries:
    """A series of which instances are wanted whose bytes aged out or were lost."""

    study_instance_uid: str
    series_instance_uid: str
    instances: int


def patients_with_old_images(connection: Connection, before: datetime) -> list[Patient]:
    """Return the patients of whom a whole study has been here since before a time, and who are decided on."""
    query = (
        _instances()
        .with_only_columns(instance.c.patient)
        .join(patient, patient.c.id == instance.c.patient)
        .where(_old(before), patient.c.revision == patient.c.decided_revision)
        .order_by(None)  # PostgreSQL orders a DISTINCT only by what it selects
        .distinct()
    )
    return [patients.get(connection, row_id) for row_id in sorted(connection.scalars(query))]


def old_images(connection: Connection, row_id: int, before: datetime) -> list[StoredFile]:
    """Return the files behind a patient's instances; a study is as old as the last that was received of it."""
    return _files(connection, _instances().where(_old(before), instance.c.patient == row_id))


def old_leftovers(connection: Connection, before: datetime) -> list[StoredFile]:
    """Return old files that nothing is derived from: second copies, reports, what was set aside.

    A second copy under another ID of its patient is no such file: a person who takes the merge back needs it.
    """
    leftover = or_(
        arrival.c.state.in_((ArrivalState.NOT_AN_INPUT, ArrivalState.SET_ASIDE)),
        and_(arrival.c.state == ArrivalState.DUPLICATE, arrival.c.reason == FIRST_STAYS),
    )
    return _files(connection, _arrivals().where(leftover, arrival.c.received_at < before))


def needed_by_runs(connection: Connection) -> set[str]:
    """Return the instances that runs at work and reports on their way are made of.

    A report on its way may have to be encoded anew, for a patient who was corrected meanwhile.
    """
    on_their_way = select(delivery.c.run_key).where(delivery.c.state.in_(OPEN_DELIVERIES))
    query = select(run.c.inputs).where(or_(run.c.state.in_(OPEN_RUNS), run.c.run_key.in_(on_their_way)))
    return {
        each.sop_instance_uid
        for text in connection.scalars(query)
        for point in Inputs.from_json(text).time_points
        for series in point.series
        for each in series.instances
    }


def contradicted(connection: Connection) -> set[str]:
    """Return the instances that another file contradicts: a person needs both to see who is right."""
    query = select(arrival.c.sop_instance_uid).where(
        or_(
            arrival.c.state == ArrivalState.CONFLICT,
            and_(arrival.c.state == ArrivalState.RECEIVED, arrival.c.reason.is_not(None)),  # one that is read again
        )
    )
    return set(connection.scalars(query))


def age_out(connection: Connection, files: Sequence[StoredFile]) -> None:
    """Note that the bytes of files are given up; once this is committed the files may be deleted, or are at a start."""
    for start in range(0, len(files), AT_ONCE):
        ids = [each.arrival_id for each in files[start : start + AT_ONCE]]
        connection.execute(update(arrival).where(arrival.c.id.in_(ids)).values(state=ArrivalState.AGED_OUT))


def missing_series(connection: Connection, row_id: int, sop_instance_uids: Collection[str]) -> list[MissingSeries]:
    """Return which series of a patient to fetch again, because bytes that are wanted are gone; in order of UID."""
    query = (
        select(instance.c.sop_instance_uid, instance.c.study_instance_uid, instance.c.series_instance_uid)
        .join(arrival, arrival.c.id == instance.c.arrival)
        .where(instance.c.patient == row_id, arrival.c.state.in_(GONE))
    )
    counts: dict[tuple[str, str], int] = {}
    for row in connection.execute(query):
        if row.sop_instance_uid in sop_instance_uids:
            key = (row.study_instance_uid, row.series_instance_uid)
            counts[key] = counts.get(key, 0) + 1
    return [
        MissingSeries(study_instance_uid=study_uid, series_instance_uid=series_uid, instances=count)
        for (study_uid, series_uid), count in sorted(counts.items())
    ]


def _arrivals() -> Select[Any]:
    return select(arrival.c.id, arrival.c.sop_instance_uid, arrival.c.path).order_by(arrival.c.id)


def _instances() -> Select[Any]:
    return (
        _arrivals()
        .join(instance, instance.c.arrival == arrival.c.id)
        .join(study, study.c.study_instance_uid == instance.c.study_instance_uid)
    )


def _old(before: datetime) -> ColumnElement[bool]:
    return and_(
        arrival.c.state == ArrivalState.INDEXED, arrival.c.received_at < before, study.c.last_received_at < before
    )


def _files(connection: Connection, query: Select[Any]) -> list[StoredFile]:
    return [
        StoredFile(arrival_id=row.id, sop_instance_uid=row.sop_instance_uid, path=row.path)
        for row in connection.execute(query)
    ]
