"""The C-ECHO and C-STORE SCP. 0x0000 is answered only after file, folder and ledger row are durable (invariant 1).

Three objects: pynetdicom keeps the protocol, `Door` decides who may enter, `Reception` makes bytes durable.

Where storage commitment is configured, archives report on it here, on associations with the roles reversed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import time
from sqlalchemy.exc import SQLAlchemyError

from dicom_node import events
from dicom_node.deliver.commitment_reports import PUSH_MODEL, CommitmentReports
from dicom_node.ledger import presence
from dicom_node.receive import statuses
from dicom_node.receive.contexts import NATIVE, storage_contexts
from dicom_node.receive.door import Door
from dicom_node.receive.reception import Reception, StoreRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.transport import ThreadedAssociationServer

    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.settings import Settings


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
                (evt.EVT_C_STORE, self._store),
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

    def _store(self, event: Event) -> int:
        request = cast("C_STORE", event.request)
        return self._reception.store(
            StoreRequest(
                calling_ae_title=event.assoc.requestor.ae_title.strip(),
                address=event.assoc.requestor.address,
                sop_class_uid=str(request.AffectedSOPClassUID or ""),
                sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                priority=request.Priority,
                move_originator=(request.MoveOriginatorApplicationEntityTitle or "").strip(),
            ),
            None if request.DataSet is None else request.DataSet.getbuffer(),
        )

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
