"""Withdrawal: a run becomes a tombstone, and its deliveries carry the notes that take the report back.

Everything commits together: the run's state, who did it and why, the note of each destination, and what becomes of each
delivery. What a destination got stays on record; the rows of what was never sent are void. A later report of which no
archive got anything follows the one before the withdrawn; what was encoded of it is encoded anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select

from dicom_node.ledger import deliveries, encodings, patients, runs
from dicom_node.ledger.tables import withdrawal
from dicom_node.timeline.model import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.ledger.runs import OutboxObject, Run

NOTE: Final = "rejection-note"
NO_ENCODING: Final = 0  # a note is no encoding of the run's answer
AFTER_AN_ATTEMPT: Final = timedelta(minutes=2)  # one may be at work at this moment: the note must not come before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Who withdrew a report, when and why; `title` is the notes' document title, a code of the scheme DCM."""

    title: str
    reason: str
    actor: str
    withdrawn_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A rejection note, its bytes lying fsynced in the outbox."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    path: str  # relative to the outbox
    content: bytes


def why_not(connection: Connection, found: Run) -> str | None:
    """Return why a run cannot be withdrawn, None if it can."""
    if found.state is RunState.WITHDRAWN:
        return "it was withdrawn or purged before"
    if not runs.objects_of(connection, found.run_key):
        return f"expected a report, found the run {found.state}"
    return None


def enter(
    connection: Connection, found: Run, what: Withdrawal, note_for: Callable[[Sequence[OutboxObject]], Note]
) -> Mapping[str, int]:
    """Withdraw a run.

    Args:
        connection: a write transaction in which `why_not` says nothing.
        found: the run.
        what: who, when and why.
        note_for: makes the note that names some objects, durably; the same for the same objects.

    Returns:
        Destination -> how many objects its note names; 0 where nothing had been sent.
    """
    connection.execute(
        insert(withdrawal).values(
            run_key=found.run_key,
            title=what.title,
            reason=what.reason,
            actor=what.actor,
            withdrawn_at=what.withdrawn_at,
        )
    )
    runs.set_state(connection, found.run_key, RunState.WITHDRAWN)
    pass_over(connection, found)
    named = {}
    for each in deliveries.of_run(connection, found.run_key):
        held = deliveries.held_by(connection, each)
        named[each.destination] = len(held)
        if held:
            note = note_for(held)
            _keep(connection, found.run_key, note)
            deliveries.carry_note(connection, each, note.sop_instance_uid, _when(connection, each, what))
        else:
            deliveries.end_unsent(connection, each)
    patients.touch(connection, found.patient_row)
    return named


def get(connection: Connection, run_key: str) -> Withdrawal | None:
    """Return who withdrew a run, when and why; None if nobody did."""
    row = connection.execute(select(withdrawal).where(withdrawal.c.run_key == run_key)).one_or_none()
    if row is None:
        return None
    return Withdrawal(title=row.title, reason=row.reason, actor=row.actor, withdrawn_at=row.withdrawn_at)


def pass_over(connection: Connection, found: Run) -> None:
    """Let every run that no archive got anything of follow the report before this withdrawn one: none builds on it.

    A run whose inference goes on is frozen later, and finds its predecessor then.
    """
    for each in runs.following(connection, found.run_key):
        follow_standing(connection, each)


def follow_standing(connection: Connection, found: Run) -> bool:
    """Let a run follow no withdrawn report, unless an archive got the report that names it.

    Its answer stands, for it comes from the images alone: only what was encoded of it is made anew.

    Returns:
        Whether something was encoded and must not be sent any more.
    """
    if runs.standing(connection, found.predecessor) == found.predecessor:
        return False
    made = found.encoded_at is not None
    void = _void(connection, found)
    if void or not made:
        runs.pass_over_withdrawn(connection, found)
    return void and made


def built_on(connection: Connection, found: Run) -> list[Run]:
    """Return the issued reports that name this one as the one before them."""
    return [each for each in runs.following(connection, found.run_key) if each.encoded_at is not None]


def _void(connection: Connection, found: Run) -> bool:
    """Void what was encoded of a run, unless an archive got some of it; say whether that was so.

    A later report names the void objects, by UIDs that no archive will ever hold: it is void with them.
    """
    if not deliveries.is_unsent(connection, found.run_key):
        return False
    encodings.void(connection, found.run_key)
    for each in runs.following(connection, found.run_key):
        if each.encoded_at is not None:
            _void(connection, each)
    return True


def _when(connection: Connection, found: Delivery, what: Withdrawal) -> datetime:
    busy = found.state in deliveries.OPEN_STATES and deliveries.at_work(connection, found)
    return what.withdrawn_at + (AFTER_AN_ATTEMPT if busy else timedelta())


def _keep(connection: Connection, run_key: str, note: Note) -> None:
    """Enter a note into the outbox; two destinations that hold the same get the same one."""
    known = runs.objects_of(connection, run_key, NO_ENCODING)
    if any(each.sop_instance_uid == note.sop_instance_uid for each in known):
        return
    entered = runs.OutboxObject(
        position=len(known),
        kind=NOTE,
        sop_class_uid=note.sop_class_uid,
        sop_instance_uid=note.sop_instance_uid,
        series_instance_uid=note.series_instance_uid,
        study_instance_uid=note.study_instance_uid,
        path=note.path,
        sha256=hashlib.sha256(note.content).hexdigest(),
        encoding=NO_ENCODING,
    )
    runs.put_object(connection, run_key, entered)
