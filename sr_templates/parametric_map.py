"""The saliency of one time point as numbers: a Parametric Map in the frame of reference of its source slices.

highdicom writes geometry, dimensions and pixels from planes that carry no patient; who and when come from the run's
record as in every object of a run, for highdicom takes them from the clock and from the source.

Source: PS3.3 A.75 (Parametric Map IOD), PS3.16 CID 217 (visual explanations of AI).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from highdicom.content import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import MRImageStorage, ParametricMapStorage

from sr_templates import wording
from sr_templates.headers import describe_series, new_object
from sr_templates.saliency_frames import decimal, shown_series
from sr_templates.true_colour import source_images
from sr_templates.uids import derive_uid, series_instance_uid, sop_instance_uid

if TYPE_CHECKING:
    from inference.results import SaliencyMap
    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

SERIES_NUMBER: Final = 9004  # of the newest time point; each older one's is 10 more
SALIENCY: Final = CodedConcept("130404", "DCM", "Saliency")
# What a method must call itself for a narrower code, the narrowest first.
QUANTITIES: Final = (
    ("gradient-weighted class activation", CodedConcept("130403", "DCM", "Gradient-weighted class activation")),
    ("grad-cam", CodedConcept("130403", "DCM", "Gradient-weighted class activation")),
    ("class activation", CodedConcept("130402", "DCM", "Class activation")),
)
NO_UNITS: Final = CodedConcept("1", "UCUM", "no units")
_FROM_HIGHDICOM: Final = (
    "PixelPresentation", "DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "ImageType", "AcquisitionContextSequence",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    "BurnedInAnnotation", "RecognizableVisualFeatures", "LossyImageCompression", "PresentationLUTShape",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "FloatPixelData",
)  # fmt: skip


def build_parametric_map(
    context: ReportContext, saliency: SaliencyMap, source_header: Dataset, *, template: ReportTemplate
) -> Dataset:
    """Return the map, filed in the newest study; `source_header` is of an instance of the map's series.

    Every slice is a frame, and nothing is cut off below the threshold; the window begins there.

    Raises:
        ReportError: if the header is of another series or the map is not of this run.
    """
    series = shown_series(context, saliency, source_header)
    written = _written(context, saliency, source_header, template.saliency_threshold)
    place = saliency.time_point
    ds = new_object(
        context,
        sop_class_uid=ParametricMapStorage,
        sop_instance_uid=sop_instance_uid(context, ParametricMapStorage, place),
    )
    day = context.time_points[place].acquired.date().isoformat()
    describe_series(
        ds,
        uid=series_instance_uid(context, f"parametric map {place}"),
        number=SERIES_NUMBER + 10 * (len(context.time_points) - 1 - place),
        modality="OT",
        description=f"{template.series_descriptions.saliency} map {series.role} {day}",
        version=context.record.version,
    )
    for keyword in _FROM_HIGHDICOM:
        ds.add(written[keyword])
    ds.BodyPartExamined = "HEAD"
    ds.ContentLabel = "AI_SALIENCY"
    ds.ContentDescription = template.wording.not_a_lesion[:64]
    ds.ContentCreatorName = ""
    ds.ImageComments = f"{'. '.join(wording.warnings(context, template))}. {template.wording.not_a_lesion}"
    ds.SourceImageSequence = source_images(saliency.slices)
    _refer_to_series(ds, context, saliency, series.instances[0].study_instance_uid)
    _refer_to_slices(ds, saliency, context.result.saliency_method or "")
    _name_dimensions(ds, derive_uid("dimensions", ds.SOPInstanceUID))
    return ds


def quantity(method: str | None) -> CodedConcept:
    """Return what the values are, as the method's own description says."""
    said = (method or "").lower()
    return next((code for words, code in QUANTITIES if words in said), SALIENCY)


def _written(context: ReportContext, saliency: SaliencyMap, source_header: Dataset, threshold: float) -> ParametricMap:
    """Let highdicom write the map."""
    model = context.result.model
    mapping = RealWorldValueMapping(
        lut_label="SALIENCY",
        lut_explanation="AI saliency, share of the maximum",
        unit=NO_UNITS,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=quantity(context.result.saliency_method),
    )
    window = VOILUTTransformation(
        window_center=decimal((1 + threshold) / 2),
        window_width=decimal(1 - threshold),
        window_explanation="coloured part of the capture",
        voi_lut_function="LINEAR_EXACT",  # LINEAR knows no window narrower than 1
    )
    return ParametricMap(
        source_images=_planes(saliency, source_header),
        pixel_array=saliency.values.astype(np.float32),
        series_instance_uid=series_instance_uid(context, "not used"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=sop_instance_uid(context, ParametricMapStorage, "not used"),
        instance_number=1,
        manufacturer=context.device.manufacturer,
        manufacturer_model_name=context.device.model_name,
        software_versions=model.version,
        device_serial_number=context.device.serial_number,
        contains_recognizable_visual_features=False,  # values only, no anatomy
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
    )


def _planes(saliency: SaliencyMap, source_header: Dataset) -> list[Dataset]:
    """Return the source slices as images that say where they lie and nothing of the patient."""
    steps = np.linalg.norm(saliency.affine[:3, :3], axis=0)
    directions = saliency.affine[:3, :3] / steps
    planes = []
    for index in range(len(saliency.slices)):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, derive_uid("plane", index)  # frames are planes as well
        ds.StudyInstanceUID, ds.SeriesInstanceUID = source_header.StudyInstanceUID, saliency.series_instance_uid
        ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
        ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
        ds.Modality = "MR"
        ds.FrameOfReferenceUID = saliency.frame_of_reference_uid
        ds.PositionReferenceIndicator = source_header.get("PositionReferenceIndicator", "")
        ds.Rows, ds.Columns = saliency.values.shape[1:]
        ds.PixelSpacing = [decimal(steps[1]), decimal(steps[0])]
        ds.SliceThickness = ds.SpacingBetweenSlices = decimal(steps[2])
        ds.ImageOrientationPatient = [decimal(value) for value in (*directions[:, 0], *directions[:, 1])]
        ds.ImagePositionPatient = [decimal(value) for value in (saliency.affine @ (0.0, 0.0, index, 1.0))[:3]]
        planes.append(ds)
    return planes


def _refer_to_series(ds: Dataset, context: ReportContext, saliency: SaliencyMap, source_study: str) -> None:
    """Name the source series: as one of this study, or of an older one (PS3.3 C.12.2)."""
    series = Dataset()
    series.SeriesInstanceUID = saliency.series_instance_uid
    series.ReferencedInstanceSequence = source_images(replace(each, frame=None) for each in saliency.slices)
    if source_study == context.study_instance_uid:
        ds.ReferencedSeriesSequence = [series]
        return
    study = Dataset()
    study.StudyInstanceUID = source_study
    study.ReferencedSeriesSequence = [series]
    ds.StudiesContainingOtherReferencedInstancesSequence = [study]


def _refer_to_slices(ds: Dataset, saliency: SaliencyMap, method: str) -> None:
    """Name the source of each frame, and how its values came about; frames stand in highdicom's order."""
    to_voxels = np.linalg.inv(saliency.affine)
    for group in ds.PerFrameFunctionalGroupsSequence:
        position = (*group.PlanePositionSequence[0].ImagePositionPatient, 1.0)
        source = saliency.slices[round(float((to_voxels @ np.array(position, dtype=float))[2]))]
        derivation = group.DerivationImageSequence[0]
        derivation.DerivationDescription = method
        item = derivation.SourceImageSequence[0]
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class_uid, source.sop_instance_uid
        if source.frame is not None:
            item.ReferencedFrameNumber = source.frame


def _name_dimensions(ds: Dataset, uid: str) -> None:
    """Replace highdicom's random Dimension Organization UID."""
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
