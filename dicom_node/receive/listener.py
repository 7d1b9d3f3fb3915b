"""The C-ECHO and C-STORE SCP. 0x0000 is answered only after file, folder and ledger row are durable (invariant 1).

Three objects: pynetdicom keeps the protocol, `Door` decides who may enter, `Reception` makes bytes durable. The
listener never parses what it stores; it trusts only the command set, and of that only checked UIDs.

Where storage commitment is configured, archives report on it here, on associations with the roles reversed.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import time
from sqlalchemy.exc import SQLAlchemyError

from dicom_node import events
from dicom_node.deliver.commitment_reports import PUSH_MODEL, CommitmentReports
from dicom_node.ledger import arrivals, presence, prior_series
from dicom_node.receive import statuses
from dicom_node.receive.contexts import NATIVE, storage_contexts
from dicom_node.receive.uids import is_uid
from dicom_node.settings import UNKNOWN_ISSUER, Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.transport import ThreadedAssociationServer

    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.settings import Dimse, Settings

DOCUMENTS: Final = "1.2.840.10008.5.1.4.1.1.88."  # first part of the SR and KO classes, PS3.4 B.5
STAT_PRIORITY: Final = 1  # (0000,0700) HIGH, PS3.7 9.1.1


class Door:
    """Who may enter: called AE title, calling AE title with its addresses, and room on the disk.

    An archive that we ask to move older studies to us, or for storage commitment, may enter too, without an entry of
    its own among the peers.
    """

    def __init__(self, settings: Settings, files: InstanceFiles) -> None:
        self._settings = settings
        self._files = files
        self._movers = [pacs for pacs in settings.pacs if pacs.dimse is not None and "c-move" in pacs.priors.methods]
        self._only_mover: Peer | None = None  # resolved when first needed
        self._expected = [
            pacs for pacs in settings.pacs if pacs.dimse is not None and pacs.storage_commitment.enabled
        ] + self._movers
        self._peers = {peer.ae_title: peer for peer in settings.receive.peers}

    def peer(self, calling_ae_title: str) -> Peer | None:
        """Return the peer of this title: a configured one, or an archive that comes because we asked it something.

        Raises:
            OSError: if the archive's host name cannot be resolved.
        """
        if calling_ae_title not in self._peers:
            for pacs in self._expected:
                if pacs.dimse is not None and pacs.dimse.ae_title == calling_ae_title:
                    self._peers[calling_ae_title] = _archive(pacs.dimse, pacs.default_issuer)
        return self._peers.get(calling_ae_title)

    def named_archive(self, calling_ae_title: str, move_originator: str) -> str | None:
        """Return the archive that sends under its own title because we asked it to, None if the sender came by itself.

        Source: PS3.7 9.1.1 (Move Originator Application Entity Title).
        """
        if move_originator != self._settings.node.ae_title:
            return None
        titles = {pacs.dimse.ae_title: pacs.name for pacs in self._movers if pacs.dimse is not None}
        return titles.get(calling_ae_title)

    def unnamed_archive(self, move_originator: str, *, address: str, sop_class_uid: str) -> str | None:
        """Return the archive that a sender under another title may be: the only one, from its own address.

        Anybody can say that we asked for what is sent: whether something is fetched from the archive at this moment is
        left to be seen, and a report or a note is never taken so, for it would be believed.
        """
        if move_originator != self._settings.node.ae_title or len(self._movers) != 1:
            return None
        if sop_class_uid.startswith(DOCUMENTS):
            return None
        (pacs,) = self._movers
        try:
            if self._only_mover is None and pacs.dimse is not None:
                self._only_mover = _archive(pacs.dimse, pacs.default_issuer)
            known = self._only_mover is not None and self._only_mover.allows(address)
        except (OSError, ValueError):  # its host has no address now: what comes is kept as sent by somebody
            return None
        return pacs.name if known else None

    def rejection(self, calling: str, called: str, address: str) -> statuses.Rejection | None:
        """Return why an association must be refused, None if it may be accepted."""
        if called != self._settings.node.ae_title:
            return statuses.UNKNOWN_CALLED_AE
        peer = self.peer(calling)
        if peer is None and not self._settings.receive.allow_unknown_peers:
            return statuses.UNKNOWN_CALLING_AE
        if peer is not None and not peer.allows(address):
            return statuses.WRONG_ADDRESS
        if self._files.free_gb() < self._settings.receive.min_free_disk_gb:
            return statuses.DISK_LOW
        return None


def _archive(archive: Dimse, default_issuer: str | None) -> Peer:
    """Return an archive as a peer: whatever its host name resolves to today, it may call from."""
    addresses = sorted({str(each[4][0]) for each in socket.getaddrinfo(archive.host, None)})
    return Peer(ae_title=archive.ae_title, hosts=tuple(addresses), default_issuer=default_issuer or UNKNOWN_ISSUER)


class Reception:
    """Makes one received object durable and enters it into the ledger."""

    def __init__(self, database: Database, files: InstanceFiles, door: Door, log: Log) -> None:
        self._database = database
        self._files = files
        self._door = door
        self._log = log

    def store(self, event: Event) -> int:
        """Answer a C-STORE request.

        Returns:
            0x0000 only when bytes and row are durable; 0xA700 if we lack the means; 0xC000 if it cannot be stored.
        """
        request = cast("C_STORE", event.request)
        uid = str(request.AffectedSOPInstanceUID or "")
        if not is_uid(uid) or request.DataSet is None:
            return self._refuse(uid, statuses.CANNOT_UNDERSTAND, "no legal SOP Instance UID or no data set")
        try:
            relative = self._files.write((event.encoded_dataset(),))
        except OSError as error:
            return self._refuse(uid, statuses.OUT_OF_RESOURCES, f"disk: {error.strerror}")
        try:
            self._enter(event, request, relative)
        except SQLAlchemyError as error:
            self._files.remove(relative)
            return self._refuse(uid, statuses.OUT_OF_RESOURCES, f"ledger: {type(error).__name__}")
        self._log.info(events.INSTANCE_STORED, instance=self._log.pseudonym(uid), status=statuses.NAMES[0])
        return statuses.SUCCESS

    def _enter(self, event: Event, request: C_STORE, relative: str) -> None:
        calling = event.assoc.requestor.ae_title.strip()
        peer = self._door.peer(calling)
        arrival = arrivals.Arrival(
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            sop_class_uid=str(request.AffectedSOPClassUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            path=relative,
            size_bytes=self._files.path(relative).stat().st_size,
            calling_ae_title=calling,
            default_issuer=peer.default_issuer if peer else UNKNOWN_ISSUER,
            stat=request.Priority == STAT_PRIORITY or (peer is not None and peer.stat),
            received_at=datetime.now(UTC),
            fetched_from=self._fetched_from(event, request, calling),
        )
        with self._database.write() as ledger:
            arrivals.record(ledger, arrival)

    def _fetched_from(self, event: Event, request: C_STORE, calling: str) -> str | None:
        """Return the archive that sends because we asked it to, None if the sender came by itself."""
        originator = (request.MoveOriginatorApplicationEntityTitle or "").strip()
        named = self._door.named_archive(calling, originator)
        if named is not None:
            return named
        sop_class_uid = str(request.AffectedSOPClassUID)
        address = event.assoc.requestor.address
        unnamed = self._door.unnamed_archive(originator, address=address, sop_class_uid=sop_class_uid)
        if unnamed is None:
            return None
        with self._database.read() as ledger:
            return unnamed if prior_series.is_fetching(ledger, unnamed) else None

    def _refuse(self, uid: str, status: int, reason: str) -> int:
        self._log.warning(
            events.INSTANCE_REFUSED, instance=self._log.pseudonym(uid), status=statuses.NAMES[status], reason=reason
        )
        return status


class Listener:
    """Serves on the configured port. `start()` returns when peers can connect, `stop()` when nobody is connected."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        files: InstanceFiles,
        log: Log,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._database = database
        self._log = log
        self._door = Door(settings, files)
        self._reception = Reception(database, files, self._door, log)
        self._commitments = CommitmentReports(settings, database, log, clock)
        self._ae = self._application_entity()
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._settings.node.port

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: if the port is taken.
        """
        self._server = self._ae.start_server(
            (self._settings.node.host, self._settings.node.port),
            block=False,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._admit),
                (evt.EVT_REJECTED, self._too_many),
                (evt.EVT_C_ECHO, lambda _event: statuses.SUCCESS),
                (evt.EVT_C_STORE, self._reception.store),
                *self._commitments.handlers,
            ],
        )
        self._log.info(events.LISTENER_STARTED, port=self.port)

    def stop(self) -> None:
        """Take no new associations and end the open ones."""
        if self._server is not None:
            self._server.shutdown()
            self._ae.shutdown()
            self._server = None

    def _application_entity(self) -> AE:
        receive = self._settings.receive
        ae = AE(ae_title=self._settings.node.ae_title)
        ae.maximum_associations = receive.max_associations
        ae.maximum_pdu_size = receive.max_pdu_bytes
        ae.network_timeout = receive.idle_timeout_s
        ae.acse_timeout = 30
        ae.dimse_timeout = 30
        ae.add_supported_context(Verification, list(NATIVE[:2]))
        for sop_class_uid, transfer_syntaxes in storage_contexts(receive):
            ae.add_supported_context(sop_class_uid, list(transfer_syntaxes))
        if any(pacs.storage_commitment.enabled for pacs in self._settings.pacs):
            ae.add_supported_context(PUSH_MODEL, list(NATIVE[:2]), scu_role=False, scp_role=True)
        return ae

    def _admit(self, event: Event) -> None:
        request = event.assoc.requestor
        primitive = cast("A_ASSOCIATE", request.primitive)
        calling, called = primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()
        try:
            rejection = self._door.rejection(calling, called, request.address)
        except (OSError, ValueError) as error:  # what cannot be judged may not enter
            self._log.failure(events.ASSOCIATION_REFUSED, error)
            rejection = statuses.UNDECIDED
        if rejection is not None:
            event.assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            event.assoc.kill()
            self._count(calling, request.address, rejection.reason)

    def _too_many(self, event: Event) -> None:
        request = event.assoc.requestor
        self._count(str(request.ae_title).strip(), request.address, statuses.TOO_MANY.reason)

    def _count(self, calling: str, address: str, reason: str) -> None:
        self._log.warning(events.ASSOCIATION_REFUSED, calling_ae_title=calling, address=address, reason=reason)
        try:
            with self._database.write() as ledger:
                presence.refused(
                    ledger, calling_ae_title=calling[:16], address=address[:64], reason=reason, now=datetime.now(UTC)
                )
        except SQLAlchemyError as error:
            self._log.failure(events.ASSOCIATION_REFUSED, error)
