"""Scripted archives: real SCPs that answer as told, and commit themselves when they are told to, or never."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from dicom_node.demo_pacs import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

IMAGES = (MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage, MRImageStorage)
REPORTS = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)
EVERYTHING = (*IMAGES, *REPORTS, KeyObjectSelectionDocumentStorage)
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
NO_SUCH_INSTANCE = 0x0112


@dataclass
class ScriptedArchive:
    """A storage SCP that keeps what it takes, and a storage commitment SCP if asked to be one."""

    name: str = "main"
    classes: tuple[str, ...] = EVERYTHING
    jpeg_ls: bool = False
    statuses: list[int] = field(default_factory=list)  # of the next C-STOREs; then success
    abort_at: int | None = None  # end the association instead of answering the nth C-STORE
    commitment: bool = False
    at_once: bool = False  # report on the association of the request
    on_store: Callable[[], None] = lambda: None
    port: int = field(default_factory=free_port)
    received: list[Dataset] = field(default_factory=list)
    syntaxes: list[str] = field(default_factory=list)
    associations: int = 0
    requests: list[Dataset] = field(default_factory=list)  # Action Information
    ae: AE = field(init=False)

    def __post_init__(self) -> None:
        """Know what to offer."""
        self.ae = AE(ae_title=self.name.upper())
        for sop_class_uid in self.classes:
            compressed = (JPEGLSLossless,) if self.jpeg_ls and sop_class_uid in IMAGES else ()
            self.ae.add_supported_context(sop_class_uid, [*NATIVE, *compressed])
        if self.commitment:
            self.ae.add_supported_context(StorageCommitmentPushModel)

    def start(self) -> ScriptedArchive:
        """Serve."""
        handlers = [
            (evt.EVT_ACCEPTED, self._count),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._request),
        ]
        self.ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def stop(self) -> None:
        """Serve no more."""
        self.ae.shutdown()

    @property
    def configuration(self) -> dict[str, Any]:
        """Its entry in the configuration."""
        dimse = {"ae_title": self.name.upper(), "host": "127.0.0.1", "port": self.port, "timeout_s": 5}
        return {
            "name": self.name,
            "dimse": dimse,
            "retry": {"first_s": 1, "longest_s": 1},
            "storage_commitment": {"enabled": self.commitment, "wait_h": 24, "most_requests": 3},
        }

    @property
    def uids(self) -> list[str]:
        """What it took, in order."""
        return [str(ds.SOPInstanceUID) for ds in self.received]

    def requested(self, index: int = -1) -> list[str]:
        """Return the SOP Instance UIDs of a request for commitment."""
        return [str(each.ReferencedSOPInstanceUID) for each in self.requests[index].ReferencedSOPSequence]

    def report(
        self,
        node_port: int,
        *,
        failed: Collection[str] = (),
        index: int = -1,
        transaction_uid: str | None = None,
        event_type: int | None = None,
    ) -> int:
        """Report on a request over an association of its own, roles reversed; return the node's status."""
        ds = self._event(self.requests[index] if self.requests else None, failed, transaction_uid)
        ae = AE(ae_title=self.name.upper())
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate("127.0.0.1", node_port, ae_title="NODE", ext_neg=[role])
        assert association.is_established
        response, _ = association.send_n_event_report(
            ds, event_type or (2 if failed else 1), StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()
        return int(response.Status)

    def _event(self, request: Dataset | None, failed: Collection[str], transaction_uid: str | None = None) -> Dataset:
        ds = Dataset()
        ds.TransactionUID = transaction_uid or (request.TransactionUID if request else "1.2.3")
        items = list(request.ReferencedSOPSequence) if request else []
        ds.ReferencedSOPSequence = [each for each in items if each.ReferencedSOPInstanceUID not in failed]
        bad = [each for each in items if each.ReferencedSOPInstanceUID in failed]
        for each in bad:
            each.FailureReason = NO_SUCH_INSTANCE
        if bad:
            ds.FailedSOPSequence = bad
        return ds

    def _count(self, _event: evt.Event) -> None:
        self.associations += 1

    def _store(self, event: evt.Event) -> int:
        if self.abort_at is not None and len(self.received) + 1 == self.abort_at:
            event.assoc.abort()
            return 0x0000
        self.on_store()
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            ds = event.dataset
            ds.file_meta = event.file_meta
            self.received.append(ds)
            self.syntaxes.append(str(event.context.transfer_syntax))
        return status

    def _request(self, event: evt.Event) -> tuple[int, None]:
        self.requests.append(event.action_information)
        if self.at_once:
            ds = self._event(self.requests[-1], ())
            event.assoc.send_n_event_report(ds, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        return 0x0000, None
