"""What an archive says of a request for storage commitment: an N-EVENT-REPORT, on either association.

It comes on the association of our request, or, mostly, on one that the archive opens to our listener with the roles
reversed. It is believed for a transaction UID that we made and for nothing else. Nobody is ever committed to: every
N-ACTION is refused, for a sender must not delete images on our word.

Source: PS3.4 J.3.3 (event types, Event Information), PS3.7 10.1.1.1.8 and 10.1.4.1.10 (statuses).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined] # made at import time
from sqlalchemy.exc import SQLAlchemyError

from dicom_node import events
from dicom_node.deliver.outcome import next_wait
from dicom_node.ledger import commitments, deliveries, patients, runs
from dicom_node.receive import statuses

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pydicom import Dataset
    from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
    from pynetdicom.events import Event
    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Settings

PUSH_MODEL: Final = str(StorageCommitmentPushModel)
EVENT_TYPES: Final = frozenset({1, 2})  # all committed; some are not
MOST_BYTES: Final = 4 << 20  # a report names a few objects; nobody may make us parse more


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What an Event Information says, by SOP Instance UID."""

    transaction_uid: str
    committed: frozenset[str]
    failed: dict[str, int]  # with the Failure Reason


class CommitmentReports:
    """Takes the answers of archives into the ledger."""

    def __init__(self, settings: Settings, database: Database, log: Log, clock: Callable[[], datetime]) -> None:
        self._archives = {pacs.name: pacs for pacs in settings.pacs}
        self._database = database
        self._log = log
        self._clock = clock

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        """What an association, or a server, has to be given."""
        return [(evt.EVT_N_EVENT_REPORT, self.take), (evt.EVT_N_ACTION, refuse_action)]

    def take(self, event: Event) -> tuple[int, None]:
        """Answer an N-EVENT-REPORT: success once the ledger holds what it says."""
        request = cast("N_EVENT_REPORT", event.request)
        if request.AffectedSOPClassUID != PUSH_MODEL:
            return statuses.NO_SUCH_SOP_CLASS, None
        if request.EventTypeID not in EVENT_TYPES:
            return statuses.NO_SUCH_EVENT_TYPE, None
        report = _read(event, request)
        if report is None:
            return self._refuse("not understood")
        try:
            with self._database.write() as ledger:
                known = self._enter(ledger, report)
        except SQLAlchemyError as error:
            self._log.failure(events.COMMITMENT_REFUSED, error)
            return statuses.PROCESSING_FAILURE, None
        return (statuses.SUCCESS, None) if known else self._refuse("unknown transaction")

    def _refuse(self, reason: str) -> tuple[int, None]:
        self._log.warning(events.COMMITMENT_REFUSED, reason=reason)
        return statuses.INVALID_ARGUMENT_VALUE, None

    def _enter(self, ledger: Connection, report: _Report) -> bool:
        """Enter a report, once; say whether its transaction is one of ours."""
        asked = commitments.get(ledger, report.transaction_uid)
        if asked is None:
            return False
        now = self._clock()
        found = commitments.answered(ledger, asked, now)
        if found is None:
            return True
        missing = asked.instances - report.committed
        if missing:
            reasons = sorted({f"0x{report.failed[uid]:04X}" for uid in missing if uid in report.failed})
            why = (
                f"not committed to {len(missing)} of {len(asked.instances)} objects: {', '.join(reasons) or 'unnamed'}"
            )
            deliveries.send_again(ledger, found, error=why, next_attempt_at=self._again_at(found, now))
            self._log.warning(events.COMMITMENT_FAILED, run=found.run_key[:12], destination=found.destination)
        else:
            deliveries.committed(ledger, found, now)
            self._log.info(events.DELIVERY_COMMITTED, run=found.run_key[:12], destination=found.destination)
        run = runs.get(ledger, found.run_key)
        if run is not None:
            patients.touch(ledger, run.patient_row)
        return True

    def _again_at(self, found: Delivery, now: datetime) -> datetime | None:
        """Return when to send again what the archive took and does not keep; None if that was tried often enough."""
        pacs = self._archives.get(found.destination)
        if pacs is None or found.commit_requests >= pacs.storage_commitment.most_requests:
            return None
        return now + next_wait(found.commit_requests, pacs.retry)


def refuse_action(event: Event) -> tuple[int, None]:
    """Refuse whatever a sender wants us to do: we offer no such service."""
    cast("N_ACTION", event.request)
    return statuses.UNRECOGNIZED_OPERATION, None


def _read(event: Event, request: N_EVENT_REPORT) -> _Report | None:
    """Read an Event Information; None if it is none. Whatever stands in it, nothing is thrown."""
    content: Any = request.EventInformation
    if content is None or len(content.getvalue()) > MOST_BYTES:
        return None
    try:
        ds: Dataset = event.event_information
        return _Report(
            transaction_uid=str(ds.TransactionUID),
            committed=frozenset(str(each.ReferencedSOPInstanceUID) for each in ds.get("ReferencedSOPSequence") or ()),
            failed={
                str(each.ReferencedSOPInstanceUID): int(each.get("FailureReason") or 0)
                for each in ds.get("FailedSOPSequence") or ()
            },
        )
    except Exception:  # noqa: BLE001 - the edge: pydicom throws anything at bytes that are no data set
        return None
