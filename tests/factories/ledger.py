"""A ledger fed with facts, as if files had come from a scanner and been read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from dicom_node.ledger import arrivals, runs
from dicom_node.ledger.tables import ArrivalState, arrival, instance
from dicom_node.timeline.model import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from dicom_node.timeline.model import InstanceFacts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_proposal(run_key: str, *, patient_row: int = 1, stat: bool = False) -> runs.Proposal:
    """Return a run of the main task on no scans, for tests of what happens around one."""
    return runs.Proposal(
        run_key=run_key,
        patient_row=patient_row,
        task="glioma-recurrence",
        stat=stat,
        inputs=Inputs(time_points=()),
        inputs_key=run_key,
        remarks=(),
        bundle_digest="sha256:b",
        task_digest="sha256:t",
    )


def arrive(ledger: Connection, facts: InstanceFacts, at: datetime = NOW) -> ArrivalState:
    """Take in one instance; return what became of it."""
    number = ledger.scalar(select(func.max(arrival.c.id))) or 0
    arrivals.record(
        ledger,
        arrivals.Arrival(
            sop_instance_uid=facts.sop_instance_uid,
            sop_class_uid=facts.sop_class_uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=f"{number}.dcm",
            size_bytes=1,
            calling_ae_title="SCANNER",
            default_issuer=facts.patient.issuer,
            stat=False,
            received_at=at,
        ),
    )
    newest = ledger.scalar(select(func.max(arrival.c.id)))
    assert newest is not None
    return arrivals.index(ledger, newest, facts)


def arrive_all(ledger: Connection, facts: Iterable[InstanceFacts], at: datetime = NOW) -> None:
    """Take in many instances."""
    for each in facts:
        arrive(ledger, each, at)


def read_again(ledger: Connection, sent: Iterable[InstanceFacts]) -> list[ArrivalState]:
    """Do what the indexer does with files that wait to be read, knowing what was in them; oldest first."""
    by_uid: dict[str, list[InstanceFacts]] = {}
    for each in sent:
        by_uid.setdefault(each.sop_instance_uid, []).append(each)
    return [
        arrivals.index(ledger, each.arrival_id, by_uid[each.sop_instance_uid][-1])
        for each in arrivals.pending(ledger, 1000)
    ]


def owners(ledger: Connection) -> dict[str, int]:
    """Return SOP Instance UID -> the row of its patient."""
    return {row[0]: row[1] for row in ledger.execute(select(instance.c.sop_instance_uid, instance.c.patient))}
