"""C-STORE SCU: one association per report, every status read."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, evt

from dicom_node.deliver.outcome import DELIVERED, Outcome, Parcel, Verdict, judge_store_status
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from dicom_node.settings import Dimse


def send(parcels: Sequence[Parcel], destination: Dimse, calling_ae_title: str) -> Outcome:
    """Send every object in order over one association.

    Returns:
        Delivered only if the archive took every object; else why not, and whether to try again.

    Raises:
        NodeError: if an object of the outbox cannot be read.
    """
    association = _associate(parcels, destination, calling_ae_title)
    if not association.is_established:
        return Outcome(verdict=Verdict.RETRY, reason=_why_not(association))
    try:
        for parcel in parcels:
            outcome = _store(association, parcel)
            if outcome.verdict is not Verdict.DELIVERED:
                return outcome
    finally:
        if association.is_established:
            association.release()
    return DELIVERED


def _associate(parcels: Sequence[Parcel], destination: Dimse, calling_ae_title: str) -> Association:
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = destination.timeout_s
    ae.acse_timeout = destination.timeout_s
    ae.dimse_timeout = destination.timeout_s
    ae.network_timeout = destination.timeout_s
    for parcel in parcels:
        ae.add_requested_context(parcel.sop_class_uid, _transfer_syntax(parcel))
    return ae.associate(
        destination.host,
        destination.port,
        ae_title=destination.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once)],
    )


def _transfer_syntax(parcel: Parcel) -> str:
    return str(_read(parcel, header_only=True).file_meta.TransferSyntaxUID)


def _read(parcel: Parcel, *, header_only: bool = False):  # type: ignore[no-untyped-def] # pydicom's FileDataset
    try:
        return dcmread(parcel.path, stop_before_pixels=header_only)
    except (OSError, InvalidDicomError) as error:
        msg = f"outbox: {parcel.path.name} cannot be read: {type(error).__name__}"
        raise NodeError(msg) from error


def _send_at_once(event: Event) -> None:
    """Switch Nagle's algorithm off: with delayed ACKs it costs 40 ms an object."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _store(association: Association, parcel: Parcel) -> Outcome:
    try:
        response = association.send_c_store(_read(parcel))
    except ValueError:
        reason = f"the archive accepts no presentation context for SOP class {parcel.sop_class_uid}"
        return Outcome(verdict=Verdict.FAILED, reason=reason)
    except RuntimeError:
        return Outcome(verdict=Verdict.RETRY, reason="the association ended before the report was complete")
    if "Status" not in response:
        return Outcome(verdict=Verdict.RETRY, reason="no answer to C-STORE before the time-out, or an abort")
    return judge_store_status(response.Status)


def _why_not(association: Association) -> str:
    if association.is_rejected:
        return "the archive rejected the association (AE titles or address not known there?)"
    return "no connection to the archive, or it did not answer the association request"
