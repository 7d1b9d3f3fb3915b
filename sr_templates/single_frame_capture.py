"""The saliency of one time point as a series of single-frame Secondary Captures, for archives without multi-frame ones.

Pixels and geometry are those of the multi-frame capture. Position, orientation and frame of reference are no part of
the SC Image IOD: with them it is a Standard Extended SOP Class, and a viewer can link it with the source series.

Source: PS3.3 A.8.1 (SC Image IOD), PS3.2 3.11.4 (Standard Extended SOP Class).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import SecondaryCaptureImageStorage

from sr_templates.headers import new_object
from sr_templates.saliency_capture import describe_capture
from sr_templates.saliency_frames import decimal, draw_frames
from sr_templates.true_colour import add_true_colour_pixels, source_images
from sr_templates.uids import sop_instance_uid

if TYPE_CHECKING:
    from pydicom import Dataset

    from inference.results import SaliencyMap
    from sr_templates.saliency_frames import SaliencyFrames
    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate


def build_saliency_series(
    context: ReportContext, saliency: SaliencyMap, source_header: Dataset, *, template: ReportTemplate
) -> tuple[tuple[Dataset, ...], Dataset]:
    """Return the captures in the order of their slices, and the one with the peak, which stands for the series.

    All are filed in the newest study; `source_header` is of an instance of the map's series.

    Raises:
        ReportError: if the header is of another series or the map is not of this run.
    """
    frames = draw_frames(context, saliency, source_header, template=template)
    captures = []
    for index, pixels in enumerate(frames.pixels):
        ds = new_object(
            context,
            sop_class_uid=SecondaryCaptureImageStorage,
            sop_instance_uid=sop_instance_uid(
                context, SecondaryCaptureImageStorage, f"saliency {saliency.time_point} {index}"
            ),
        )
        describe_capture(ds, context, saliency, frames, template)
        ds.PositionReferenceIndicator = source_header.get("PositionReferenceIndicator", "")
        ds.InstanceNumber = index + 1
        ds.SourceImageSequence = source_images([saliency.slices[frames.slices[index]]])
        _add_geometry(ds, frames, index)
        add_true_colour_pixels(ds, pixels)
        captures.append(ds)
    return tuple(captures), captures[frames.peak]


def _add_geometry(ds: Dataset, frames: SaliencyFrames, index: int) -> None:
    """Write the plane of one capture (PS3.3 C.7.6.2)."""
    position, orientation = frames.position(index), frames.orientation
    ds.PixelSpacing = list(frames.spacing_mm)
    ds.SliceThickness = frames.thickness_mm
    ds.ImageOrientationPatient = orientation
    ds.ImagePositionPatient = position
    ds.SliceLocation = decimal(float(np.dot(np.cross(orientation[:3], orientation[3:]), position)))
