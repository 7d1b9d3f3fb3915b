"""Read rejection notes: the key object selections by which an archive or modality takes images back (IHE IOCM).

As untrusted as images, and read in the same sacrificial child. Other key object selections are nothing to us.

Source: PS3.3 A.35.4 and C.17.6.2 (Key Object Document), PS3.16 CID 7011, IHE RAD TF-3 4.66.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pydicom
from pydicom.uid import UID

from dicom_node.receive.facts import (
    KEY_OBJECT_SELECTION,
    NotAnInput,
    UnreadableInstance,
    blaming_the_file,
    read_patient,
)
from dicom_node.timeline.rejection import RejectionNote, RejectionTitle

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

MOST_INSTANCES: Final = 100_000  # ten large studies; a note names what was acquired in one visit
LONGEST_UID: Final = 64  # PS3.5 9.1


def read_note(path: Path, *, default_issuer: str) -> RejectionNote:
    """Read a key object selection as a rejection note.

    Args:
        path: a Part 10 file of that SOP class.
        default_issuer: the issuer of the PatientID where the object names none.

    Raises:
        NotAnInput: if its title says that it is something else, as a radiologist's bookmarks.
        UnreadableInstance: if it is a rejection note that does not say whose or which instances.
    """
    with blaming_the_file():
        ds = pydicom.dcmread(path)
        title = _title(ds)
        if title is None:
            raise NotAnInput(KEY_OBJECT_SELECTION, str(ds.get("SOPClassUID") or ""))
        if not str(ds.get("PatientID") or "").strip(" \0"):
            raise UnreadableInstance("missing", "PatientID")
        studies, instances = _evidence(ds)
        return RejectionNote(
            sop_instance_uid=_uid(ds, "SOPInstanceUID"),
            title=title,
            patient=read_patient(ds, default_issuer),
            study_instance_uids=studies,
            sop_instance_uids=instances,
        )


def _title(ds: Dataset) -> RejectionTitle | None:
    """Return the document title if it is one of CID 7011, by code value and scheme; the meaning is for people."""
    for code in ds.get("ConceptNameCodeSequence") or ():
        value = str(code.get("CodeValue") or "").strip()
        if str(code.get("CodingSchemeDesignator") or "").strip() == "DCM" and value in set(RejectionTitle):
            return RejectionTitle(value)
    return None


def _evidence(ds: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Collect the studies and instances that a note names, each once, in order of UID."""
    studies: set[str] = set()
    instances: set[str] = set()
    for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or ():
        studies.add(_uid(study, "StudyInstanceUID"))
        for series in study.get("ReferencedSeriesSequence") or ():
            instances |= {_uid(item, "ReferencedSOPInstanceUID") for item in series.get("ReferencedSOPSequence") or ()}
    if not 0 < len(instances) <= MOST_INSTANCES:
        raise UnreadableInstance("bad-evidence", f"a rejection note that names {len(instances)} instances")
    return tuple(sorted(studies)), tuple(sorted(instances))


def _uid(ds: Dataset, keyword: str) -> str:
    uid = UID(str(ds.get(keyword) or ""))
    if len(uid) > LONGEST_UID or not uid.is_valid:
        raise UnreadableInstance("invalid-uid", keyword)
    return str(uid)
