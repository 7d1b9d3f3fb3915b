"""Small MR headers, results and report contexts for the tests of the report templates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from inference.results import (
    Abstention,
    AbstentionKind,
    ModelCard,
    Output,
    PrefixRisk,
    QualityFlag,
    Result,
    SaliencyMap,
    SourceSlice,
)
from sr_templates.sources import (
    Device,
    InstanceRef,
    ReportContext,
    RunRecord,
    SeriesEvidence,
    TimePointEvidence,
)
from sr_templates.uids import derive_uid

SENTINEL_NAME = "SENTINEL^PATIENT"
DAYS = (
    datetime(2024, 1, 10, 9, 30, tzinfo=UTC),
    datetime(2024, 4, 12, 10, 0, tzinfo=UTC),
    datetime(2024, 7, 15, 8, 15, tzinfo=UTC),
    datetime(2024, 10, 18, 11, 45, tzinfo=UTC),
)
SURGERY = date(2023, 11, 9)
SLICES = 5
MATRIX = 64


def mr_header(day: datetime, role: str, z: int) -> Dataset:
    """Return one slice of a small axial MR series with valid patient, study, series and image attributes."""
    study = derive_uid("test study", day)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = derive_uid("test instance", day, role, z)
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = derive_uid("test series", day, role)
    ds.FrameOfReferenceUID = derive_uid("test frame of reference", day)
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = SENTINEL_NAME, "P0001", "TESTHOSP"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19660302", "F", "058Y"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = day.strftime("%H%M%S")
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = f"A{day:%y%m%d}", "S1", "Ref^Doc"
    ds.StudyDescription, ds.SeriesDescription, ds.Modality = "MR BRAIN W WO CONTRAST", role, "MR"
    ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "TEST", 3, z + 1
    ds.ImageType, ds.PositionReferenceIndicator = ["ORIGINAL", "PRIMARY", "M"], ""
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
    ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = 10, 500, 1
    ds.Rows = ds.Columns = MATRIX
    ds.PixelSpacing, ds.SliceThickness = [3.0, 3.0], 5.0
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-96.0, -96.0, -10.0 + 5.0 * z]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.full((MATRIX, MATRIX), 100 + z, dtype=np.uint16).tobytes()
    return ds


def series_evidence(day: datetime, role: str) -> SeriesEvidence:
    """Return the evidence of one small series."""
    headers = [mr_header(day, role, z) for z in range(SLICES)]
    refs = tuple(
        InstanceRef(
            sop_class_uid=each.SOPClassUID,
            sop_instance_uid=each.SOPInstanceUID,
            series_instance_uid=each.SeriesInstanceUID,
            study_instance_uid=each.StudyInstanceUID,
        )
        for each in headers
    )
    return SeriesEvidence(
        role=role,
        study_date=day.date(),
        frame_of_reference_uid=headers[0].FrameOfReferenceUID,
        instances=refs,
        representative=refs[SLICES // 2],
    )


def time_point(day: datetime) -> TimePointEvidence:
    """Return a follow-up with a T1c and a FLAIR series."""
    return TimePointEvidence(
        acquired=day,
        kind="follow-up",
        days_from_surgery=(day.date() - SURGERY).days,
        series=(series_evidence(day, "T1c"), series_evidence(day, "FLAIR")),
    )


def model_card(*, synthetic: bool = False) -> ModelCard:
    """Return a model card, by default of a model trained on patients."""
    return ModelCard(
        name="temporal-recurrence",
        version="1.2.0",
        digest="sha256:" + "3f1a9c0d" * 8,
        training_data="400 simulated phantom patients" if synthetic else "1,200 patients of three hospitals",
        intended_use="research",
        synthetic=synthetic,
    )


def answer(probability: float = 0.713, *, synthetic: bool = False) -> Result:
    """Return a result with an interval, a trajectory and a quality flag."""
    risks = (0.31, 0.42, 0.55, probability)
    return Result(
        task="glioma-recurrence",
        model=model_card(synthetic=synthetic),
        horizon_days=365,
        outputs=(
            Output(
                name="recurrence_365d",
                probability=probability,
                raw_probability=probability,
                lower=max(0.0, probability - 0.091),
                upper=min(1.0, probability + 0.084),
            ),
        ),
        trajectory=tuple(
            PrefixRisk(n_scans=n + 1, acquired=day.date(), probability=risk)
            for n, (day, risk) in enumerate(zip(DAYS, risks, strict=True))
        ),
        flags=(QualityFlag(code="thick-slices", message="slices of 5 mm, model trained on 1-3 mm", time_point=1),),
        saliency_method="integrated gradients",
    )


def no_answer(kind: AbstentionKind = AbstentionKind.INDETERMINATE) -> Result:
    """Return a result that abstains."""
    return Result(
        task="glioma-recurrence",
        model=model_card(),
        horizon_days=365,
        outputs=(),
        abstention=Abstention(kind=kind, reason="images unlike those the model was trained on"),
    )


def device() -> Device:
    """Return a node that signs the reports."""
    return Device(
        name="GLIOTEMP1",
        uid=derive_uid("test device"),
        manufacturer="EXAMPLE-ORG",
        model_name="Temporal AI node",
        software_version="0.1.0",
        station_ae_title="GLIOTEMP1",
        serial_number="0001",
    )


@dataclass(frozen=True)
class ContextBuilder:
    """Makes contexts that differ in one thing at a time."""

    result: Result
    days: tuple[datetime, ...] = DAYS

    def build(self, **changes: object) -> ReportContext:
        """Return a context of four follow-ups issued at a fixed time; `changes` replace its fields."""
        context = ReportContext(
            record=RunRecord(
                run_key="ab" * 32,
                task="glioma-recurrence",
                version=1,
                issued_at=datetime(2024, 10, 18, 18, 30, 5, tzinfo=UTC),
            ),
            patient_study=mr_header(self.days[-1], "T1c", 0),
            time_points=tuple(time_point(day) for day in self.days),
            result=self.result,
            device=device(),
            remarks=("T2 of 2024-10-18 not used: gap in the slices",),
        )
        return replace(context, **changes)  # type: ignore[arg-type]


def report_context(result: Result | None = None, **changes: object) -> ReportContext:
    """Return a context around a result."""
    return ContextBuilder(result=result or answer()).build(**changes)


def saliency_map(time_point: int = len(DAYS) - 1, *, peak: tuple[int, int, int] = (3, 20, 40)) -> SaliencyMap:
    """Return a head-like ball with one warm spot at voxel `peak` (z, y, x) on the T1c of a time point."""
    day = DAYS[time_point]
    z, y, x = np.mgrid[:SLICES, :MATRIX, :MATRIX].astype(np.float32)
    head = (y - 31.5) ** 2 + (x - 31.5) ** 2 < 27**2
    anatomy = np.where(head, 400 + 6 * x + 40 * np.sin(y / 3), 5).astype(np.float32)
    spot = np.exp(-((z - peak[0]) ** 2 / 2 + (y - peak[1]) ** 2 / 18 + (x - peak[2]) ** 2 / 18))
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = (-96.0, -96.0, -10.0)
    headers = [mr_header(day, "T1c", index) for index in range(SLICES)]
    return SaliencyMap(
        time_point=time_point,
        series_instance_uid=headers[0].SeriesInstanceUID,
        frame_of_reference_uid=headers[0].FrameOfReferenceUID,
        values=spot.astype(np.float32),
        anatomy=anatomy,
        affine=affine,
        slices=tuple(
            SourceSlice(sop_class_uid=each.SOPClassUID, sop_instance_uid=each.SOPInstanceUID) for each in headers
        ),
    )
