"""Cases: (patient, task), always in one visible state with its reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select

from dicom_node.ledger.tables import CaseState, case, run
from dicom_node.timeline.model import Reason

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

IN_DOUBT: Final = frozenset({"held-by-hand", "identity-conflict", "identity-name", "instance-conflict"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Where one task stands for one patient, and why."""

    patient_row: int
    task: str
    state: CaseState
    reasons: tuple[Reason, ...]
    decided_at: datetime
    run_key: str | None = None


def set_case(connection: Connection, new: Case) -> bool:
    """Write the state of a case; say whether state or reasons changed."""
    old = get(connection, new.patient_row, new.task)
    if old is not None and (old.state, old.reasons, old.run_key) == (new.state, new.reasons, new.run_key):
        return False
    connection.execute(delete(case).where(case.c.patient == new.patient_row, case.c.task == new.task))
    connection.execute(
        insert(case).values(
            patient=new.patient_row,
            task=new.task,
            state=new.state,
            reasons=json.dumps([{"code": each.code, "text": each.text} for each in new.reasons]),
            decided_at=new.decided_at,
            run_key=new.run_key,
        )
    )
    return True


def pauses(connection: Connection, run_key: str) -> bool:
    """Say whether the report of a run may not go out now: a person must act first, or the case is over or not one."""
    query = (
        select(case)
        .join(run, (run.c.patient == case.c.patient) & (run.c.task == case.c.task))
        .where(run.c.run_key == run_key)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return False
    found = _case(row)
    if found.state is CaseState.HELD:
        return any(reason.code in IN_DOUBT for reason in found.reasons)
    return found.state in {CaseState.INELIGIBLE, CaseState.ENDED}


def forget(connection: Connection, patient_row: int) -> None:
    """Drop the cases of a patient of whom nothing is held any more, as after a merge."""
    connection.execute(delete(case).where(case.c.patient == patient_row))


def get(connection: Connection, patient_row: int, task: str) -> Case | None:
    """Return one case."""
    query = select(case).where(case.c.patient == patient_row, case.c.task == task)
    row = connection.execute(query).one_or_none()
    return None if row is None else _case(row)


def of_patient(connection: Connection, patient_row: int) -> list[Case]:
    """Return a patient's cases in order of task."""
    query = select(case).where(case.c.patient == patient_row).order_by(case.c.task)
    return [_case(row) for row in connection.execute(query)]


def _case(row: Row[Any]) -> Case:
    return Case(
        patient_row=row.patient,
        task=row.task,
        state=CaseState(row.state),
        reasons=tuple(Reason(**each) for each in json.loads(row.reasons)),
        decided_at=row.decided_at,
        run_key=row.run_key,
    )
