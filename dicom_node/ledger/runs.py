"""Runs: proposed under their key, frozen once, each encoding made once. A frozen record is never changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from dicom_node.ledger import encodings
from dicom_node.ledger.tables import outbox_object, patient, run
from dicom_node.timeline.model import Inputs, RunFacts, RunState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row, Select

OPEN_STATES = (RunState.QUEUED, RunState.RUNNING)
OTHER_MODEL = "the worker serves another task or model than the node: start both with one configuration, then `retry`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A run that should be done: its key and everything that the key is made of."""

    run_key: str
    patient_row: int
    task: str
    stat: bool
    inputs: Inputs
    inputs_key: str
    remarks: tuple[str, ...]
    bundle_digest: str
    task_digest: str
    requested_by: str | None = None  # the person who ordered it by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as the ledger holds it; `result`, `version`, `issued_at` are None until frozen."""

    run_key: str
    patient_row: int
    issuer: str
    patient_id: str
    task: str
    state: RunState
    stat: bool
    inputs: Inputs
    inputs_key: str
    remarks: tuple[str, ...]
    bundle_digest: str
    task_digest: str
    created_at: datetime
    result: str | None
    version: int | None
    predecessor: str | None
    issued_at: datetime | None
    encoded_at: datetime | None
    error: str | None
    rescues: int
    encoding: int  # the newest, made or to be made
    encodings: Mapping[int, encodings.Encoding]
    requested_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run that is queued or running, as far as the tick needs to know it."""

    run_key: str
    patient_row: int
    task: str
    state: RunState
    stat: bool
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxObject:
    """An encoded object: its bytes lie fsynced at `path` (relative to the outbox) and never change."""

    position: int
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    path: str
    sha256: str
    encoding: int = 1


def propose(connection: Connection, proposal: Proposal, now: datetime) -> bool:
    """Enter a run unless its key is known; say whether it is new."""
    if connection.scalar(select(run.c.run_key).where(run.c.run_key == proposal.run_key)):
        return False
    connection.execute(
        insert(run).values(
            run_key=proposal.run_key,
            patient=proposal.patient_row,
            task=proposal.task,
            state=RunState.QUEUED,
            stat=proposal.stat,
            inputs=proposal.inputs.to_json(),
            inputs_key=proposal.inputs_key,
            remarks=json.dumps(proposal.remarks),
            bundle_digest=proposal.bundle_digest,
            task_digest=proposal.task_digest,
            created_at=now,
            rescues=0,
            requested_by=proposal.requested_by,
        )
    )
    return True


def get(connection: Connection, run_key: str) -> Run | None:
    """Return one run."""
    row = connection.execute(_joined().where(run.c.run_key == run_key)).one_or_none()
    return None if row is None else _run(row)


def starting_with(connection: Connection, prefix: str) -> list[Run]:
    """Return the runs whose key starts with these digits."""
    query = _joined().where(run.c.run_key.startswith(prefix, autoescape=True)).order_by(run.c.run_key)
    return [_run(row) for row in connection.execute(query)]


def note_error(connection: Connection, run_key: str, error: str) -> None:
    """Keep why the latest step broke."""
    connection.execute(update(run).where(run.c.run_key == run_key).values(error=error))


def of_patient(connection: Connection, patient_row: int, task: str | None = None) -> list[Run]:
    """Return a patient's runs, oldest first."""
    query = _joined().where(run.c.patient == patient_row)
    if task is not None:
        query = query.where(run.c.task == task)
    return [_run(row) for row in connection.execute(query.order_by(run.c.created_at, run.c.run_key))]


def following(connection: Connection, run_key: str) -> list[Run]:
    """Return the runs that follow a report and stand, by version."""
    query = _joined().where(run.c.predecessor == run_key, run.c.state != RunState.WITHDRAWN)
    return [_run(row) for row in connection.execute(query.order_by(run.c.version, run.c.run_key))]


def open_of_patient(connection: Connection, patient_row: int) -> list[Run]:
    """Return a patient's runs that are queued or running, oldest first."""
    query = _joined().where(run.c.patient == patient_row, run.c.state.in_(OPEN_STATES))
    return [_run(row) for row in connection.execute(query.order_by(run.c.created_at, run.c.run_key))]


def open_runs(connection: Connection) -> list[OpenRun]:
    """Return runs that are queued or running, urgent ones first, then oldest first."""
    query = (
        select(run.c.run_key, run.c.patient, run.c.task, run.c.state, run.c.stat, run.c.error)
        .where(run.c.state.in_(OPEN_STATES))
        .order_by(run.c.stat.desc(), run.c.created_at, run.c.run_key)
    )
    return [
        OpenRun(
            run_key=row.run_key,
            patient_row=row.patient,
            task=row.task,
            state=RunState(row.state),
            stat=row.stat,
            error=row.error,
        )
        for row in connection.execute(query)
    ]


def locked(connection: Connection, run_key: str) -> Run | None:
    """Return one run, which nobody else changes before this transaction ends."""
    connection.execute(select(run.c.run_key).where(run.c.run_key == run_key).with_for_update())
    return get(connection, run_key)


def take_back(connection: Connection, run_key: str, reason: str | None = None) -> bool:
    """Take back a run of which nothing was issued, with what was frozen of it; say whether that was so.

    A step that is at work on it finds it taken back, or changed, when it wants to commit.
    """
    unissued = (run.c.run_key == run_key) & run.c.state.in_(OPEN_STATES) & run.c.encoded_at.is_(None)
    done = connection.execute(
        update(run)
        .where(unissued, run.c.encoding == 1)
        .values(
            state=RunState.SUPERSEDED,
            error=reason,
            result=None,
            version=None,
            predecessor=None,
            issued_at=None,
            demographics=None,
        )
    )
    return bool(done.rowcount)


def set_state(connection: Connection, run_key: str, state: RunState, error: str | None = None) -> None:
    """Move a run on, with the reason where it failed."""
    connection.execute(update(run).where(run.c.run_key == run_key).values(state=state, error=error))


def freeze(connection: Connection, run_key: str, result: str, now: datetime) -> Run:
    """Freeze result, version, predecessor and time of issue together; a second call changes nothing.

    Returns:
        The run as frozen: what was frozen first stays, whatever a repeated inference says.
    """
    found = _required(connection, run_key)
    if found.result is None:
        issued = _issued(connection, found)
        before = max((each for each in issued if each.state is not RunState.WITHDRAWN), key=_version, default=None)
        connection.execute(
            update(run)
            .where(run.c.run_key == run_key)
            .values(
                result=result,
                version=1 + max((_version(each) for each in issued), default=0),
                predecessor=None if before is None else before.run_key,
                issued_at=now.replace(microsecond=0),
            )
        )
    return _required(connection, run_key)


def standing(connection: Connection, run_key: str | None) -> str | None:
    """Return the key of a report or, where it was withdrawn, of the latest before it that was not."""
    found = get(connection, run_key) if run_key else None
    while found is not None and found.state is RunState.WITHDRAWN:
        found = get(connection, found.predecessor) if found.predecessor else None
    return None if found is None else found.run_key


def pass_over_withdrawn(connection: Connection, found: Run) -> Run:
    """Let a run that is about to be encoded follow no withdrawn report; return it as it then stands."""
    before = standing(connection, found.predecessor)
    if before != found.predecessor:
        connection.execute(update(run).where(run.c.run_key == found.run_key).values(predecessor=before))
    return replace(found, predecessor=before)


def record_objects(connection: Connection, run_key: str, objects: Sequence[OutboxObject], now: datetime) -> None:
    """Note the objects of one encoding of a run, once; if it is the newest, the run stands as reported."""
    encoding = objects[0].encoding
    if objects_of(connection, run_key, encoding):
        return
    for each in objects:
        put_object(connection, run_key, each)
    connection.execute(
        update(run)
        .where(run.c.run_key == run_key, run.c.encoding == encoding)
        .values(state=RunState.REPORTED, encoded_at=now, error=None)
    )


def put_object(connection: Connection, run_key: str, found: OutboxObject) -> None:
    """Enter one object of a run; its bytes lie in the outbox, or of a recovered run in the archive alone."""
    connection.execute(insert(outbox_object).values(run_key=run_key, **asdict(found)))


def objects_of(connection: Connection, run_key: str, encoding: int | None = None) -> list[OutboxObject]:
    """Return the objects of one encoding, the newest made if none is named: images first, the report last."""
    newest = select(func.max(outbox_object.c.encoding)).where(outbox_object.c.run_key == run_key).scalar_subquery()
    query = (
        select(outbox_object)
        .where(outbox_object.c.run_key == run_key)
        .where(outbox_object.c.encoding == (newest if encoding is None else encoding))
        .order_by(outbox_object.c.position)
    )
    return [
        OutboxObject(
            position=row.position,
            kind=row.kind,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            study_instance_uid=row.study_instance_uid,
            path=row.path,
            sha256=row.sha256,
            encoding=row.encoding,
        )
        for row in connection.execute(query)
    ]


def count_rescue(connection: Connection, run_key: str) -> int:
    """Note that a run was taken from a dead worker; return how often that has happened."""
    connection.execute(update(run).where(run.c.run_key == run_key).values(rescues=run.c.rescues + 1))
    return connection.scalar(select(run.c.rescues).where(run.c.run_key == run_key)) or 0


def counts_by_state(connection: Connection) -> dict[str, int]:
    """Count runs by state."""
    return {row[0]: row[1] for row in connection.execute(select(run.c.state, func.count()).group_by(run.c.state))}


def facts(found: Run) -> RunFacts:
    """Reduce a run to what a decision needs to know."""
    series = [each for point in found.inputs.time_points for each in point.series]
    studies = tuple(dict.fromkeys(uid for point in found.inputs.time_points for uid in point.studies))
    return RunFacts(
        run_key=found.run_key,
        inputs_key=found.inputs_key,
        task=found.task,
        state=found.state,
        version=found.version or 0,
        time_points=found.inputs.dates,
        studies=studies,
        bundle_digest=found.bundle_digest,
        task_digest=found.task_digest,
        issued_at=found.issued_at,
        error=found.error or "",
        instances=frozenset(  # a run that was read back from its report knows the content only of what was here then
            instance.sop_instance_uid for each in series for instance in each.instances if instance.content_digest
        ),
    )


def _issued(connection: Connection, new: Run) -> list[Run]:
    """Return the reports before this one, also those being encoded anew, and those withdrawn: numbers stay used."""
    return [
        each
        for each in of_patient(connection, new.patient_row, new.task)
        if (each.state in {RunState.REPORTED, RunState.WITHDRAWN} or each.encoding > 1) and each.run_key != new.run_key
    ]


def _version(found: Run) -> int:
    return found.version or 0


def _required(connection: Connection, run_key: str) -> Run:
    found = get(connection, run_key)
    if found is None:
        msg = f"run {run_key[:12]} is not in the ledger"
        raise LookupError(msg)
    return found


def _joined() -> Select[Any]:
    return select(run, patient.c.issuer, patient.c.patient_id).join(patient, patient.c.id == run.c.patient)


def _run(row: Row[Any]) -> Run:
    return Run(
        run_key=row.run_key,
        patient_row=row.patient,
        issuer=row.issuer,
        patient_id=row.patient_id,
        task=row.task,
        state=RunState(row.state),
        stat=row.stat,
        inputs=Inputs.from_json(row.inputs),
        inputs_key=row.inputs_key,
        remarks=tuple(json.loads(row.remarks)),
        bundle_digest=row.bundle_digest,
        task_digest=row.task_digest,
        created_at=row.created_at,
        result=row.result,
        version=row.version,
        predecessor=row.predecessor,
        issued_at=row.issued_at,
        encoded_at=row.encoded_at,
        error=row.error,
        rescues=row.rescues,
        encoding=row.encoding,
        encodings=encodings.from_json(row.demographics),
        requested_by=row.requested_by,
    )
