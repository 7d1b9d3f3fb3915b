"""One attempt to deliver one report to one destination, with what follows written into the ledger.

A job key is "<run key>/<destination>/<attempt>", so that the engine runs every attempt once and the ledger says when
the next one is due.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dicom_node import events
from dicom_node.deliver import dimse, orthanc
from dicom_node.deliver.outcome import Outcome, Parcel, Verdict, next_wait
from dicom_node.errors import NodeError
from dicom_node.ledger import deliveries, patients, runs
from dicom_node.ledger.tables import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Pacs, Settings


def job_key(delivery: Delivery) -> str:
    """Return the key of the next attempt of a delivery."""
    return f"{delivery.run_key}/{delivery.destination}/{delivery.attempts + 1}"


class Postman:
    """Carries reports from the outbox to the archives."""

    def __init__(
        self, settings: Settings, database: Database, outbox: Path, log: Log, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._archives = {pacs.name: pacs for pacs in settings.pacs}
        self._database = database
        self._outbox = outbox
        self._log = log
        self._clock = clock

    def deliver(self, key: str) -> None:
        """Make the attempt that the key names, unless it was made already."""
        run_key, destination, attempt = key.split("/")
        with self._database.read() as ledger:
            delivery = deliveries.get(ledger, run_key, destination)
            objects = runs.objects_of(ledger, run_key)
        if delivery is None or delivery.state not in deliveries.OPEN_STATES or job_key(delivery) != key:
            return
        parcels = [
            Parcel(
                path=self._outbox / each.path,
                sop_class_uid=each.sop_class_uid,
                sop_instance_uid=each.sop_instance_uid,
            )
            for each in objects
        ]
        self._log.info(events.STEP_STARTED, step="deliver", run=run_key[:12], destination=destination)
        outcome = self._try_to_send(parcels, self._archives.get(destination))
        self._record(delivery, outcome, int(attempt), len(parcels))

    def _try_to_send(self, parcels: list[Parcel], pacs: Pacs | None) -> Outcome:
        """Send, turning whatever is raised into an outcome, so that every attempt has its end in the ledger."""
        try:
            return self._send(parcels, pacs)
        except NodeError as error:
            return Outcome(verdict=Verdict.FAILED, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the edge: an attempt that breaks is tried again with backoff
            self._log.failure(events.DELIVERY_RETRIED, error)
            return Outcome(verdict=Verdict.RETRY, reason=f"the attempt broke: {type(error).__name__}")

    def _send(self, parcels: list[Parcel], pacs: Pacs | None) -> Outcome:
        if pacs is None:
            return Outcome(verdict=Verdict.FAILED, reason="this destination is no longer in the configuration")
        missing = [each.path.name for each in parcels if not each.path.is_file()]
        if missing or not parcels:
            msg = f"outbox: expected {len(parcels)} objects, missing {', '.join(missing) or 'all'}"
            raise NodeError(msg)
        if pacs.dimse is not None:
            return dimse.send(parcels, pacs.dimse, self._settings.node.ae_title)
        assert pacs.orthanc is not None  # noqa: S101 - the configuration allows exactly one of the two
        return orthanc.send(parcels, pacs.orthanc)

    def _record(self, delivery: Delivery, outcome: Outcome, attempt: int, objects: int) -> None:
        now = self._clock()
        fields: dict[str, Any] = {"run": delivery.run_key[:12], "destination": delivery.destination}
        fields |= {"attempts": attempt, "objects": objects}
        with self._database.write() as ledger:
            state = self._change(ledger, delivery, outcome, now)
            run = runs.get(ledger, delivery.run_key)
            if run is not None:
                patients.touch(ledger, run.patient_row)
        if state is DeliveryState.SENT:
            self._log.info(events.DELIVERY_SENT, **fields)
        elif state is DeliveryState.DEAD:
            self._log.error(events.DELIVERY_DIED, reason=outcome.reason, **fields)
        else:
            self._log.warning(events.DELIVERY_RETRIED, reason=outcome.reason, **fields)

    def _change(self, ledger: Connection, delivery: Delivery, outcome: Outcome, now: datetime) -> DeliveryState:
        if outcome.verdict is Verdict.DELIVERED:
            deliveries.sent(ledger, delivery, now)
            return DeliveryState.SENT
        pacs = self._archives.get(delivery.destination)
        if outcome.verdict is Verdict.FAILED or pacs is None:
            deliveries.dead(ledger, delivery, error=outcome.reason)
            return DeliveryState.DEAD
        end = (delivery.first_attempt_at or now) + timedelta(hours=pacs.retry.give_up_after_h)
        if now >= end:
            deliveries.dead(ledger, delivery, error=f"given up: {outcome.reason}")
            return DeliveryState.DEAD
        again_at = now + next_wait(delivery.attempts, pacs.retry)
        deliveries.retry(ledger, delivery, error=outcome.reason, now=now, next_attempt_at=again_at)
        return DeliveryState.RETRYING
