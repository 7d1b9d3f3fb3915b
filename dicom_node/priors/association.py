"""An association with an archive as SCU of the Study Root Query/Retrieve model, and what its statuses mean to us."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pynetdicom import AE, evt

from dicom_node.errors import PeerError, UpstreamError
from dicom_node.priors.archive import CannotBeAsked
from dicom_node.requestor import MAX_PDU_BYTES, PREPARED, why_not
from dicom_node.tls import requestor_args

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom import Dataset
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
    from pynetdicom.presentation import PresentationContext

    from dicom_node.settings import Dimse

SUCCESS: Final = 0x0000
WARNING: Final = 0xB000  # sub-operations complete, one or more failures or warnings (PS3.4 C.4.2.1.5)
PENDING: Final = frozenset({0xFF00, 0xFF01})
WILL_NOT_CHANGE: Final = {  # PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4; PS3.7 C.5
    0xA801: "it does not know our AE title as a move destination",
    0xA900: "it finds the identifier does not match the SOP class",
    0x0122: "it does not support the SOP class",
    0x0124: "it does not authorise us",
    0x0211: "it does not recognise the operation",
}


@contextmanager
def associated(
    archive: Dimse,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Iterator[Association]:
    """Give an established association, released at the end, or aborted if the work with it broke off.

    Raises:
        UpstreamError: if the archive is away or rejects us, or our own TLS files cannot be used now.
        CannotBeAsked: if it takes no part in any of these services.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = archive.timeout_s
    ae.acse_timeout = archive.timeout_s
    ae.dimse_timeout = archive.timeout_s
    ae.network_timeout = archive.timeout_s
    ae.requested_contexts = list(contexts)
    association = ae.associate(
        archive.host,
        archive.port,
        ae_title=archive.ae_title,
        max_pdu=MAX_PDU_BYTES,
        ext_neg=list(roles),
        evt_handlers=[*PREPARED, *handlers],
        tls_args=requestor_args(archive),
    )
    if association.rejected_contexts and not association.accepted_contexts:
        msg = "the archive accepts no presentation context for what we ask"  # pynetdicom has aborted by itself
        raise CannotBeAsked(msg)
    if not association.is_established:
        raise UpstreamError(why_not(association))
    try:
        yield association
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


def require(association: Association, sop_class_uid: str) -> None:
    """Check that the archive accepted the service.

    Raises:
        CannotBeAsked: if it did not.
    """
    if not any(each.abstract_syntax == sop_class_uid for each in association.accepted_contexts):
        msg = f"the archive accepts no presentation context for SOP class {sop_class_uid}"
        raise CannotBeAsked(msg)


def status_of(response: Dataset, operation: str) -> int:
    """Return the status of a response.

    Raises:
        UpstreamError: if there was none: a time-out, an abort, or a message that is no response.
    """
    if "Status" not in response:
        msg = f"no answer to {operation} before the time-out, or the association ended"
        raise UpstreamError(msg)
    return int(response.Status)


def refusal(status: int, operation: str) -> PeerError | UpstreamError:
    """Return what a final status that is neither success nor warning means: ask in another way, or later."""
    if status in WILL_NOT_CHANGE:
        return CannotBeAsked(f"{operation} status 0x{status:04X}: {WILL_NOT_CHANGE[status]}")
    return UpstreamError(f"{operation} status 0x{status:04X}: the archive cannot answer now")
