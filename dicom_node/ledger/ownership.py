"""Derive anew who owns what, after somebody said something of identities: one function, the same for every change.

Nothing is decided here but ownership. What instances say stays as it was read; rows follow their owner; open runs of
patients whose scans changed are taken back; everybody concerned is touched, so that the cases are decided anew.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, exists, select, update

from dicom_node.ledger import arrivals, deliveries, runs
from dicom_node.ledger.identity import owner_row
from dicom_node.ledger.patients import survivor, touch
from dicom_node.ledger.tables import (
    ArrivalState,
    arrival,
    case,
    instance,
    prior_series,
    prior_study,
    run,
    study,
)
from dicom_node.timeline.model import PatientFacts, RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy import Connection, Table

BATCH: Final = 500  # SQLite bounds the variables of one statement
TAKEN_BACK: Final = "the patient's identities changed before it was issued"
MIXED: Final = "its scans are no longer one patient's"
READ_AGAIN: Final = "to be compared again: the identities of its patient changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What changed hands. `mixed` are issued reports whose inputs are no longer one patient's: a person must act.

    What of them was not sent yet will not be.
    """

    instances: int = 0
    studies: int = 0
    superseded: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()


@dataclass(slots=True)
class _Moves:
    """Where instances and studies of the patients concerned belong now."""

    instances: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))  # new owner -> moved UIDs
    studies: dict[str, int] = field(default_factory=dict)  # study UID -> owner of its first instance
    changed: set[int] = field(default_factory=set)  # patients who gave or got instances


def derive_owners(connection: Connection, concerned: Collection[int], at: datetime) -> Derived:
    """Bring the owners of everything that belonged to some patients up to date.

    Args:
        connection: a write transaction, the one in which the change was entered.
        concerned: the patients who stood for these identities before the change; who stands for them now follows.
        at: now; a file that has to be compared again counts as received at this time, so that no decision is made
            as of a time long past.
    """
    moves = _scan(connection, concerned)
    for owner, uids in moves.instances.items():
        for start in range(0, len(uids), BATCH):
            chosen = instance.c.sop_instance_uid.in_(uids[start : start + BATCH])
            connection.execute(update(instance).where(chosen).values(patient=owner))
    studies = _move_studies(connection, concerned, moves)
    affected = {*concerned, *moves.changed, *(survivor(connection, each) for each in concerned)}
    _compare_again(connection, affected, at)
    _move_followers(connection, concerned, affected)
    superseded, mixed = _move_runs(connection, concerned, moves, at)
    connection.execute(
        delete(case).where(case.c.patient.in_(affected), ~exists().where(instance.c.patient == case.c.patient))
    )
    for each in sorted(affected):
        touch(connection, each)
    return Derived(
        instances=sum(map(len, moves.instances.values())), studies=studies, superseded=superseded, mixed=mixed
    )


def _scan(connection: Connection, concerned: Collection[int]) -> _Moves:
    """Ask for every instance of the patients concerned whose it is now."""
    query = (
        select(instance.c.sop_instance_uid, instance.c.study_instance_uid, instance.c.patient, instance.c.facts)
        .where(instance.c.patient.in_(concerned))
        .order_by(instance.c.arrival)
    )
    moves = _Moves()
    owners: dict[tuple[str, str, str], int] = {}
    for row in connection.execute(query).all():
        said = PatientFacts(**json.loads(row.facts)["patient"])
        named = (*said.key, row.study_instance_uid)
        if named not in owners:
            owners[named] = owner_row(connection, said, row.study_instance_uid)
        owner = owners[named]
        moves.studies.setdefault(row.study_instance_uid, owner)
        if owner != row.patient:
            moves.instances[owner].append(row.sop_instance_uid)
            moves.changed |= {owner, row.patient}
    return moves


def _move_studies(connection: Connection, concerned: Collection[int], moves: _Moves) -> int:
    query = select(study.c.study_instance_uid, study.c.patient).where(study.c.patient.in_(concerned))
    moved = 0
    for row in connection.execute(query).all():
        owner = moves.studies.get(row.study_instance_uid) or survivor(connection, row.patient)
        if owner != row.patient:
            moved += 1
            chosen = study.c.study_instance_uid == row.study_instance_uid
            connection.execute(update(study).where(chosen).values(patient=owner))
    return moved


def _compare_again(connection: Connection, affected: Iterable[int], at: datetime) -> None:
    """Have files read again whose verdict hung on whose they are: what contradicted may now be a duplicate, or not."""
    held = select(instance.c.sop_instance_uid).where(instance.c.patient.in_(affected))
    hung_on_owner = (arrival.c.state == ArrivalState.CONFLICT) | (arrival.c.reason == arrivals.UNDER_ANOTHER_ID)
    connection.execute(
        update(arrival)
        .where(hung_on_owner, arrival.c.patient.in_(affected) | arrival.c.sop_instance_uid.in_(held))
        .values(state=ArrivalState.RECEIVED, reason=READ_AGAIN, tries=0, received_at=at)
    )


def _move_followers(connection: Connection, concerned: Collection[int], affected: Iterable[int]) -> None:
    """Move the rows that belong to an instance or a study with it, and the rest with the ID they stand under.

    What rejection notes name stays with the ID that the note carries: for whom it counts is derived.
    """
    for owner in affected:
        held = select(instance.c.sop_instance_uid).where(instance.c.patient == owner)
        studies = select(study.c.study_instance_uid).where(study.c.patient == owner)
        _give(connection, arrival, owner, arrival.c.patient.in_(concerned) & arrival.c.sop_instance_uid.in_(held))
        for table in (prior_study, prior_series):
            _give(connection, table, owner, table.c.patient.in_(concerned) & table.c.study_instance_uid.in_(studies))
        files = arrival.c.patient.in_(concerned) & arrival.c.study_instance_uid.in_(studies)
        known = select(instance.c.sop_instance_uid).where(instance.c.sop_instance_uid == arrival.c.sop_instance_uid)
        _give(connection, arrival, owner, files & ~known.exists())
    for each in concerned:
        standing = survivor(connection, each)
        if standing != each:
            for table in (arrival, prior_study, prior_series):
                _give(connection, table, standing, table.c.patient == each)


def _give(connection: Connection, table: Table, owner: int, chosen: object) -> None:
    connection.execute(update(table).where(chosen).values(patient=owner))  # type: ignore[arg-type] # a SQL expression


def _move_runs(
    connection: Connection, concerned: Collection[int], moves: _Moves, at: datetime
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Move runs to the owner of the study their report stands in; take back what must not go on.

    An open run of a patient whose scans changed is taken back, also with a frozen result: nothing of it was issued, and
    what it saw is not this patient's history any more. One that was issued before, and is open
    only to be encoded anew, goes on. What was made from scans of several patients is sent to nobody any more.
    """
    superseded, mixed = [], []
    for row_id in concerned:
        for each in runs.of_patient(connection, row_id):
            owners = _input_owners(connection, each, row_id)
            owner = owners[-1]
            if owner != row_id:
                connection.execute(update(run).where(run.c.run_key == each.run_key).values(patient=owner))
            issued = bool(runs.objects_of(connection, each.run_key))
            is_open = each.state in runs.OPEN_STATES
            if is_open and not issued and (owner != row_id or {owner, row_id} & moves.changed):
                runs.take_back(connection, each.run_key, TAKEN_BACK)
                superseded.append(each.run_key)
            elif issued and len(set(owners)) > 1 and (is_open or each.state is RunState.REPORTED):
                _stop(connection, each.run_key, at)
                mixed.append(each.run_key)
    return tuple(superseded), tuple(mixed)


def _input_owners(connection: Connection, found: runs.Run, otherwise: int) -> list[int]:
    """Return whose the input studies of a run are, the newest last: that is the one its report stands in."""
    studies = [series.study_instance_uid for point in found.inputs.time_points for series in point.series]
    query = select(study.c.study_instance_uid, study.c.patient).where(study.c.study_instance_uid.in_(studies))
    owners = {row.study_instance_uid: row.patient for row in connection.execute(query)}
    standing = survivor(connection, otherwise)
    return [owners.get(uid, standing) for uid in studies] or [standing]


def _stop(connection: Connection, run_key: str, at: datetime) -> None:
    """Send an issued report to nobody else, and encode it no more: it stands where it was sent."""
    deliveries.stop_all(connection, run_key, error=MIXED)
    connection.execute(
        update(run)
        .where(run.c.run_key == run_key, run.c.state.in_(runs.OPEN_STATES))
        .values(state=RunState.REPORTED, encoded_at=at)
    )
