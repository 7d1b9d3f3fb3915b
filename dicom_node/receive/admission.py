"""What becomes of an association request: rejected and counted, or let in with the services the peer has a right to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import time
from sqlalchemy.exc import SQLAlchemyError

from dicom_node import events, tls
from dicom_node.deliver.commitment_reports import PUSH_MODEL
from dicom_node.ledger import presence
from dicom_node.receive import statuses
from dicom_node.receive.occupancy import Occupancy

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.presentation import PresentationContext

    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.receive.door import Door
    from dicom_node.settings import Right


class Admission:
    """Asks the door, and has pynetdicom do as it says."""

    def __init__(self, door: Door, database: Database, log: Log) -> None:
        self._door = door
        self._database = database
        self._log = log
        self._occupancy = Occupancy()

    def admit(self, event: Event) -> None:
        """Judge an association request (EVT_REQUESTED)."""
        request = event.assoc.requestor
        primitive = cast("A_ASSOCIATE", request.primitive)
        calling, called = primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()
        try:
            rejection = self._rejection(event.assoc, calling, called)
        except (OSError, ValueError) as error:  # what cannot be judged may not enter
            self._log.failure(events.ASSOCIATION_REFUSED, error)
            rejection = statuses.UNDECIDED
        if rejection is not None:
            event.assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            event.assoc.kill()
            self.count(calling, request.address, rejection.reason)
            return
        for service in _withhold(event.assoc, primitive, self._door.rights(calling)):
            self.count(calling, request.address, statuses.NO_RIGHT + service)

    def too_many(self, event: Event) -> None:
        """Count what pynetdicom rejected by itself (EVT_REJECTED)."""
        request = event.assoc.requestor
        self.count(str(request.ae_title).strip(), request.address, statuses.TOO_MANY.reason)

    def count(self, calling: str, address: str, reason: str) -> None:
        """Log and count a refusal; no calling AE title: it had not come to that."""
        self._log.warning(events.ASSOCIATION_REFUSED, calling_ae_title=calling, address=address, reason=reason)
        title, where, why = calling[:16], address[:64], reason[:64]
        try:
            with self._database.write() as ledger:
                presence.refused(ledger, calling_ae_title=title, address=where, reason=why, now=datetime.now(UTC))
        except SQLAlchemyError as error:
            self._log.failure(events.ASSOCIATION_REFUSED, error)

    def _rejection(self, association: Association, calling: str, called: str) -> statuses.Rejection | None:
        transport = association.dul.socket
        link = tls.link(transport.socket if transport is not None else None)
        rejection = self._door.rejection(calling, called, association.requestor.address, link)
        limit = self._door.limit(calling) if rejection is None else None
        if limit is not None and not self._occupancy.enter(calling, association, limit):
            return statuses.TOO_MANY_OF_PEER
        return rejection


def _withhold(association: Association, request: A_ASSOCIATE, rights: frozenset[Right]) -> list[str]:
    """Support nothing that a peer has no right to; return the services that it asks for and does not get."""
    supported = association.acceptor.supported_contexts
    withheld = {str(each.abstract_syntax) for each in supported if _service(each) not in rights}
    association.acceptor.supported_contexts = [each for each in supported if str(each.abstract_syntax) not in withheld]
    asked = request.presentation_context_definition_list
    return sorted({_service(each) for each in asked if str(each.abstract_syntax) in withheld})


def _service(context: PresentationContext) -> Right:
    """Return the service that a presentation context is for, among those we know."""
    if context.abstract_syntax == Verification:
        return "echo"
    return "commitment" if context.abstract_syntax == PUSH_MODEL else "store"
