"""The C-ECHO and C-STORE SCP. 0x0000 is answered only after file, folder and ledger row are durable (invariant 1).

pynetdicom keeps the protocol, `Door` decides who may enter, `Reception` makes bytes durable. With `engine: fast`,
`FastEngine` reads the data of associations that are plainly for storage; everything else stays pynetdicom's.

Where storage commitment is configured, archives report on it here, on associations with the roles reversed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import time

from dicom_node import events
from dicom_node.deliver.commitment_reports import PUSH_MODEL, CommitmentReports
from dicom_node.receive import secure_port, statuses
from dicom_node.receive.admission import Admission
from dicom_node.receive.contexts import NATIVE, storage_contexts
from dicom_node.receive.door import Door
from dicom_node.receive.fast import FastEngine
from dicom_node.receive.lull import Lull
from dicom_node.receive.reception import Reception, StoreRequest
from dicom_node.receive.tally import Tally
from dicom_node.receive.threshold import Threshold

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
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
        lull: Lull | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._database = database
        self._log = log
        self._door = Door(settings, files)
        self._tally = Tally(log)
        self._reception = Reception(database, files, self._door, log, lull or Lull())
        self._fast = self._fast_engine() if settings.receive.engine == "fast" else None
        self._commitments = CommitmentReports(settings, database, log, clock)
        self._admission = Admission(self._door, database, log)
        self._threshold = Threshold(
            most=settings.receive.max_associations,
            max_pdu_bytes=settings.receive.max_pdu_bytes,
            idle_timeout_s=settings.receive.idle_timeout_s,
            knows=self._door.knows,
            refused=self._admission.count,
        )
        self._ae = self._application_entity()
        self._servers: list[ThreadedAssociationServer] = []

    @property
    def port(self) -> int:
        """The plain port."""
        return self._settings.node.port

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: if a port is taken, or a file that TLS needs cannot be used.
        """
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_REQUESTED, self._admission.admit),
            (evt.EVT_REJECTED, self._admission.too_many),
            *self._threshold.handlers,
            *self._tally.handlers,
            (evt.EVT_C_ECHO, lambda _event: statuses.SUCCESS),
            (evt.EVT_C_STORE, self._store),
            *(self._fast.handlers if self._fast else ()),
            *self._commitments.handlers,
        ]
        host, receive = self._settings.node.host, self._settings.receive
        if receive.plain:
            plain = self._ae.start_server((host, self.port), block=False, evt_handlers=handlers)
            self._servers.append(cast("ThreadedAssociationServer", plain))
            self._log.info(events.LISTENER_STARTED, port=self.port)
        if receive.tls.enabled:
            refuse, address = partial(self._admission.count, ""), (host, receive.tls.port)
            self._servers.append(
                secure_port.serve(self._ae, address, handlers, settings=receive.tls, log=self._log, refuse=refuse)
            )
            self._log.info(events.LISTENER_STARTED, port=receive.tls.port)

    def stop(self) -> None:
        """Take no new associations and end the open ones."""
        for server in self._servers:
            server.shutdown()
        if self._servers:
            if self._fast is not None:
                self._fast.stop()
            self._ae.shutdown()
            self._reception.close()
            self._servers = []

    def _fast_engine(self) -> FastEngine:
        receive = self._settings.receive
        return FastEngine(
            self._reception,
            self._tally,
            self._log,
            sop_classes=frozenset(sop_class_uid for sop_class_uid, _ in storage_contexts(receive)),
            idle_timeout_s=receive.idle_timeout_s,
            max_pdu_bytes=receive.max_pdu_bytes,
        )

    def _application_entity(self) -> AE:
        receive = self._settings.receive
        ae = AE(ae_title=self._settings.node.ae_title)
        ae.maximum_associations = self._threshold.pynetdicom_limit
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
        status = self._reception.store(
            StoreRequest(
                calling_ae_title=event.assoc.requestor.ae_title.strip(),
                address=event.assoc.requestor.address,
                abstract_syntax_uid=str(event.context.abstract_syntax),
                sop_class_uid=str(request.AffectedSOPClassUID or ""),
                sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                priority=request.Priority,
                move_originator=(request.MoveOriginatorApplicationEntityTitle or "").strip(),
            ),
            None if request.DataSet is None else request.DataSet.getbuffer(),
        )
        if status == statuses.SUCCESS:
            self._tally.stored(event.assoc)
        return status
