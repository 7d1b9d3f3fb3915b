"""C-STORE SCU: one association per attempt, its contexts settled before anything is sent, every status read."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless
from pynetdicom import AE, evt

from dicom_node.deliver.outcome import Outcome, Verdict, judge_store_status
from dicom_node.errors import NodeError, UpstreamError
from dicom_node.requestor import MAX_PDU_BYTES, PREPARED, why_not
from dicom_node.tls import requestor_args
from sr_templates.compression import compressed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import FileDataset
    from pynetdicom.association import Association

    from dicom_node.deliver.outcome import Load, Parcel
    from dicom_node.settings import Dimse

NATIVE: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)  # as encoded, and the Standard's default (PS3.5 10.1)
COMPRESSIBLE: Final = "saliency"


def send(load: Load, destination: Dimse, calling_ae_title: str, *, compress: bool = False) -> Outcome:
    """Send every object in order over one association, then the report in the first SOP class that was accepted.

    Nothing is sent where an object's SOP class is refused, or every one of the report's.

    Args:
        load: what to send.
        destination: where to.
        calling_ae_title: ours.
        compress: send saliency in JPEG-LS lossless if the archive accepts it.

    Returns:
        Delivered only if the archive took every object; else why not, and whether to try again.

    Raises:
        NodeError: if an object of the outbox cannot be read.
    """
    try:
        association = associate(_contexts(load.parcels, compress=compress), destination, calling_ae_title)
    except UpstreamError as error:
        return Outcome(verdict=Verdict.RETRY, reason=str(error))
    if not association.is_established:
        if association.rejected_contexts and not association.accepted_contexts:
            return _unwanted(load.parcels)  # pynetdicom has aborted by itself
        return Outcome(verdict=Verdict.RETRY, reason=why_not(association))
    try:
        return _send(association, load)
    finally:
        if association.is_established:
            association.release()


def associate(
    contexts: Sequence[tuple[str, str]],
    destination: Dimse,
    calling_ae_title: str,
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Association:
    """Ask an archive for an association with these (SOP class, transfer syntax); it may have come about or not.

    Raises:
        UpstreamError: if our own TLS files cannot be used now.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = destination.timeout_s
    ae.acse_timeout = destination.timeout_s
    ae.dimse_timeout = destination.timeout_s
    ae.network_timeout = destination.timeout_s
    for sop_class_uid, transfer_syntax in contexts:
        ae.add_requested_context(sop_class_uid, transfer_syntax)
    requested = list(ae.requested_contexts)
    return ae.associate(
        destination.host,
        destination.port,
        contexts=requested,
        ae_title=destination.ae_title,
        max_pdu=MAX_PDU_BYTES,
        evt_handlers=[*PREPARED, *handlers],
        tls_args=requestor_args(destination),
    )


def _contexts(parcels: Sequence[Parcel], *, compress: bool) -> list[tuple[str, str]]:
    found = [(each.sop_class_uid, syntax) for each in parcels for syntax in NATIVE]
    if compress:
        found += [(each.sop_class_uid, JPEGLSLossless) for each in parcels if each.kind == COMPRESSIBLE]
    return list(dict.fromkeys(found))


def _send(association: Association, load: Load) -> Outcome:
    accepted = {(str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in association.accepted_contexts}
    takes = {sop_class for sop_class, syntax in accepted if syntax in NATIVE}
    report = next((each for each in load.reports if each.sop_class_uid in takes), None)
    unwanted = [each for each in load.objects if each.sop_class_uid not in takes]
    if load.reports and report is None:
        unwanted += load.reports
    if unwanted:
        return _unwanted(unwanted)
    taken: list[str] = []
    outcome = Outcome(verdict=Verdict.DELIVERED)
    for parcel in (*load.objects, *((report,) if report else ())):
        smaller = (parcel.sop_class_uid, JPEGLSLossless) in accepted
        outcome = _store(association, _read(parcel, smaller=smaller))
        if outcome.verdict is Verdict.DELIVERED or outcome.taken is None:
            taken.append(parcel.sop_instance_uid)  # taken, or sent without an answer
        if outcome.verdict is not Verdict.DELIVERED:
            break
    return Outcome(
        verdict=outcome.verdict,
        reason=outcome.reason,
        taken=tuple(taken),
        report_class=report.sop_class_uid if report else None,
    )


def _unwanted(parcels: Sequence[Parcel]) -> Outcome:
    classes = ", ".join(dict.fromkeys(each.sop_class_uid for each in parcels))
    reason = f"the archive accepts no presentation context for SOP class {classes}; nothing was sent"
    return Outcome(verdict=Verdict.FAILED, reason=reason)


def _read(parcel: Parcel, *, smaller: bool) -> FileDataset:
    try:
        ds = dcmread(parcel.path)
    except (OSError, InvalidDicomError) as error:
        msg = f"outbox: {parcel.path.name} cannot be read: {type(error).__name__}"
        raise NodeError(msg) from error
    return dcmread(BytesIO(compressed(ds))) if smaller else ds


def _store(association: Association, ds: FileDataset) -> Outcome:
    """Send one object; `taken` is None where its answer was lost."""
    try:
        response = association.send_c_store(ds)
    except RuntimeError:
        return Outcome(verdict=Verdict.RETRY, reason="the association ended before the report was complete")
    if "Status" not in response:
        reason = "no answer to C-STORE before the time-out, or an abort"
        return Outcome(verdict=Verdict.RETRY, reason=reason, taken=None)
    outcome = judge_store_status(response.Status)
    return Outcome(verdict=outcome.verdict, reason=outcome.reason and f"C-STORE {outcome.reason}")
