"""What one attempt is about: a delivery, its run, and the objects that lie in the outbox for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.deliver.outcome import Load, Parcel
from dicom_node.errors import NodeError
from dicom_node.ledger import deliveries, encodings, identity, patients, runs

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.deliveries import Delivery
    from dicom_node.ledger.encodings import Demographics
    from dicom_node.ledger.runs import OutboxObject, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Consignment:
    """A delivery with the objects to send, or sent, and every (issuer, PatientID) of the patient."""

    delivery: Delivery
    run: Run
    objects: list[OutboxObject]
    ids: list[tuple[str, str]]
    begun: bool  # the destination holds some of the run's objects, or may

    @property
    def named(self) -> Demographics:
        """Whom the report names; of one encoded by a version that kept no record of it only the ID is known."""
        kept = self.run.encodings.get(self.delivery.encoding)
        if kept is not None:
            return kept.demographics
        return encodings.Demographics(issuer=self.run.issuer, patient_id=self.run.patient_id)

    def load(self, outbox: Path) -> Load:
        """Return the files to send.

        Raises:
            NodeError: if one of them is lost, or is not the one that was encoded.
        """
        missing = [each.path for each in self.objects if not (outbox / each.path).is_file()]
        if missing or not self.objects:
            msg = f"outbox: expected {len(self.objects)} objects, missing {', '.join(missing) or 'all'}"
            raise NodeError(msg)
        for each in self.objects:
            _refuse_changed(each, outbox)
        reports = [each for each in self.objects if each.kind.startswith(deliveries.REPORT)]
        others = [each for each in self.objects if each not in reports]
        return Load(
            objects=tuple(_parcel(each, outbox) for each in others),
            reports=tuple(_parcel(each, outbox) for each in reports),
        )


def job_key(delivery: Delivery) -> str:
    """Return the key of the next attempt of a delivery."""
    return f"{delivery.run_key}/{delivery.destination}/{delivery.attempts + 1}"


def find(ledger: Connection, key: str) -> Consignment | None:
    """Return what a job key names; None where nothing is to be done under it any more."""
    run_key, destination, _ = key.split("/")
    delivery, run = deliveries.get(ledger, run_key, destination), runs.get(ledger, run_key)
    if delivery is None or run is None or job_key(delivery) != key or not deliveries.is_open(delivery):
        return None
    sent = delivery.state in deliveries.DONE_STATES
    objects = deliveries.awaited(ledger, delivery) if sent else deliveries.contents(ledger, delivery)
    if not objects and delivery.encoding > 1:
        return None  # voided by another destination's answer since this attempt was due; due again once made
    return Consignment(
        delivery=delivery,
        run=run,
        objects=objects,
        ids=identity.ids_of(ledger, patients.survivor(ledger, run.patient_row)),
        begun=bool(deliveries.held_by(ledger, delivery)),
    )


def _refuse_changed(found: OutboxObject, outbox: Path) -> None:
    try:
        with (outbox / found.path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        msg = f"outbox: {found.path} cannot be read: {type(error).__name__}"
        raise NodeError(msg) from error
    if sha256 != found.sha256:
        msg = f"outbox: {found.path}: expected sha256 {found.sha256}, found {sha256}"
        raise NodeError(msg)


def _parcel(found: OutboxObject, outbox: Path) -> Parcel:
    return Parcel(
        path=outbox / found.path,
        sop_class_uid=found.sop_class_uid,
        sop_instance_uid=found.sop_instance_uid,
        kind=found.kind,
    )
