"""The saliency of one time point as a multi-frame true-colour Secondary Capture with geometry: one instance to open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from sr_templates import wording
from sr_templates.headers import describe_series, new_object
from sr_templates.saliency_frames import draw_frames
from sr_templates.true_colour import add_true_colour_pixels, source_images
from sr_templates.uids import series_instance_uid, sop_instance_uid

if TYPE_CHECKING:
    from inference.results import SaliencyMap
    from sr_templates.saliency_frames import SaliencyFrames
    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

SERIES_NUMBER = 9002  # of the newest time point; each older one's is 10 more


def build_saliency(
    context: ReportContext, saliency: SaliencyMap, source_header: Dataset, *, template: ReportTemplate
) -> Dataset:
    """Return the capture, filed in the newest study; `source_header` is of an instance of the map's series.

    Raises:
        ReportError: if the header is of another series or the map is not of this run.
    """
    frames = draw_frames(context, saliency, source_header, template=template)
    sop_class_uid = MultiFrameTrueColorSecondaryCaptureImageStorage
    ds = new_object(
        context,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid(context, sop_class_uid, saliency.time_point),
    )
    describe_capture(ds, context, saliency, frames, template)
    ds.PositionReferenceIndicator = source_header.get("PositionReferenceIndicator", "")
    ds.SourceImageSequence = source_images(saliency.slices[index] for index in frames.slices)
    count = len(frames.slices)
    ds.NumberOfFrames = count
    ds.FrameIncrementPointer = 0x00182001
    ds.PageNumberVector = list(range(1, count + 1))
    ds.RepresentativeFrameNumber = frames.peak + 1  # PS3.3 C.7.6.9; OHIF 3.12 does not read it
    add_true_colour_pixels(ds, frames.pixels)
    _add_geometry(ds, frames)
    return ds


def describe_capture(
    ds: Dataset, context: ReportContext, saliency: SaliencyMap, frames: SaliencyFrames, template: ReportTemplate
) -> None:
    """Fill in series, kind of image and what it is not, as every capture of a time point's saliency says it.

    Source: PS3.3 C.7.3.1, C.7.6.1, C.8.6.1 (conversion), C.7.4.1 (frame of reference).
    """
    describe_series(
        ds,
        uid=series_instance_uid(context, f"saliency {saliency.time_point}"),
        number=SERIES_NUMBER + 10 * (len(context.time_points) - 1 - saliency.time_point),
        modality="OT",
        description=f"{template.series_descriptions.saliency} {frames.role} {frames.day}",
        version=context.record.version,
    )
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.FrameOfReferenceUID = saliency.frame_of_reference_uid
    ds.BodyPartExamined = "HEAD"
    ds.PatientOrientation = ""
    ds.DerivationDescription = frames.description
    ds.ImageComments = f"{'. '.join(wording.warnings(context, template))}. {template.wording.not_a_lesion}"


def _add_geometry(ds: Dataset, frames: SaliencyFrames) -> None:
    """Write spacing and orientation once, the position per frame (PS3.3 C.7.6.16.2.1, .3, .4)."""
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(frames.spacing_mm)
    measures.SliceThickness = frames.thickness_mm
    measures.SpacingBetweenSlices = frames.step_mm
    orientation.ImageOrientationPatient = frames.orientation
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    per_frame = []
    for frame in range(len(frames.slices)):
        position, item = Dataset(), Dataset()
        position.ImagePositionPatient = frames.position(frame)
        item.PlanePositionSequence = [position]
        per_frame.append(item)
    ds.PerFrameFunctionalGroupsSequence = per_frame
