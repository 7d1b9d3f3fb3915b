"""What every object of a run shares: patient and study, series, equipment, timestamps, character set.

Written with plain pydicom, for highdicom's SOP classes stamp the wall clock, add themselves as equipment, drop patient
attributes and log patient names they find odd.
"""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta, timezone
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydicom import DataElement, Dataset, config, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from sr_templates import codes
from sr_templates.uids import derive_uid
from sr_templates.wording import short_digest

if TYPE_CHECKING:
    from sr_templates.sources import ReportContext

# PS3.3 C.7.1.1, C.7.2.1, C.7.2.2. Type 2 attributes are written empty where the source has none.
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_TYPE_3 = (
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "QualityControlSubject", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyDescription", "ProcedureCodeSequence", "IssuerOfAccessionNumberSequence",
    "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip

NUMBERS_PER_VERSION = 100  # of series; a version may have ten series for each of its time points
MOST_VERSIONS_TOLD_APART = 60  # keeps away from the numbers that scanners give

IMPLEMENTATION_CLASS_UID = UID(derive_uid("implementation", "temporal-dicom-node"))
IMPLEMENTATION_VERSION_NAME = "TEMPORAL_NODE_1"


def new_object(context: ReportContext, *, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return a dataset with SOP Common, Patient, Study, Equipment and fixed timestamps, and its file meta."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = sop_instance_uid
    ds.ContentQualification = "RESEARCH"
    _copy_patient_and_study(context.patient_study, ds)
    _stamp(context, ds)
    _sign(context, ds)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    return ds


def describe_series(ds: Dataset, *, uid: str, number: int, modality: str, description: str, version: int = 1) -> None:
    """Fill in the General Series attributes (PS3.3 C.7.3.1).

    Viewers list the images of a study by Series Number: a later version has a lower one, so that what it replaces never
    stands before it (OHIF 3.12 showed the outdated page first where both had the same).
    """
    ds.SeriesInstanceUID = uid
    ds.SeriesNumber = number - NUMBERS_PER_VERSION * min(version - 1, MOST_VERSIONS_TOLD_APART)
    ds.Modality = modality
    ds.SeriesDescription = description
    ds.InstanceNumber = 1


def to_bytes(ds: Dataset) -> bytes:
    """Return the object as a PS3.10 file; equal objects give equal bytes."""
    file = BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def _copy_patient_and_study(source: Dataset, ds: Dataset) -> None:
    """Copy the attributes that PACS files an object by, person names re-encoded for our character set."""
    ds.StudyInstanceUID = source.StudyInstanceUID
    for keyword in (*_TYPE_2, *_TYPE_3):
        element = _copied(source, keyword)
        if element is not None:
            ds.add(element)
        elif keyword in _TYPE_2:
            setattr(ds, keyword, "")


def _copied(source: Dataset, keyword: str) -> DataElement | None:
    """Return a copy of an attribute; None where it is absent or no number (a weight of `70,5`).

    A scanner's odd value is passed on as it is: changing an ID would make another patient of it.
    """
    if keyword not in source:
        return None
    try:
        element = source[keyword]
        return DataElement(element.tag, element.VR, _re_encodable(element), validation_mode=config.IGNORE)
    except ValueError:
        return None


def _re_encodable(element: DataElement) -> Any:
    """Return the value free of the character set it was read in."""
    if element.VR == "PN":
        return str(element.value or "")
    if element.VR == "SQ":
        items = deepcopy(list(element.value))
        for item in items:
            item.decode()
        return items
    return element.value


def _stamp(context: ReportContext, ds: Dataset) -> None:
    """Write the record's time of issue, in the time zone that the study's own times are in where it tells it."""
    issued = context.record.issued_at
    offset = str(context.patient_study.get("TimezoneOffsetFromUTC", ""))
    if offset:
        ds.TimezoneOffsetFromUTC = offset
        issued = issued.astimezone(_zone(offset))
    day, time = issued.strftime("%Y%m%d"), issued.strftime("%H%M%S")
    for name in ("InstanceCreation", "Content", "Series"):
        setattr(ds, f"{name}Date", day)
        setattr(ds, f"{name}Time", time)


def _zone(offset: str) -> timezone:
    """Return the zone of an offset such as `+0130` (PS3.3 C.12.1.1.8)."""
    parsed = datetime.strptime(offset, "%z").utcoffset()
    return timezone(parsed or timedelta())


def _sign(context: ReportContext, ds: Dataset) -> None:
    """Name the node as equipment, and the model that it ran as contributing equipment.

    Source: PS3.3 C.7.5.1, C.12.1.1.5; the model's digest and the Device UID stand there so that a result can be traced.
    """
    device, model = context.device, context.result.model
    ds.Manufacturer = device.manufacturer
    ds.ManufacturerModelName = device.model_name
    ds.DeviceSerialNumber = device.serial_number
    ds.SoftwareVersions = [device.software_version, f"{model.name} {model.version}"[:64], short_digest(model.digest)]
    ds.StationName = device.station_ae_title
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [codes.PROCESSING_EQUIPMENT]
    item.Manufacturer = device.manufacturer
    item.ManufacturerModelName = model.name[:64]
    item.StationName = device.station_ae_title
    item.DeviceSerialNumber = device.serial_number
    item.DeviceUID = device.uid
    item.SoftwareVersions = [model.version[:64], *_chunks(model.digest)]
    item.ContributionDateTime = context.record.issued_at.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = ("SYNTHETIC PHANTOM MODEL: " if model.synthetic else "") + "AI inference, RESEARCH"
    ds.ContributingEquipmentSequence = [item]


def _chunks(digest: str) -> list[str]:
    """Split a digest over two values, for one of 64 characters and its padding is over the limit of LO."""
    scheme, _, value = digest.rpartition(":")
    return [f"{scheme}:{value[:32]}" if scheme else value[:32], *([value[32:64]] if value[32:] else [])]
