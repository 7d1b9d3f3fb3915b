"""The saliency of one time point on its own anatomy: a multi-frame true-colour Secondary Capture with geometry.

Colour shows only above a stated threshold; every frame says that it is no lesion outline. Frame positions are those of
the source slices, so that a viewer's cross-reference lines and linked scrolling hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage
from scipy.ndimage import zoom

from sr_templates import wording
from sr_templates.drawing import fused, laid_over, legend, windowed
from sr_templates.errors import ReportError
from sr_templates.headers import describe_series, new_object
from sr_templates.uids import series_instance_uid, sop_instance_uid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from inference.results import SaliencyMap, SourceSlice
    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

SERIES_NUMBER = 9002
_READABLE_PX = 384  # below this many pixels, burned-in text cannot be read
_LARGEST_FACTOR = 4
_FRAME_STEP_MM = 3.0  # thinner slices are not all shown: 160 frames of 1 mm would be 100 MB and no easier to read


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Frames:
    """What is shown: `slices` index the map, `factors` (row, column) enlarge it to square pixels."""

    slices: tuple[int, ...]
    factors: tuple[float, float]
    shape: tuple[int, int]  # (rows, columns) after enlarging
    affine: NDArray[np.float64]  # (x, y, z) of enlarged pixels and source slices to LPS millimetres


def build_saliency(
    context: ReportContext, saliency: SaliencyMap, source_header: Dataset, *, template: ReportTemplate
) -> Dataset:
    """Return the capture, filed in the newest study; `source_header` is of an instance of the map's series.

    Raises:
        ReportError: if the header is of another series or the map is not of this run.
    """
    if source_header.SeriesInstanceUID != saliency.series_instance_uid:
        msg = "saliency capture: expected the header of the map's own series, found another series'"
        raise ReportError(msg)
    role = _role(context, saliency)
    day = context.time_points[saliency.time_point].acquired.date().isoformat()
    frames = _choose_frames(saliency)
    lines = (wording.short_warning(context), f"{role} of {day}", wording.NOT_A_LESION)
    pixels = _render(saliency, frames, lines, template.saliency_threshold)

    sop_class_uid = MultiFrameTrueColorSecondaryCaptureImageStorage
    ds = new_object(
        context,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid(context, sop_class_uid, saliency.time_point),
    )
    describe_series(
        ds,
        uid=series_instance_uid(context, f"saliency {saliency.time_point}"),
        number=SERIES_NUMBER + 10 * (len(context.time_points) - 1 - saliency.time_point),
        modality="OT",
        description=f"{template.series_descriptions.saliency} {role} {day}",
    )
    _describe_image(ds, saliency, frames, template.saliency_threshold)
    ds.ImageComments = f"{'. '.join(wording.warnings(context))}. {wording.NOT_A_LESION}"
    ds.PositionReferenceIndicator = source_header.get("PositionReferenceIndicator", "")
    add_true_colour_pixels(ds, pixels)
    _add_geometry(ds, frames)
    return ds


def add_true_colour_pixels(ds: Dataset, pixels: NDArray[np.uint8]) -> None:
    """Fill in the Image Pixel attributes from RGB pixels of shape (..., H, W, 3) (PS3.3 C.7.6.3)."""
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[-3:-1]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "YES"  # a date is burned in (PS3.15 E.1 counts it as identifying)
    data = pixels.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)


def source_images(slices: Iterable[SourceSlice]) -> list[Dataset]:
    """Return the Source Image Sequence: each instance once, with the frames used of a multi-frame one."""
    frames: dict[tuple[str, str], list[int]] = {}
    for each in slices:
        numbers = frames.setdefault((each.sop_class_uid, each.sop_instance_uid), [])
        if each.frame is not None:
            numbers.append(each.frame)
    items = []
    for (sop_class_uid, instance_uid), numbers in frames.items():
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = instance_uid
        if numbers:
            item.ReferencedFrameNumber = numbers
        items.append(item)
    return items


def _role(context: ReportContext, saliency: SaliencyMap) -> str:
    """Return the role of the series that the map lies on."""
    if not 0 <= saliency.time_point < len(context.time_points):
        msg = f"saliency capture: expected a time point below {len(context.time_points)}, found {saliency.time_point}"
        raise ReportError(msg)
    for series in context.time_points[saliency.time_point].series:
        if series.instances[0].series_instance_uid == saliency.series_instance_uid:
            return series.role
    msg = f"saliency capture: expected a series of time point {saliency.time_point}, found a map of another series"
    raise ReportError(msg)


def _choose_frames(saliency: SaliencyMap) -> _Frames:
    """Choose slices about 3 mm apart, the one with the peak among them, and a size at which text can be read."""
    planes, rows, columns = saliency.values.shape
    step_x, step_y, step_z = np.linalg.norm(saliency.affine[:3, :3], axis=0)
    stride = max(1, int(_FRAME_STEP_MM / step_z + 1e-6))
    peak = int(np.unravel_index(int(np.argmax(saliency.values)), saliency.values.shape)[0])
    finest = min(step_x, step_y)
    size = max(rows * step_y, columns * step_x) / finest
    enlarge = min(_LARGEST_FACTOR, max(1, int(np.ceil(_READABLE_PX / size))))
    shape = (round(rows * step_y / finest * enlarge), round(columns * step_x / finest * enlarge))
    factors = (shape[0] / rows, shape[1] / columns)
    return _Frames(
        slices=tuple(range(peak % stride, planes, stride)),
        factors=factors,
        shape=shape,
        affine=_enlarged(saliency.affine, factors),
    )


def _enlarged(affine: NDArray[np.float64], factors: tuple[float, float]) -> NDArray[np.float64]:
    """Return the affine of the enlarged grid: outer pixel edges stay, so the first centre moves outward."""
    factor_y, factor_x = factors
    scaled = affine.copy()
    scaled[:3, 0] = affine[:3, 0] / factor_x
    scaled[:3, 1] = affine[:3, 1] / factor_y
    scaled[:3, 3] = affine[:3, 3] - (affine[:3, 0] - scaled[:3, 0]) / 2 - (affine[:3, 1] - scaled[:3, 1]) / 2
    return scaled


def _render(saliency: SaliencyMap, frames: _Frames, lines: tuple[str, ...], threshold: float) -> NDArray[np.uint8]:
    """Return the frames, shape (Z, Y, X, 3)."""
    chosen = list(frames.slices)
    scale = (1.0, *frames.factors)
    grey = windowed(saliency.anatomy)[chosen].astype(np.float32)  # (Z, Y, X), one window for all slices
    anatomy = zoom(grey, scale, order=1, mode="nearest", grid_mode=True)
    values = zoom(saliency.values[chosen], scale, order=1, mode="nearest", grid_mode=True)
    rgb = fused(np.clip(anatomy, 0, 255).astype(np.uint8), values, threshold)
    return laid_over(rgb, legend(*frames.shape, lines, threshold))


def _describe_image(ds: Dataset, saliency: SaliencyMap, frames: _Frames, threshold: float) -> None:
    """Fill in what kind of image this is and what it was derived from (PS3.3 C.7.6.1, C.8.6)."""
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.FrameOfReferenceUID = saliency.frame_of_reference_uid
    ds.BodyPartExamined = "HEAD"
    count = len(frames.slices)
    ds.NumberOfFrames = count
    ds.FrameIncrementPointer = 0x00182001
    ds.PageNumberVector = list(range(1, count + 1))
    ds.PatientOrientation = ""
    ds.DerivationDescription = (
        f"AI saliency over windowed anatomy; colour from {threshold:.2f} of the maximum; {count} of "
        f"{len(saliency.slices)} slices shown; enlarged {frames.factors[0]:.2f} x {frames.factors[1]:.2f}"
    )
    ds.SourceImageSequence = source_images(saliency.slices[index] for index in frames.slices)


def _add_geometry(ds: Dataset, frames: _Frames) -> None:
    """Write spacing and orientation once, the position per frame (PS3.3 C.7.6.16.2.1, .3, .4)."""
    steps = np.linalg.norm(frames.affine[:3, :3], axis=0)
    directions = frames.affine[:3, :3] / steps
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [_decimal(steps[1]), _decimal(steps[0])]  # between rows, between columns
    measures.SliceThickness = _decimal(steps[2])
    spacing = steps[2] * (frames.slices[1] - frames.slices[0]) if len(frames.slices) > 1 else steps[2]
    measures.SpacingBetweenSlices = _decimal(spacing)
    orientation.ImageOrientationPatient = [_decimal(each) for each in (*directions[:, 0], *directions[:, 1])]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    per_frame = []
    for index in frames.slices:
        position, item = Dataset(), Dataset()
        position.ImagePositionPatient = [_decimal(each) for each in (frames.affine @ (0.0, 0.0, index, 1.0))[:3]]
        item.PlanePositionSequence = [position]
        per_frame.append(item)
    ds.PerFrameFunctionalGroupsSequence = per_frame


def _decimal(value: float) -> float:
    """Return a number that fits DS (16 characters) in every case: micrometre-fine, and no negative zero."""
    return round(float(value), 6) + 0.0
