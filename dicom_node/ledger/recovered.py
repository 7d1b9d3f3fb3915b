"""Runs that the ledger lost, entered again from the reports that were issued of them.

A recovered run stands as reported, or as withdrawn where a rejection note names its report. Its version counts, the
next report names it as predecessor, and its inputs are not reported again; it is never encoded or inferred again.
Reports may be read back in any order, and each as often as it comes. What the ledger knows better stays: a run that was
frozen here, and the tombstone of a patient who was purged.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import exists, insert, select, update

from dicom_node.ledger import deliveries, identity, rejections, runs, withdrawals
from dicom_node.ledger.patients import touch
from dicom_node.ledger.tables import arrival, instance, outbox_object, run
from dicom_node.timeline.model import Inputs, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from dicom_node.priors.own_reports import OwnReport
    from dicom_node.timeline.model import InputSeries

NOT_SAID: Final = ""  # in place of a digest that no report tells
AT_ONCE: Final = 500  # SQLite bounds the variables of one statement
REPORT: Final = "report"
_SUFFIX: Final = "-recovered.dcm"
_READ_BACK: Final = outbox_object.alias()
_IS_RECOVERED: Final = exists().where(
    _READ_BACK.c.run_key == run.c.run_key, _READ_BACK.c.path.endswith(_SUFFIX, autoescape=True)
)


class Recovery(StrEnum):
    """What became of a report that was read back."""

    RECOVERED = "recovered"
    WITHDRAWN = "withdrawn"  # recovered, and a rejection note names it
    KNOWN = "known"
    CONTRADICTS = "contradicts"  # the run of this key is another patient's, or of other inputs: nothing was entered


def enter(connection: Connection, report: OwnReport, *, archive: str, sha256: str, now: datetime) -> Recovery:
    """Enter the run behind a report, unless it is known, and that an archive holds what was issued of it.

    Args:
        connection: a write transaction.
        report: as read back.
        archive: the name of the archive it was fetched from.
        sha256: of the report's bytes, which lie in the outbox under `outbox_name` when this is committed.
        now: tz-aware.
    """
    patient_row = identity.owner_row(connection, report.patient, report.objects[-1].study_instance_uid)
    known = connection.execute(select(run).where(run.c.run_key == report.run_key)).one_or_none()
    lost = known is None or (known.result is None and known.state != RunState.WITHDRAWN)
    if not lost and not _names(connection, report.run_key, report.sop_instance_uid):
        return Recovery.KNOWN
    if known is not None and not _agrees(connection, report, patient_row, known):
        return Recovery.CONTRADICTS
    if lost:
        _enter_run(connection, report, patient_row, is_known=known is not None)
        _enter_objects(connection, report, sha256)
    _enter_delivery(connection, report, archive, now)
    _link(connection, patient_row, report.task)
    withdrawn = withdraw_rejected(connection, patient_row)
    touch(connection, patient_row)
    if not lost:
        return Recovery.KNOWN
    return Recovery.WITHDRAWN if report.run_key in withdrawn else Recovery.RECOVERED


def archive_of(connection: Connection, arrival_id: int) -> str | None:
    """Return the archive that a file was fetched from, None if it was sent to us."""
    found: str | None = connection.scalar(select(arrival.c.fetched_from).where(arrival.c.id == arrival_id))
    return found


def withdraw_rejected(connection: Connection, patient_row: int) -> list[str]:
    """Keep recovered runs withdrawn whose report a rejection note names; return their keys.

    A note that names only an image issued with a report leaves the report standing. What is frozen and not encoded
    follows the report before, as after a withdrawal of our own.
    """
    rejected = rejections.rejected(connection, patient_row)
    query = (
        select(run.c.run_key, outbox_object.c.sop_instance_uid)
        .join(outbox_object, outbox_object.c.run_key == run.c.run_key)
        .where(run.c.patient.in_(identity.rows_of(connection, patient_row)), run.c.state == RunState.REPORTED)
        .where(_IS_RECOVERED, outbox_object.c.kind == REPORT)
    )
    keys = sorted({row.run_key for row in connection.execute(query) if row.sop_instance_uid in rejected})
    for key in keys:
        connection.execute(update(run).where(run.c.run_key == key).values(state=RunState.WITHDRAWN))
    for found in (runs.get(connection, key) for key in keys):
        assert found is not None  # noqa: S101 - changed above, in the same transaction
        withdrawals.pass_over(connection, found)
    if keys:
        touch(connection, patient_row)
    return keys


def outbox_name(report: OwnReport) -> str:
    """Return under which name the bytes of a report that was read back lie in the outbox."""
    return f"{report.run_key}{_SUFFIX}"


def _agrees(connection: Connection, report: OwnReport, patient_row: int, known: Row[Any]) -> bool:
    """Say whether a report speaks of the run that the ledger knows by its key: of its patient, task and inputs."""
    is_theirs = known.patient in identity.rows_of(connection, patient_row)
    return is_theirs and known.task == report.task and _named(Inputs.from_json(known.inputs)) == _named(report.inputs)


def _named(inputs: Inputs) -> list[set[tuple[str, frozenset[str]]]]:
    """Return the roles and instances of each time point: what a report tells of its inputs without loss."""
    return [
        {(one.role.value, frozenset(each.sop_instance_uid for each in one.instances)) for one in point.series}
        for point in inputs.time_points
    ]


def _enter_run(connection: Connection, report: OwnReport, patient_row: int, *, is_known: bool) -> None:
    """Freeze the run as it was issued; of one that was just to be made again, the ledger knows the inputs better."""
    frozen: dict[str, Any] = {
        "state": RunState.REPORTED,
        "result": report.result,
        "version": report.version,
        "issued_at": report.issued_at,
        "encoded_at": report.issued_at,
        "error": None,
    }
    if is_known:
        connection.execute(update(run).where(run.c.run_key == report.run_key).values(**frozen))
        return
    connection.execute(
        insert(run).values(
            run_key=report.run_key,
            patient=patient_row,
            task=report.task,
            stat=False,
            inputs=_with_digests(connection, report.inputs).to_json(),
            inputs_key=NOT_SAID,
            remarks="[]",
            bundle_digest=report.model_digest[:80],
            task_digest=NOT_SAID,
            created_at=report.issued_at,
            rescues=0,
            **frozen,
        )
    )


def _with_digests(connection: Connection, inputs: Inputs) -> Inputs:
    """Add the content digests of the inputs that are held here again: only of these can be told that they are gone."""
    series = [each for point in inputs.time_points for each in point.series]
    digests = _digests(connection, (each.sop_instance_uid for one in series for each in one.instances))

    def known(one: InputSeries) -> InputSeries:
        found = (replace(i, content_digest=digests.get(i.sop_instance_uid, NOT_SAID)) for i in one.instances)
        return replace(one, instances=tuple(found))

    points = (replace(point, series=tuple(known(each) for each in point.series)) for point in inputs.time_points)
    return Inputs(time_points=tuple(points))


def _digests(connection: Connection, uids: Iterable[str]) -> dict[str, str]:
    wanted = sorted(uids)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), AT_ONCE):
        query = select(instance.c.sop_instance_uid, instance.c.content_digest).where(
            instance.c.sop_instance_uid.in_(wanted[start : start + AT_ONCE])
        )
        found |= {row.sop_instance_uid: row.content_digest for row in connection.execute(query)}
    return found


def _enter_objects(connection: Connection, report: OwnReport, sha256: str) -> None:
    """Enter what was issued: the report's bytes are ours again, its images lie in the archive alone."""
    for position, each in enumerate(report.objects):
        is_report = each.sop_instance_uid == report.sop_instance_uid
        entered = runs.OutboxObject(
            position=position,
            kind=each.kind,
            sop_class_uid=each.sop_class_uid,
            sop_instance_uid=each.sop_instance_uid,
            series_instance_uid=each.series_instance_uid,
            study_instance_uid=each.study_instance_uid,
            path=outbox_name(report) if is_report else f"{report.run_key}-{position}-only-in-archive.dcm",
            sha256=sha256 if is_report else NOT_SAID,
        )
        runs.put_object(connection, report.run_key, entered)


def _enter_delivery(connection: Connection, report: OwnReport, archive: str, now: datetime) -> None:
    """Note that an archive holds the report, so that a withdrawal reaches it."""
    if deliveries.get(connection, report.run_key, archive) is not None:
        return
    deliveries.create(connection, report.run_key, [archive], now)
    made = deliveries.get(connection, report.run_key, archive)
    assert made is not None  # noqa: S101 - created above, in the same transaction
    uids = [each.sop_instance_uid for each in report.objects]
    deliveries.begin(connection, made, uids)
    deliveries.settle(connection, made, uids)
    deliveries.remember_class(connection, made, report.objects[-1].sop_class_uid)
    deliveries.sent(connection, made, report.issued_at)


def _link(connection: Connection, patient_row: int, task: str) -> None:
    """Let every recovered run name the report before it, in whatever order they were read back."""
    query = (
        select(run.c.run_key, run.c.version, run.c.predecessor, _IS_RECOVERED.label("recovered"))
        .where(run.c.patient.in_(identity.rows_of(connection, patient_row)), run.c.task == task)
        .where(run.c.version.is_not(None))
        .order_by(run.c.version, run.c.run_key)
    )
    before = None
    for row in connection.execute(query).all():
        if row.recovered and before is not None and row.predecessor != before:
            connection.execute(update(run).where(run.c.run_key == row.run_key).values(predecessor=before))
        before = row.run_key


def _names(connection: Connection, run_key: str, sop_instance_uid: str) -> bool:
    query = select(outbox_object.c.run_key).where(outbox_object.c.sop_instance_uid == sop_instance_uid)
    return connection.scalar(query) == run_key
