"""What left the node about a patient, for the audit trail: objects delivered, and questions to archives."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import pydicom
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from sqlalchemy import select

from dicom_node.ledger import deliveries, identity, patients, runs
from dicom_node.ledger.tables import DeliveryState, LookupState, delivery, prior_lookup
from dicom_node.observe import audit_messages as told
from dicom_node.observe.audit_messages import Action, Event, Message, Outcome, Role
from dicom_node.observe.audit_teller import Collected, Fact
from dicom_node.priors.answers import STUDY_KEYS
from dicom_node.priors.dimse_find import identifier
from dicom_node.timeline.identity import is_safe_in_query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.observe.audit_teller import Positions, Teller
    from dicom_node.settings import Pacs

GIVEN_UP: Final = "dead/"


def delivered(teller: Teller, ledger: Connection, since: datetime) -> Collected:
    """Tell which objects went where (A.5.3.7)."""
    found = Collected()
    query = select(delivery.c.run_key, delivery.c.destination).where(delivery.c.sent_at >= since)
    for row in ledger.execute(query).all():
        each = deliveries.get(ledger, row.run_key, row.destination)
        if each is None or each.sent_at is None or each.state is DeliveryState.DEAD:
            continue
        message = _transfer(teller, ledger, each, deliveries.awaited(ledger, each), each.sent_at)
        if message is not None:
            found.facts.append(Fact(key=f"sent/{each.run_key}/{each.destination}/{each.sent_at}", message=message))
    return found


def given_up(teller: Teller, ledger: Connection, positions: Positions, now: datetime) -> Collected:
    """Tell of deliveries that were given up which objects may be there all the same; each end of one once."""
    found = Collected()
    query = select(delivery.c.run_key, delivery.c.destination, delivery.c.attempts)
    for row in ledger.execute(query.where(delivery.c.state == DeliveryState.DEAD)).all():
        key = f"{GIVEN_UP}{row.run_key}/{row.destination}"
        if positions.get(key) == row.attempts:
            continue
        found.positions[key] = row.attempts
        each = deliveries.get(ledger, row.run_key, row.destination)
        message = _transfer(teller, ledger, each, deliveries.held_by(ledger, each), now) if each is not None else None
        if message is not None:
            found.facts.append(Fact(key=f"{key}/{row.attempts}", message=message))
    return found


def asked(teller: Teller, ledger: Connection, since: datetime) -> Collected:
    """Tell which archive was asked about whom (A.5.3.10)."""
    query = select(prior_lookup).where(
        prior_lookup.c.finished_at >= since, prior_lookup.c.state.in_((LookupState.DONE, LookupState.FAILED))
    )
    return Collected(facts=[fact for row in ledger.execute(query).all() for fact in _questions(teller, ledger, row)])


def _transfer(
    teller: Teller, ledger: Connection, found: Delivery, objects: list[runs.OutboxObject], at: datetime
) -> Message | None:
    """Tell what of a delivery is at its destination, None if that is nothing."""
    run = runs.get(ledger, found.run_key)
    studies: dict[str, Counter[str]] = defaultdict(Counter)
    for each in objects:
        studies[each.study_instance_uid][each.sop_class_uid] += 1
    if run is None or not studies:
        return None
    dead = found.state is DeliveryState.DEAD
    return Message(
        event=Event.INSTANCES_TRANSFERRED,
        action=Action.READ,  # whether the archive held them before is not known, A.5.3.7
        at=at,
        outcome=Outcome.SERIOUS_FAILURE if dead else Outcome.SUCCESS,
        outcome_text="the delivery was given up; these objects are there, or may be" if dead else "",
        participants=[
            teller.ourselves(Role.SOURCE, requestor=True),
            teller.archive(found.destination, Role.DESTINATION),
        ],
        objects=[
            *(told.study(uid, sop_classes) for uid, sop_classes in sorted(studies.items())),
            told.patient(run.issuer, run.patient_id),
        ],
    )


def _questions(teller: Teller, ledger: Connection, row: Row[Any]) -> Iterator[Fact]:
    """Tell one question for each ID of the patient that the archive was asked for."""
    pacs = next((each for each in teller.settings.pacs if each.name == row.pacs), None)
    ids = identity.ids_of(ledger, patients.survivor(ledger, row.patient))
    issuer = pacs.default_issuer if pacs is not None else None
    failed = row.state == LookupState.FAILED
    for number, key in enumerate(each for each in ids if each[0] == issuer and is_safe_in_query(each[1])):
        message = Message(
            event=Event.QUERY,
            action=Action.EXECUTE,
            at=row.finished_at,
            outcome=Outcome.MINOR_FAILURE if failed else Outcome.SUCCESS,
            outcome_text="not answered" if failed else "",
            participants=[
                teller.ourselves(Role.SOURCE, requestor=True),
                teller.archive(row.pacs, Role.DESTINATION),
            ],
            objects=[_question(pacs, key[1]), told.patient(*key)],
        )
        yield Fact(key=f"asked/{row.id}/{row.finished_at}/{number}", message=message)


def _question(pacs: Pacs | None, patient_id: str) -> told.Concerned:
    """Name what was asked for: the identifier of a C-FIND, or the query of a web service."""
    if pacs is None or pacs.dimse is not None:
        details = {"TransferSyntax": str(ExplicitVRLittleEndian)}
        query = _encoded(identifier("STUDY", STUDY_KEYS, PatientID=patient_id))
        return told.Concerned(
            id=str(Find), id_type=told.IdType.SOP_CLASS, type="2", role="3", query=query, details=details
        )
    web = pacs.dicomweb or pacs.orthanc
    url = web.url if web is not None else pacs.name
    query = f"PatientID={patient_id}".encode()
    return told.Concerned(id=url, id_type=told.IdType.URI, type="2", role="3", query=query)


def _encoded(ds: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()
