"""The note that takes a report back: a Key Object Selection that names what an archive holds of it (IHE IOCM).

Header and evidence come from the objects themselves as they were sent, so that the note joins them wherever they are
filed. An archive that manages changes of imaging objects hides what the note names; any other keeps the note beside
it, where a reader finds it.

Source: PS3.3 A.35.4 and C.17.6 (Key Object Selection Document), PS3.16 TID 2010, IHE RAD TF-3 4.66.4.1.3.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
)

from sr_templates.errors import ReportError
from sr_templates.headers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, describe_series
from sr_templates.measurement_report import hierarchy
from sr_templates.uids import derive_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_templates.sources import InstanceRef


class RejectionTitle(StrEnum):
    """Why a report is taken back: the note's document title, a code of the scheme DCM (CID 7010)."""

    QUALITY = "113001"
    PATIENT_SAFETY = "113037"


MEANINGS: Final = {
    RejectionTitle.QUALITY: "Rejected for Quality Reasons",
    RejectionTitle.PATIENT_SAFETY: "Rejected for Patient Safety Reasons",
}
DESCRIPTION: Final = CodedConcept("113012", "DCM", "Key Object Description")
TEXT: Final = "AI RESULT WITHDRAWN - DO NOT USE. These objects are not valid any more. RESEARCH USE ONLY."
SERIES_DESCRIPTION: Final = "RUO AI result withdrawn"
SERIES_NUMBER: Final = 9090
DOCUMENTS: Final = frozenset({Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage})
COPIED: Final = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "ContentQualification", "ContributingEquipmentSequence",
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "PatientBirthDate", "PatientSex", "QualityControlSubject", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "PatientAge", "PatientSize", "PatientWeight",
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "StudyDescription", "ProcedureCodeSequence",
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName",
)  # fmt: skip


def build_rejection_note(
    source: Dataset, rejected: Sequence[InstanceRef], *, title: RejectionTitle, run_key: str, withdrawn_at: datetime
) -> Dataset:
    """Return the note; the same arguments give the same bytes.

    Args:
        source: an object of the report as it was sent; patient, study and equipment are taken from it.
        rejected: what the archive holds of the report, in the order of sending.
        title: why.
        run_key: of the run that is withdrawn.
        withdrawn_at: tz-aware.

    Raises:
        ReportError: if there is nothing to reject, or the time has no zone.
    """
    if not rejected or withdrawn_at.utcoffset() is None:
        msg = f"rejection note: expected objects and a time with a zone, found {len(rejected)} objects"
        raise ReportError(msg)
    named = sorted(each.sop_instance_uid for each in rejected)
    uid = derive_uid("rejection note", run_key, title, *named)
    ds = Dataset()
    for keyword in COPIED:
        if keyword in source:
            ds.add(deepcopy(source[keyword]))
    ds.SOPClassUID, ds.SOPInstanceUID = KeyObjectSelectionDocumentStorage, uid
    series_uid = derive_uid("rejection series", run_key, title, *named)
    describe_series(ds, uid=series_uid, number=SERIES_NUMBER, modality="KO", description=SERIES_DESCRIPTION)
    _stamp(ds, withdrawn_at)
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.CurrentRequestedProcedureEvidenceSequence = hierarchy(rejected)
    _fill(ds, rejected, title)
    ds.file_meta = _file_meta(uid)
    return ds


def _stamp(ds: Dataset, withdrawn_at: datetime) -> None:
    """Write the time of withdrawal, in the zone that the study's own times are in where the object tells it."""
    offset = str(ds.get("TimezoneOffsetFromUTC", ""))
    zone = datetime.strptime(offset, "%z").tzinfo if offset else withdrawn_at.tzinfo
    moment = withdrawn_at.astimezone(zone)
    for name in ("InstanceCreation", "Content", "Series"):
        setattr(ds, f"{name}Date", moment.strftime("%Y%m%d"))
        setattr(ds, f"{name}Time", moment.strftime("%H%M%S"))


def _fill(ds: Dataset, rejected: Sequence[InstanceRef], title: RejectionTitle) -> None:
    """Write the content tree: title, a sentence for people, and each object (TID 2010)."""
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [CodedConcept(title.value, "DCM", MEANINGS[title])]
    ds.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    ds.ContentTemplateSequence = [template]
    text = Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence = [DESCRIPTION]
    text.TextValue = TEXT
    ds.ContentSequence = [text, *(_reference(each) for each in rejected)]


def _reference(rejected: InstanceRef) -> Dataset:
    sop = Dataset()
    sop.ReferencedSOPClassUID = rejected.sop_class_uid
    sop.ReferencedSOPInstanceUID = rejected.sop_instance_uid
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "COMPOSITE" if rejected.sop_class_uid in DOCUMENTS else "IMAGE"
    item.ReferencedSOPSequence = [sop]
    return item


def _file_meta(uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    meta.MediaStorageSOPInstanceUID = UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
