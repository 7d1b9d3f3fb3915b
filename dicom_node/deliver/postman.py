"""One attempt to deliver one report to one destination, with what follows written into the ledger.

A job key is "<run key>/<destination>/<attempt>", so that the engine runs every attempt once and the ledger says when
the next one is due. A destination that was not asked just now whose study it is gets asked first (invariant 15).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dicom_node import events
from dicom_node.deliver import dimse, orthanc
from dicom_node.deliver.outcome import Outcome, Parcel, Verdict, next_wait
from dicom_node.errors import NodeError
from dicom_node.ledger import deliveries, encodings, identity, patients, runs
from dicom_node.ledger.tables import DeliveryState
from dicom_node.work import demographics
from dicom_node.work.demographics import AnotherPatientError, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.ledger.encodings import Demographics
    from dicom_node.ledger.runs import OutboxObject, Run
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Pacs, Settings
    from dicom_node.work.demographics import ArchiveFor

NOT_DELAYED: Final = timedelta(minutes=1)
EVENTS: Final[Mapping[DeliveryState, str]] = {
    DeliveryState.PENDING: events.DELIVERY_VOIDED,
    DeliveryState.RETRYING: events.DELIVERY_RETRIED,
    DeliveryState.DEAD: events.DELIVERY_DIED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Consignment:
    """What one attempt is about: the report as it was encoded, and every (issuer, PatientID) of its patient."""

    delivery: Delivery
    run: Run
    objects: list[OutboxObject]
    ids: list[tuple[str, str]]

    @property
    def named(self) -> Demographics:
        """Whom the report names; of one encoded by a version that kept no record of it only the ID is known."""
        kept = self.run.encodings.get(self.delivery.encoding)
        if kept is not None:
            return kept.demographics
        return encodings.Demographics(issuer=self.run.issuer, patient_id=self.run.patient_id)


def job_key(delivery: Delivery) -> str:
    """Return the key of the next attempt of a delivery."""
    return f"{delivery.run_key}/{delivery.destination}/{delivery.attempts + 1}"


class Postman:
    """Carries reports from the outbox to the archives."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        outbox: Path,
        log: Log,
        *,
        clock: Callable[[], datetime],
        archive_for: ArchiveFor,
    ) -> None:
        self._settings = settings
        self._archives = {pacs.name: pacs for pacs in settings.pacs}
        self._database = database
        self._outbox = outbox
        self._log = log
        self._clock = clock
        self._archive_for = archive_for

    def deliver(self, key: str) -> None:
        """Make the attempt that the key names, unless it was made already."""
        consignment = self._find(key)
        if consignment is None:
            return
        delivery = consignment.delivery
        self._log.info(events.STEP_STARTED, step="deliver", run=delivery.run_key[:12], destination=delivery.destination)
        self._record(consignment, self._try(consignment, self._archives.get(delivery.destination)))

    def _find(self, key: str) -> Consignment | None:
        run_key, destination, _ = key.split("/")
        with self._database.read() as ledger:
            delivery, run = deliveries.get(ledger, run_key, destination), runs.get(ledger, run_key)
            if delivery is None or run is None:
                return None
            if delivery.state not in deliveries.OPEN_STATES or job_key(delivery) != key:
                return None
            objects = runs.objects_of(ledger, run_key, delivery.encoding)
            if not objects and delivery.encoding > 1:
                return None  # voided by another destination's answer since this attempt was due; due again once made
            return Consignment(
                delivery=delivery,
                run=run,
                objects=objects,
                ids=identity.ids_of(ledger, patients.survivor(ledger, run.patient_row)),
            )

    def _try(self, consignment: Consignment, pacs: Pacs | None) -> Outcome:
        """Ask and send, turning whatever is raised into an outcome, so that every attempt has its end in the ledger."""
        try:
            return self._ask_and_send(consignment, pacs)
        except AnotherPatientError as error:
            return Outcome(verdict=Verdict.MISFILED, reason=str(error))
        except NodeError as error:
            return Outcome(verdict=Verdict.FAILED, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the edge: an attempt that breaks is tried again with backoff
            self._log.failure(events.DELIVERY_RETRIED, error)
            return Outcome(verdict=Verdict.RETRY, reason=f"the attempt broke: {type(error).__name__}")

    def _ask_and_send(self, consignment: Consignment, pacs: Pacs | None) -> Outcome:
        if pacs is None:
            return Outcome(verdict=Verdict.FAILED, reason="this destination is no longer in the configuration")
        parcels = self._parcels(consignment)
        objection = self._ask(consignment, pacs) if self._must_ask(consignment) else None
        return objection or self._send(parcels, pacs)

    def _parcels(self, consignment: Consignment) -> list[Parcel]:
        parcels = [
            Parcel(
                path=self._outbox / each.path,
                sop_class_uid=each.sop_class_uid,
                sop_instance_uid=each.sop_instance_uid,
            )
            for each in consignment.objects
        ]
        missing = [each.path.name for each in parcels if not each.path.is_file()]
        if missing or not parcels:
            msg = f"outbox: expected {len(parcels)} objects, missing {', '.join(missing) or 'all'}"
            raise NodeError(msg)
        return parcels

    def _must_ask(self, consignment: Consignment) -> bool:
        """Say whether this destination has to be asked: unless it answered just before the report was encoded."""
        delivery, run = consignment.delivery, consignment.run
        kept = run.encodings.get(delivery.encoding)
        asked = kept is not None and kept.asked.get(delivery.destination) == Answer.ANSWERED
        fresh = run.encoded_at is not None and self._clock() - run.encoded_at <= NOT_DELAYED
        return delivery.attempts > 0 or not (asked and fresh)

    def _ask(self, consignment: Consignment, pacs: Pacs) -> Outcome | None:
        """Ask a destination whose study it is; return why the report must not be sent now, None if it may.

        An archive that does not hold the study, or answers no such question, contradicts nothing.

        Raises:
            AnotherPatientError: if it files the study under somebody else.
        """
        answer, found = demographics.ask(pacs, self._archive_for, consignment.objects[-1].study_instance_uid)
        if answer is Answer.AWAY:
            return Outcome(verdict=Verdict.RETRY, reason="the archive is away: it could not be asked whose study it is")
        if found is None:
            return None
        told = demographics.as_told(consignment.named, found, pacs.name, consignment.ids)
        changed = demographics.differing(consignment.named, told)
        if not changed:
            return None
        return Outcome(
            verdict=Verdict.VOID,
            reason=f"the archive corrected {', '.join(changed)} since the report was encoded: it is encoded anew",
            encoding=encodings.Encoding(demographics=told, asked={pacs.name: answer.value}),
        )

    def _send(self, parcels: list[Parcel], pacs: Pacs) -> Outcome:
        if pacs.dimse is not None:
            return dimse.send(parcels, pacs.dimse, self._settings.node.ae_title)
        assert pacs.orthanc is not None  # noqa: S101 - the configuration demands one of the two of a destination
        return orthanc.send(parcels, pacs.orthanc)

    def _record(self, consignment: Consignment, outcome: Outcome) -> None:
        now, delivery = self._clock(), consignment.delivery
        fields: dict[str, Any] = {"run": delivery.run_key[:12], "destination": delivery.destination}
        fields |= {"attempts": delivery.attempts + 1, "objects": len(consignment.objects)}
        with self._database.write() as ledger:
            state = self._change(ledger, delivery, outcome, now)
            patients.touch(ledger, consignment.run.patient_row)
        if state is DeliveryState.SENT:
            self._log.info(events.DELIVERY_SENT, **fields)
        elif state is DeliveryState.DEAD:
            self._log.error(EVENTS[state], reason=outcome.reason, **fields)
        else:
            self._log.warning(EVENTS[state], reason=outcome.reason, **fields)

    def _change(self, ledger: Connection, delivery: Delivery, outcome: Outcome, now: datetime) -> DeliveryState:
        if outcome.verdict is Verdict.DELIVERED:
            deliveries.sent(ledger, delivery, now)
            return DeliveryState.SENT
        current = deliveries.get(ledger, delivery.run_key, delivery.destination)
        if current is not None and current.state not in deliveries.OPEN_STATES:
            return current.state  # another destination's answer stopped this delivery while it was at work
        if outcome.verdict is Verdict.VOID:
            return _void(ledger, delivery, outcome, now)
        if outcome.verdict is Verdict.MISFILED:
            deliveries.dead(ledger, delivery, error=outcome.reason)
            deliveries.stop_all(ledger, delivery.run_key, error=outcome.reason)
            return DeliveryState.DEAD
        return self._try_again(ledger, delivery, outcome, now)

    def _try_again(self, ledger: Connection, delivery: Delivery, outcome: Outcome, now: datetime) -> DeliveryState:
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


def _void(ledger: Connection, delivery: Delivery, outcome: Outcome, now: datetime) -> DeliveryState:
    assert outcome.encoding is not None  # noqa: S101 - a void outcome says what takes its place
    deliveries.void(ledger, delivery, error=outcome.reason, now=now)
    encodings.renew(ledger, delivery.run_key, delivery.destination, outcome.encoding, now)
    return DeliveryState.PENDING
