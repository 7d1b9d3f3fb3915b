"""Whose a file is, for files that are no inputs and of which nothing else is kept."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import pydicom

from dicom_node.errors import PeerError
from dicom_node.receive.facts import blaming_the_file, read_patient

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def patient_named_in(
    path: Path, *, default_issuer: str, issuer_aliases: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, str] | None:
    """Return (issuer, PatientID) as a file says, None if it cannot be told.

    Nothing is decoded, but an untrusted header is parsed: for a verb run by hand, never for a process that serves.
    """
    try:
        with blaming_the_file():
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", "IssuerOfPatientID"])
            issuer, patient_id = read_patient(ds, default_issuer).key
            return issuer_aliases.get(issuer, issuer), patient_id
    except PeerError:
        return None
