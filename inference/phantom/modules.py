"""DICOM modules that every phantom object carries: patient, study, series, equipment, and the mark that it is none.

Source: PS3.3 C.7.1 to C.7.5, C.12.1. QualityControlSubject (0010,0200) YES is what the node trusts.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from inference.phantom.headers import Wording, wording
from inference.phantom.signal import Sequence

if TYPE_CHECKING:
    from inference.phantom.patient import PhantomPatient, Visit

STATEMENT = "SYNTHETIC PHANTOM - NOT A PATIENT"
ISSUER = "PHANTOM"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "phantom.temporal-dicom-node")
_IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}")


def deterministic_uid(*parts: object) -> UID:
    """Return the UID `2.25.<uuid5>` of a name; the same parts give the same UID."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(str(part) for part in parts)).int}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of one visit, as the writers need it."""

    patient: PhantomPatient
    visit_index: int
    number: int
    name: str  # role, or "localizer"
    volumetric: bool
    vendor: str
    variant: str = ""  # keeps UIDs of differently written copies apart

    @property
    def visit(self) -> Visit:
        """Return the visit."""
        return self.patient.visits[self.visit_index]

    @property
    def key(self) -> tuple[object, ...]:
        """Return what identifies this series among all phantoms."""
        return (*self.study_key, self.number, self.name)

    @property
    def study_key(self) -> tuple[object, ...]:
        """Return what identifies its study."""
        patient = self.patient
        return (patient.patient_id, patient.nuisance_seed, self.visit.acquired, self.visit_index, self.variant)

    @property
    def sequence(self) -> Sequence:
        """Return the protocol; a localizer is a fast T1-weighted scan."""
        role = "T1" if self.name == "localizer" else self.name
        return self.patient.population.sequence(role, volumetric=self.volumetric, field_t=self.visit.scanner.field_t)

    @property
    def words(self) -> Wording:
        """Return the vendor's words."""
        role = "T1" if self.name == "localizer" else self.name
        return wording(self.vendor, role, self.sequence, volumetric=self.volumetric)

    @property
    def started(self) -> datetime:
        """Return when the series' acquisition began, scanner's local time."""
        minutes = 5 * self.number + self.patient.seed % 300
        return datetime.combine(self.visit.acquired, time(8, 30)) + timedelta(minutes=minutes)


def new_object(series: Series, sop_class_uid: UID, instance_key: object) -> Dataset:
    """Return an object with the modules that all share, ready for its image modules."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = _IMPLEMENTATION
    ds.file_meta.MediaStorageSOPClassUID = sop_class_uid
    ds.file_meta.MediaStorageSOPInstanceUID = deterministic_uid(*series.key, instance_key)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    _add_patient(ds, series.patient, series.visit)
    _add_study(ds, series)
    _add_series(ds, series)
    _add_equipment(ds, series)
    return ds


def _add_patient(ds: Dataset, patient: PhantomPatient, visit: Visit) -> None:
    years = (visit.acquired - patient.born).days // 365.25
    ds.PatientName = f"PHANTOM^{patient.seed}"
    ds.PatientID = patient.patient_id
    ds.IssuerOfPatientID = ISSUER
    ds.PatientBirthDate = dicom_date(patient.born)
    ds.PatientSex = patient.sex
    ds.PatientAge = f"{int(years):03d}Y"
    ds.PatientWeight = round(75 - 55 * math.exp(-years / 9), 1)
    ds.PatientSize = round(1.75 - 0.8 * math.exp(-years / 7), 2)
    ds.QualityControlSubject = "YES"
    ds.PatientComments = STATEMENT
    ds.ImageComments = STATEMENT


def _add_study(ds: Dataset, series: Series) -> None:
    begin = datetime.combine(series.visit.acquired, time(8, 25)) + timedelta(minutes=series.patient.seed % 300)
    ds.StudyInstanceUID = deterministic_uid(*series.study_key, "study")
    ds.StudyDate, ds.StudyTime = dicom_date(begin), dicom_time(begin)
    ds.StudyID = f"{series.patient.seed % 10000}{series.visit_index}"
    ds.AccessionNumber = f"P{series.patient.seed:06d}{series.visit_index:02d}"
    ds.StudyDescription = "MR BRAIN W/WO CONTRAST" if series.vendor == "ge" else "MRI Brain"
    ds.ReferringPhysicianName = ""


def _add_series(ds: Dataset, series: Series) -> None:
    ds.Modality = "MR"
    ds.SeriesInstanceUID = deterministic_uid(*series.key, "series")
    ds.SeriesNumber = series.number
    ds.SeriesDate, ds.SeriesTime = dicom_date(series.started), dicom_time(series.started)
    ds.SeriesDescription = "localizer" if series.name == "localizer" else series.words.description
    ds.ProtocolName = ds.SeriesDescription
    ds.BodyPartExamined = "BRAIN" if series.vendor == "ge" else "HEAD"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = deterministic_uid(*series.study_key, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.PerformedProcedureStepStartDate = dicom_date(series.started)
    ds.PerformedProcedureStepStartTime = dicom_time(series.started)
    ds.PerformedProcedureStepID = f"PPS{series.visit_index}"


def _add_equipment(ds: Dataset, series: Series) -> None:
    machine = series.visit.scanner
    ds.Manufacturer = machine.manufacturer
    ds.ManufacturerModelName = machine.model
    ds.DeviceSerialNumber = machine.serial
    ds.SoftwareVersions = machine.software
    ds.StationName = machine.station
    ds.InstitutionName = machine.institution


def dicom_date(value: date) -> str:
    """Return a DA value."""
    return value.strftime("%Y%m%d")


def dicom_time(value: datetime) -> str:
    """Return a TM value."""
    return value.strftime("%H%M%S")


def dicom_datetime(value: datetime) -> str:
    """Return a DT value without an offset: scanners rarely send one."""
    return value.strftime("%Y%m%d%H%M%S")
