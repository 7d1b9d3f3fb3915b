"""MR images to send, made at run time: 256 x 256 of 16 bits, about a hundred attributes, a private block; 141 KB each.

They are marked as a phantom's (Quality Control Subject, PS3.3 C.7.1.1), so that nobody's report is ever made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from sr_templates.uids import derive_uid

if TYPE_CHECKING:
    from pathlib import Path

MATRIX: Final = 256
PRIVATE_BYTES: Final = 8192
SERIES_PER_STUDY: Final = 4
ISSUER: Final = "BENCHMARK"

_SAME_IN_ALL: Final[dict[str, Any]] = {
    "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], "Modality": "MR",
    "StudyDate": "20260105", "SeriesDate": "20260105", "AcquisitionDate": "20260105", "ContentDate": "20260105",
    "StudyTime": "093000.000", "SeriesTime": "093100.000", "AcquisitionTime": "093130.500", "ContentTime": "094500.000",
    "InstanceCreationDate": "20260105", "InstanceCreationTime": "094501.000", "Manufacturer": "SYNTHETIC",
    "InstitutionName": "BENCHMARK", "InstitutionAddress": "NOWHERE 1", "ReferringPhysicianName": "NOBODY",
    "StationName": "BENCH1", "StudyDescription": "MR BRAIN", "PerformingPhysicianName": "NOBODY",
    "InstitutionalDepartmentName": "NONE", "ManufacturerModelName": "Generator", "PatientName": "BENCHMARK^PHANTOM",
    "PatientSex": "O", "PatientBirthDate": "19700101", "PatientAge": "056Y", "PatientSize": "1.75",
    "PatientWeight": "75", "QualityControlSubject": "YES", "IssuerOfPatientID": ISSUER, "BodyPartExamined": "BRAIN",
    "ScanningSequence": ["SE", "IR"], "SequenceVariant": ["SK", "SP", "MP"], "ScanOptions": ["PFP", "FS"],
    "MRAcquisitionType": "2D", "SequenceName": "*tir2d1_16", "AngioFlag": "N", "SliceThickness": "0.9",
    "RepetitionTime": "9000", "EchoTime": "95", "InversionTime": "2500", "NumberOfAverages": "1",
    "ImagingFrequency": "123.254", "ImagedNucleus": "1H", "EchoNumbers": "1", "MagneticFieldStrength": "3",
    "SpacingBetweenSlices": "0.9", "NumberOfPhaseEncodingSteps": "219", "EchoTrainLength": "16",
    "PercentSampling": "100", "PercentPhaseFieldOfView": "100", "PixelBandwidth": "220", "DeviceSerialNumber": "1",
    "SoftwareVersions": "1", "ProtocolName": "t2_tir_tra_dark-fluid", "TransmitCoilName": "Body",
    "AcquisitionMatrix": [0, 256, 219, 0], "InPlanePhaseEncodingDirection": "ROW", "FlipAngle": "150",
    "VariableFlipAngleFlag": "N", "SAR": "0.6", "dBdt": "0", "PatientPosition": "HFS", "StudyID": "1",
    "AccessionNumber": "", "AcquisitionNumber": "1", "PositionReferenceIndicator": "", "Laterality": "",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"], "PixelSpacing": ["0.9", "0.9"],
    "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": MATRIX, "Columns": MATRIX,
    "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
    "SmallestImagePixelValue": 0, "LargestImagePixelValue": 4095, "WindowCenter": "800", "WindowWidth": "1600",
    "WindowCenterWidthExplanation": "Algo1", "RescaleSlope": "1", "RescaleIntercept": "0", "RescaleType": "US",
    "RequestingPhysician": "NOBODY", "RequestedProcedureDescription": "MR BRAIN",
    "PerformedProcedureStepStartDate": "20260105", "PerformedProcedureStepStartTime": "093000.000",
    "PerformedProcedureStepID": "1", "PerformedProcedureStepDescription": "MR BRAIN", "PatientComments": "SYNTHETIC",
    "ImageComments": "", "PresentationLUTShape": "IDENTITY", "LossyImageCompression": "00",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How many images: series of so many slices; four series make a study, each of a patient of its own."""

    series: int = 16
    slices: int = 176

    @property
    def instances(self) -> int:
        """All of them."""
        return self.series * self.slices


def write_images(folder: Path, name: str, amount: Amount) -> list[Path]:
    """Write images in Explicit VR Little Endian, a folder per series; another name gives other UIDs.

    Returns:
        The folders of the series.

    Raises:
        OSError: if the disk says no.
    """
    folders = []
    for number in range(amount.series):
        ds = _series(name, number)
        rng = np.random.default_rng([number, len(name), *name.encode()])
        folders.append(folder / f"study-{number // SERIES_PER_STUDY}" / f"series-{number}")
        folders[-1].mkdir(parents=True)
        for z in range(amount.slices):
            _slice(ds, (name, number, z), rng)
            ds.save_as(folders[-1] / f"{z:04d}.dcm", enforce_file_format=True)
    return folders


def _series(name: str, number: int) -> Dataset:
    """Return what all slices of a series share."""
    study = number // SERIES_PER_STUDY
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    for keyword, value in _SAME_IN_ALL.items():
        setattr(ds, keyword, value)
    ds.PatientID = derive_uid("benchmark patient", name, study)[-12:]
    ds.StudyInstanceUID = derive_uid("benchmark study", name, study)
    ds.SeriesInstanceUID = derive_uid("benchmark series", name, number)
    ds.FrameOfReferenceUID = derive_uid("benchmark frame of reference", name, study)
    ds.SeriesNumber, ds.SeriesDescription = number + 1, "t2_tir_tra_dark-fluid"
    ds.ReferencedImageSequence = Items([_reference(name, number, z) for z in range(3)])
    block = ds.private_block(0x0029, "DICOM NODE BENCHMARK", create=True)
    block.add_new(0x10, "OB", np.random.default_rng(number).bytes(PRIVATE_BYTES))
    return ds


def _reference(name: str, number: int, z: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = MRImageStorage
    item.ReferencedSOPInstanceUID = derive_uid("benchmark localizer", name, number, z)
    return item


def _slice(ds: Dataset, what: tuple[str, int, int], rng: np.random.Generator) -> None:
    """Make the data set that of one slice: a ramp with noise, so that no two are alike."""
    z = what[2]
    uid = UID(derive_uid("benchmark instance", *what))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.InstanceNumber = z + 1
    ds.SliceLocation = f"{0.9 * z:.1f}"
    ds.ImagePositionPatient = ["-115", "-115", f"{0.9 * z:.1f}"]
    ramp = np.arange(MATRIX, dtype=np.uint16)[:, None]
    ds.PixelData = (ramp + rng.integers(0, 512, (MATRIX, MATRIX), dtype=np.uint16)).astype("<u2").tobytes()
