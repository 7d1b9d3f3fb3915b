"""Who changed what by hand, and who was turned away, for the audit trail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from dicom_node.ledger import presence, runs
from dicom_node.ledger.tables import audit
from dicom_node.observe import audit_messages as told
from dicom_node.observe.audit_messages import Action, Event, EventType, Message, Outcome, Participant
from dicom_node.observe.audit_teller import Collected, Fact, is_unsettled

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from dicom_node.observe.audit_teller import Positions, Teller

MOST_LINES: Final = 10_000  # of the ledger's audit in one look
CHANGES: Final = "audit"
_OPENED: Final = "allow_unvalidated"
_LOGIN: Final = "login"
_READ: Final = frozenset({"retry", "recover"})


def changed(teller: Teller, ledger: Connection, positions: Positions, now: datetime) -> Collected:
    """Tell who decided what about whom, from the ledger's own audit."""
    after, found = int(positions.get(CHANGES, 0)), Collected()
    for row in ledger.execute(select(audit).where(audit.c.id > after).order_by(audit.c.id).limit(MOST_LINES)):
        if is_unsettled(row.at, now):
            break
        after = row.id
        found.facts.append(Fact(key=f"{CHANGES}/{row.id}", message=_change(teller, ledger, row)))
    found.positions[CHANGES] = after
    return found


def _change(teller: Teller, ledger: Connection, row: Row[Any]) -> Message:
    """Tell one line of the ledger's audit: of a patient (A.5.3.9), or of the node's own safety."""
    if row.action == _LOGIN:
        return _login(teller, row)
    if row.action == _OPENED:
        text = f"destination {row.subject} is open to results of models trained on phantoms"
        return teller.alert(EventType.SECURITY_CONFIGURATION, text, row.at, about=row.subject)
    whose = _subject(ledger, row)
    if whose is None:
        outcome = Outcome.MINOR_FAILURE if row.action.endswith("refused") else Outcome.SUCCESS
        text = f"{row.action} by {row.actor}"
        return teller.alert(EventType.USE_OF_RESTRICTED_FUNCTION, text, row.at, outcome=outcome)
    action = {"purge": Action.DELETE}.get(row.action, Action.READ if row.action in _READ else Action.UPDATE)
    return Message(
        event=Event.PATIENT_RECORD,
        action=action,
        at=row.at,
        participants=[Participant(user=row.actor, requestor=True), teller.ourselves()],
        objects=[told.patient(*whose, Action=row.action)],
    )


def _login(teller: Teller, row: Row[Any]) -> Message:
    """Tell that somebody logged in at the status page (A.5.3.12)."""
    address = str(json.loads(row.details).get("address", ""))
    return Message(
        event=Event.USER_AUTHENTICATION,
        type=EventType.LOGIN,
        action=Action.EXECUTE,
        at=row.at,
        participants=[Participant(user=row.actor, requestor=True, address=address), teller.ourselves()],
    )


def refused(teller: Teller, ledger: Connection, positions: Positions, now: datetime) -> Collected:
    """Tell of callers who were turned away since the last look."""
    found = Collected()
    for row in presence.refusals(ledger):
        key, count = refusal_key(row), int(str(row["count"]))
        before = int(positions.get(key, 0))
        found.positions[key] = count
        times = count - before if count >= before else count
        if times:
            message = _refusal(teller, row, times, now)
            found.facts.append(Fact(key=f"{key}/{count}/{row['last_at']}", message=message))
    return found


def _refusal(teller: Teller, row: Mapping[str, object], times: int, now: datetime) -> Message:
    reason, address = str(row["reason"]), str(row["address"])
    at = row["last_at"] if isinstance(row["last_at"], datetime) else now
    login = reason == presence.FAILED_LOGIN
    caller = Participant(
        user=str(row["calling_ae_title"]) or "(unknown)",
        ae_title="" if login else str(row["calling_ae_title"]),
        address=address,
        requestor=True,
    )
    text = f"{reason}, {times} times"
    return Message(
        event=Event.USER_AUTHENTICATION if login else Event.SECURITY_ALERT,
        type=EventType.LOGIN if login else EventType.NODE_AUTHENTICATION,
        action=Action.EXECUTE,
        at=at,
        outcome=Outcome.MINOR_FAILURE,
        outcome_text=text,
        participants=[caller, teller.ourselves()],
        objects=[] if login else [told.alert_subject(address or "(unknown)", text)],
    )


def refusal_key(row: Mapping[str, object]) -> str:
    """Return under which name it is kept how often a caller was turned away, as far as it was told."""
    return "refused/" + json.dumps([row["calling_ae_title"], row["address"], row["reason"]])


def _subject(ledger: Connection, row: Row[Any]) -> tuple[str, str] | None:
    """Return the (issuer, PatientID) that a line of the ledger's audit is about, None if it is about nobody."""
    patient_id, found, issuer = row.subject.partition("^^^")
    if found:
        return issuer, patient_id
    says = json.loads(row.details).get("says")
    if isinstance(says, list) and len(says) == 2:
        return str(says[0]), str(says[1])
    runs_found = runs.starting_with(ledger, row.subject.partition("/")[0])
    if len(runs_found) == 1:
        return runs_found[0].issuer, runs_found[0].patient_id
    return None
