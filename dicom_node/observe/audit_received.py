"""What arrived, for the audit trail: told by study and sender once nothing came for a while, never one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, or_, select

from dicom_node.ledger.tables import ArrivalState, arrival, patient
from dicom_node.observe import audit_messages as told
from dicom_node.observe.audit_messages import Action, Event, Message, Outcome, Participant, Role
from dicom_node.observe.audit_teller import Collected, Fact, unsettled

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.observe.audit_teller import Positions, Teller

LONGEST: Final = timedelta(minutes=1)  # objects that keep arriving are told after so long at the latest
BY_HAND: Final = "(by hand)"  # in place of a calling AE title: `dicom-node ingest`
ARRIVALS: Final = "arrival"


def received(teller: Teller, ledger: Connection, positions: Positions, now: datetime) -> Collected:
    """Tell what arrived and was read, if nothing more comes at the moment."""
    newest = ledger.scalar(select(func.max(arrival.c.id))) or 0
    after = min(int(positions.get(ARRIVALS, 0)), newest)  # numbers of purged rows are given again
    found = Collected(positions={ARRIVALS: after})
    open_ = ledger.scalar(
        select(func.min(arrival.c.id)).where(
            arrival.c.id > after, or_(arrival.c.state == ArrivalState.RECEIVED, unsettled(arrival.c.received_at, now))
        )
    )
    span = [arrival.c.id > after] + ([arrival.c.id < open_] if open_ is not None else [])
    first, last, upto = ledger.execute(
        select(func.min(arrival.c.received_at), func.max(arrival.c.received_at), func.max(arrival.c.id)).where(*span)
    ).one()
    quiet = timedelta(seconds=teller.settings.receive.quiet_period_s)
    if upto is None or (now - quiet < last <= now and first > now - LONGEST):
        return found
    found.positions[ARRIVALS] = upto
    for number, group in enumerate(_groups(ledger, span)):
        found.facts.append(Fact(key=f"received/{upto}/{last.timestamp()}/{number}", message=_transfer(teller, group)))
    return found


def _transfer(teller: Teller, group: _Group) -> Message:
    """Tell what one sender transferred of one study (A.5.3.7), or somebody took from disk (A.5.3.4)."""
    by_hand = group.calling_ae_title == BY_HAND
    whose = told.patient(group.issuer, group.patient_id) if group.patient_id else told.patient("", "(not read)")
    known = bool(group.patient_id)
    objects = [told.study(group.study_instance_uid, group.sop_classes)] if group.study_instance_uid else []
    fetched = group.fetched_from is not None
    sender = Participant(
        user=group.fetched_from or group.calling_ae_title,
        ae_title="" if by_hand else group.calling_ae_title,
        role=Role.SOURCE_MEDIA if by_hand else Role.SOURCE,
        requestor=not fetched and not by_hand,
        media=told.MEDIA_URI if by_hand else None,
    )
    return Message(
        event=Event.DATA_IMPORT if by_hand else Event.INSTANCES_TRANSFERRED,
        action=Action.CREATE if group.new or by_hand else Action.READ,  # R: copies of what was held, A.5.3.7
        at=group.last_received_at,
        outcome=Outcome.SUCCESS if known else Outcome.MINOR_FAILURE,
        outcome_text="" if known else f"{group.count} objects that name no patient, or could not be read",
        participants=[sender, teller.ourselves(Role.DESTINATION, requestor=fetched or by_hand)],
        objects=[*objects, whose],
    )


@dataclass(slots=True, kw_only=True)
class _Group:
    """What one sender transferred of one study of one patient."""

    calling_ae_title: str
    fetched_from: str | None
    study_instance_uid: str | None
    issuer: str
    patient_id: str
    last_received_at: datetime
    new: bool = False
    count: int = 0
    sop_classes: Counter[str] = field(default_factory=Counter)


def _groups(ledger: Connection, span: list[Any]) -> list[_Group]:
    """Count arrivals by sender, study and patient."""
    by = (
        arrival.c.calling_ae_title,
        arrival.c.fetched_from,
        arrival.c.study_instance_uid,
        patient.c.issuer,
        patient.c.patient_id,
    )
    query = (
        select(*by, arrival.c.sop_class_uid, arrival.c.state, func.count(), func.max(arrival.c.received_at))
        .select_from(arrival.outerjoin(patient, patient.c.id == arrival.c.patient))
        .where(*span)
        .group_by(*by, arrival.c.sop_class_uid, arrival.c.state)
    )
    groups: dict[tuple[str, ...], _Group] = {}
    for row in ledger.execute(query):
        key = tuple(str(part or "") for part in row[:5])
        group = groups.setdefault(
            key,
            _Group(
                calling_ae_title=row[0],
                fetched_from=row[1],
                study_instance_uid=row[2],
                issuer=row[3] or "",
                patient_id=row[4] or "",
                last_received_at=row[8],
            ),
        )
        group.sop_classes[row[5]] += row[7]
        group.count += row[7]
        group.new |= row[6] == ArrivalState.INDEXED
        group.last_received_at = max(group.last_received_at, row[8])
    return [groups[key] for key in sorted(groups)]
