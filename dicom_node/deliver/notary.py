"""Asking an archive for storage commitment: an N-ACTION, whose answer may come at once, tomorrow, or never.

The request is in the ledger before it is sent. Without an answer it is made again, under a new transaction UID, after
`storage_commitment.wait_h`; after `most_requests` the report stays sent, not committed, and says so.

Source: PS3.4 J.3.2 (Request Storage Commitment), J.3.3 (the answer may come on another association).
"""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from dicom_node import events
from dicom_node.deliver import dimse
from dicom_node.deliver.commitment_reports import PUSH_MODEL, CommitmentReports, refuse_action
from dicom_node.deliver.outcome import next_wait
from dicom_node.errors import UpstreamError
from dicom_node.ledger import commitments, deliveries, patients
from dicom_node.requestor import why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pynetdicom.events import Event

    from dicom_node.deliver.consignment import Consignment
    from dicom_node.ledger.database import Database
    from dicom_node.ledger.runs import OutboxObject
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Dimse, Pacs, Settings

REQUEST_COMMITMENT: Final = 1  # Action Type ID
AT_ONCE_S: Final = 1.0  # how long the association is kept open for an answer on itself
UNSURE: Final = timedelta(minutes=5)  # a request that was killed half-way is made again after this


class Notary:
    """Asks archives to commit themselves to what was sent."""

    def __init__(self, settings: Settings, database: Database, log: Log, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._database = database
        self._log = log
        self._clock = clock
        self._reports = CommitmentReports(settings, database, log, clock)

    def ask(self, consignment: Consignment, pacs: Pacs | None) -> None:
        """Ask for the commitment of a delivery that was sent, and note when to ask again."""
        delivery, now = consignment.delivery, self._clock()
        wanted = pacs.storage_commitment if pacs is not None else None
        if pacs is None or pacs.dimse is None or wanted is None or not wanted.enabled:
            self._give_up(consignment, None)
            return
        if delivery.commit_requests >= wanted.most_requests:
            self._give_up(consignment, f"not committed after {delivery.commit_requests} requests; `retry` asks again")
            return
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        with self._database.write() as ledger:
            instances = [each.sop_instance_uid for each in consignment.objects]
            commitments.enter(ledger, transaction_uid, delivery, instances, now)
            deliveries.ask_commitment(ledger, delivery, next_attempt_at=now + UNSURE)
        try:
            problem = self._request(transaction_uid, consignment.objects, pacs.dimse)
        except UpstreamError as error:
            problem = f"not committed: {error}"
        wait = timedelta(hours=wanted.wait_h) if problem is None else next_wait(delivery.commit_requests, pacs.retry)
        if problem is None and delivery.commit_requests:
            problem = f"not committed, asked {delivery.commit_requests + 1} times"
        with self._database.write() as ledger:
            deliveries.asked_commitment(ledger, delivery, error=problem, next_attempt_at=now + wait)
            patients.touch(ledger, consignment.run.patient_row)
        self._log.info(
            events.COMMITMENT_REQUESTED,
            run=delivery.run_key[:12],
            destination=delivery.destination,
            attempts=delivery.commit_requests + 1,
            reason=problem,
        )

    def _give_up(self, consignment: Consignment, error: str | None) -> None:
        with self._database.write() as ledger:
            deliveries.give_up_commitment(ledger, consignment.delivery, error=error)
            patients.touch(ledger, consignment.run.patient_row)

    def _request(self, transaction_uid: str, objects: Sequence[OutboxObject], destination: Dimse) -> str | None:
        """Send the request; return why it was not taken, None if it was.

        Raises:
            UpstreamError: if our own TLS files cannot be used now.
        """
        answered = threading.Event()

        def take(event: Event) -> tuple[int, None]:
            answer = self._reports.take(event)
            answered.set()
            return answer

        contexts = [(PUSH_MODEL, ExplicitVRLittleEndian), (PUSH_MODEL, ImplicitVRLittleEndian)]
        handlers = [(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_N_ACTION, refuse_action)]
        association = dimse.associate(contexts, destination, self._settings.node.ae_title, handlers)
        if not association.is_established:
            if association.rejected_contexts and not association.accepted_contexts:
                return "not committed: the archive offers no storage commitment"
            return f"not committed: {why_not(association)}"
        try:
            information = _action_information(transaction_uid, objects)
            response, _ = association.send_n_action(
                information, REQUEST_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            if "Status" not in response:
                return "not committed: no answer to N-ACTION before the time-out, or an abort"
            if response.Status != 0:
                return f"not committed: N-ACTION status 0x{response.Status:04X}"
            answered.wait(AT_ONCE_S)
        except (RuntimeError, ValueError) as error:
            return f"not committed: the association ended: {type(error).__name__}"
        finally:
            if association.is_established:
                association.release()
        return None


def _action_information(transaction_uid: str, objects: Sequence[OutboxObject]) -> Dataset:
    """Return what commitment is asked for (PS3.4 table J.3-1)."""
    ds = Dataset()
    ds.TransactionUID = UID(transaction_uid)
    ds.ReferencedSOPSequence = []
    for each in objects:
        item = Dataset()
        item.ReferencedSOPClassUID = each.sop_class_uid
        item.ReferencedSOPInstanceUID = each.sop_instance_uid
        ds.ReferencedSOPSequence.append(item)
    return ds
