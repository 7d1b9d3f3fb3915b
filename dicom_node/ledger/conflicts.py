"""The way out where files contradict an instance held: a person says which of them count.

`old` keeps what is held and lays the others aside. `new` lets the newest take the place of the instance: it is read
again, where a crash is harmless, and `arrivals.index` enters it in place of the one held.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import or_, select, update

from dicom_node.ledger import identity
from dicom_node.ledger.arrivals import ACCEPTED_AS_NEW
from dicom_node.ledger.cohort import subject, write_audit
from dicom_node.ledger.patients import survivor, touch
from dicom_node.ledger.tables import ArrivalState, arrival, instance

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from dicom_node.ledger.identity_changes import By

KEPT_OLD: Final = "a person kept the instance held, which it contradicts"
NEWER_TAKEN: Final = "a person took a newer file in place of the instance held, which it contradicts"


class Choice(StrEnum):
    """Which of contradicting files count."""

    OLD = "old"
    NEW = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a choice came to: instances decided on, files laid aside, files to be read again."""

    instances: int
    laid_aside: int
    to_read: int


def settle(connection: Connection, row_id: int, choice: Choice, by: By) -> Settled:
    """Decide on every file that contradicts an instance of a patient, or names the patient and contradicts another's.

    Args:
        connection: a write transaction.
        row_id: the patient.
        choice: what counts.
        by: who decides; a file to be read again counts as received at this time, as after every change of identities.
    """
    newest: dict[str, int] = {}  # SOP Instance UID -> arrival
    found = _contradicting(connection, row_id)
    for each in found:
        newest[each.sop_instance_uid] = each.id
    taken = set(newest.values()) if choice is Choice.NEW else set()
    again = {"state": ArrivalState.RECEIVED, "reason": ACCEPTED_AS_NEW, "tries": 0, "received_at": by.at}
    aside = {"state": ArrivalState.SET_ASIDE, "reason": NEWER_TAKEN if choice is Choice.NEW else KEPT_OLD}
    for each in found:
        values = again if each.id in taken else aside
        connection.execute(update(arrival).where(arrival.c.id == each.id).values(**values))
    if found:
        _note(connection, row_id, {"instances": choice, "sop_instance_uids": sorted(newest)}, by)
        for owner in sorted({row_id, *(row for each in found for row in (each.says, each.held_by) if row is not None)}):
            touch(connection, survivor(connection, owner))
    return Settled(instances=len(newest), laid_aside=len(found) - len(taken), to_read=len(taken))


def _contradicting(connection: Connection, row_id: int) -> list[Row[tuple[int, str, int, int]]]:
    """Return the files in order of coming, with the patient whom each names and the one who holds the instance."""
    says, held_by = arrival.c.patient.label("says"), instance.c.patient.label("held_by")
    query = (
        select(arrival.c.id, arrival.c.sop_instance_uid, says, held_by)
        .outerjoin(instance, instance.c.sop_instance_uid == arrival.c.sop_instance_uid)
        .where(
            arrival.c.state == ArrivalState.CONFLICT,
            or_(arrival.c.patient == row_id, instance.c.patient == row_id),
        )
        .order_by(arrival.c.id)
    )
    return list(connection.execute(query))


def _note(connection: Connection, row_id: int, details: dict[str, object], by: By) -> None:
    key = identity.ids_of(connection, row_id)[0]
    write_audit(
        connection, at=by.at, actor=by.actor[:64], action="patient accept", subject=subject(*key), details=details
    )
