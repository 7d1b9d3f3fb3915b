"""One attempt to deliver one report to one destination, with what follows written into the ledger.

A job key is "<run key>/<destination>/<attempt>", so that the engine runs every attempt once and the ledger says when
the next one is due. A destination that was not asked just now whose study it is gets asked first (invariant 15). A
rejection note goes without asking: it names what the archive holds, whoever that is filed under today. Where storage
commitment is configured, asking for it is the next attempt of a report that was sent.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dicom_node import events
from dicom_node.deliver import dimse, orthanc, stow
from dicom_node.deliver.consignment import find, job_key
from dicom_node.deliver.notary import Notary
from dicom_node.deliver.outcome import Outcome, Verdict, next_wait
from dicom_node.errors import NodeError
from dicom_node.ledger import deliveries, encodings, patients, withdrawals
from dicom_node.ledger.tables import DeliveryState
from dicom_node.work import demographics
from dicom_node.work.demographics import AnotherPatientError, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.deliver.consignment import Consignment
    from dicom_node.deliver.outcome import Load
    from dicom_node.ledger.database import Database
    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Pacs, Settings
    from dicom_node.work.demographics import ArchiveFor

NOT_DELAYED: Final = timedelta(minutes=1)
EVENTS: Final[Mapping[DeliveryState, str]] = {
    DeliveryState.PENDING: events.DELIVERY_VOIDED,
    DeliveryState.RETRYING: events.DELIVERY_RETRIED,
    DeliveryState.DEAD: events.DELIVERY_DIED,
    DeliveryState.VOID: events.DELIVERY_VOIDED,
}


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
        self._notary = Notary(settings, database, log, clock)

    def deliver(self, key: str) -> None:
        """Make the attempt that the key names, unless it was made already."""
        with self._database.read() as ledger:
            consignment = find(ledger, key)
        if consignment is None:
            return
        delivery, pacs = consignment.delivery, self._archives.get(key.split("/")[1])
        self._log.info(events.STEP_STARTED, step="deliver", run=delivery.run_key[:12], destination=delivery.destination)
        if delivery.state is DeliveryState.SENT:
            self._notary.ask(consignment, pacs)
        else:
            self._record(consignment, self._try(consignment, pacs))

    def _try(self, consignment: Consignment, pacs: Pacs | None) -> Outcome:
        """Ask and send, turning whatever is raised into an outcome, so that every attempt has its end in the ledger."""
        try:
            return self._ask_and_send(consignment, pacs)
        except AnotherPatientError as error:
            return Outcome(verdict=Verdict.MISFILED, reason=str(error))
        except NodeError as error:
            return Outcome(verdict=Verdict.FAILED, reason=str(error), taken=None)
        except Exception as error:  # noqa: BLE001 - the edge: an attempt that breaks is tried again with backoff
            self._log.failure(events.DELIVERY_RETRIED, error)
            return Outcome(verdict=Verdict.RETRY, reason=f"the attempt broke: {type(error).__name__}", taken=None)

    def _ask_and_send(self, consignment: Consignment, pacs: Pacs | None) -> Outcome:
        if pacs is None:
            return Outcome(verdict=Verdict.FAILED, reason="this destination is no longer in the configuration")
        load = consignment.load(self._outbox)
        objection = self._ask(consignment, pacs) if self._must_ask(consignment) else None
        if objection is not None:
            return objection
        with self._database.write() as ledger:
            current = deliveries.locked(ledger, consignment.delivery.run_key, pacs.name)
            if current is None or _another(current, consignment.delivery):
                return Outcome(verdict=Verdict.VOID, reason="withdrawn, or to be encoded anew, before it was sent")
            if current.note is None and withdrawals.follow_standing(ledger, consignment.run):
                return Outcome(verdict=Verdict.VOID, reason="it names a withdrawn report: it is encoded anew")
            if current.note is None:
                deliveries.begin(ledger, current, [each.sop_instance_uid for each in load.parcels])
        return self._send(load, pacs)

    def _must_ask(self, consignment: Consignment) -> bool:
        """Say whether this destination has to be asked: unless it answered just before the report was encoded."""
        delivery, run = consignment.delivery, consignment.run
        if delivery.note is not None:
            return False
        kept = run.encodings.get(delivery.encoding)
        asked = kept is not None and kept.asked.get(delivery.destination) == Answer.ANSWERED
        fresh = run.encoded_at is not None and timedelta() <= self._clock() - run.encoded_at <= NOT_DELAYED
        return delivery.attempts > 0 or not (asked and fresh)

    def _ask(self, consignment: Consignment, pacs: Pacs) -> Outcome | None:
        """Ask a destination whose study it is; return why the report must not be sent now, None if it may.

        An archive that does not hold the study, or answers no such question, contradicts nothing. One that has some of
        the report corrected its own copies: the rest is sent as it was begun, for a second report would stand beside.

        Raises:
            AnotherPatientError: if it files the study under somebody else.
        """
        answer, found = demographics.ask(pacs, self._archive_for, consignment.objects[-1].study_instance_uid)
        if answer is Answer.AWAY:
            return Outcome(verdict=Verdict.RETRY, reason="the archive is away: it could not be asked whose study it is")
        if found is None:
            return None
        ids = self._settings.receive.known_as(consignment.ids)
        told = demographics.as_told(consignment.named, found, pacs.name, ids)
        changed = demographics.differing(consignment.named, told)
        if not changed or consignment.begun:
            return None
        return Outcome(
            verdict=Verdict.VOID,
            reason=f"the archive corrected {', '.join(changed)} since the report was encoded: it is encoded anew",
            encoding=encodings.Encoding(demographics=told, asked={pacs.name: answer.value}),
        )

    def _send(self, load: Load, pacs: Pacs) -> Outcome:
        if pacs.dimse is not None:
            return dimse.send(load, pacs.dimse, self._settings.node.ae_title, compress=pacs.compress_saliency)
        if pacs.dicomweb is not None:
            return stow.send(load, pacs.dicomweb)
        assert pacs.orthanc is not None  # noqa: S101 - the configuration demands one of the three
        return orthanc.send(load, pacs.orthanc)

    def _record(self, consignment: Consignment, outcome: Outcome) -> None:
        now, delivery = self._clock(), consignment.delivery
        fields: dict[str, Any] = {"run": delivery.run_key[:12], "destination": delivery.destination}
        fields |= {"attempts": delivery.attempts + 1, "objects": len(outcome.taken or ())}
        with self._database.write() as ledger:
            state = self._change(ledger, delivery, outcome, now)
            patients.touch(ledger, consignment.run.patient_row)
        if state in deliveries.DONE_STATES:
            self._log.info(events.DELIVERY_SENT, **fields)
        elif state is DeliveryState.DEAD:
            self._log.error(EVENTS[state], reason=outcome.reason, **fields)
        else:
            self._log.warning(EVENTS[state], reason=outcome.reason, **fields)

    def _change(self, ledger: Connection, delivery: Delivery, outcome: Outcome, now: datetime) -> DeliveryState:
        current = deliveries.get(ledger, delivery.run_key, delivery.destination)
        if outcome.taken is not None and delivery.note is None:
            deliveries.settle(ledger, delivery, outcome.taken)
        if current is None or _another(current, delivery):
            return DeliveryState.VOID  # withdrawn while it was at work; the note names what went out
        deliveries.remember_class(ledger, delivery, outcome.report_class)
        if outcome.verdict is Verdict.DELIVERED:
            deliveries.sent(ledger, delivery, now, to_commit=self._wants_commitment(delivery))
            return DeliveryState.SENT
        if current.state not in deliveries.OPEN_STATES:
            return current.state  # another destination's answer stopped this delivery while it was at work
        if outcome.verdict is Verdict.VOID:
            return _void(ledger, delivery, outcome, now)
        if outcome.verdict is Verdict.MISFILED:
            deliveries.dead(ledger, delivery, error=outcome.reason)
            deliveries.stop_all(ledger, delivery.run_key, error=outcome.reason)
            return DeliveryState.DEAD
        return self._try_again(ledger, delivery, outcome, now)

    def _wants_commitment(self, delivery: Delivery) -> bool:
        pacs = self._archives.get(delivery.destination)
        return pacs is not None and pacs.storage_commitment.enabled

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


def _another(current: Delivery, delivery: Delivery) -> bool:
    """Say whether a delivery is not any more what this attempt was begun for: the report was withdrawn meanwhile."""
    return job_key(current) != job_key(delivery) or current.note != delivery.note


def _void(ledger: Connection, delivery: Delivery, outcome: Outcome, now: datetime) -> DeliveryState:
    assert outcome.encoding is not None  # noqa: S101 - a void outcome says what takes its place
    deliveries.void(ledger, delivery, error=outcome.reason, now=now)
    encodings.renew(ledger, delivery.run_key, delivery.destination, outcome.encoding, now)
    return DeliveryState.PENDING
