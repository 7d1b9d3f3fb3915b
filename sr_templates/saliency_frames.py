"""What a saliency capture shows, whatever object carries it: which slices, how large, where they lie, their pixels.

Anatomy is grey; colour shows only above a stated threshold, and every frame says that it is no lesion outline. What is
written stands on black above and beside the slice and hides nothing of it. Frames lie where their source slices lie, so
that a viewer's cross-reference lines and linked scrolling hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import zoom

from sr_templates import wording
from sr_templates.drawing import fused, laid_over, legend, margins, windowed
from sr_templates.errors import ReportError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from inference.results import SaliencyMap
    from sr_templates.sources import ReportContext, SeriesEvidence
    from sr_templates.template import ReportTemplate

_READABLE_PX = 384  # below this many pixels, burned-in text cannot be read
_LARGEST_FACTOR = 4.0
_FRAME_STEP_MM = 3.0  # thinner slices are not all shown: 160 frames of 1 mm would be 100 MB and no easier to read


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SaliencyFrames:
    """The frames of one time point: `pixels` (Z, Y, X, 3); frame n shows slice `slices[n]` of the map.

    `affine` (4, 4) takes (column, row, slice of the map) of the enlarged frames to LPS millimetres.
    """

    role: str
    day: str  # ISO 8601
    description: str  # how the frames were derived
    slices: tuple[int, ...]
    affine: NDArray[np.float64]
    pixels: NDArray[np.uint8]
    peak: int  # the frame with the largest value

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Return the distance between rows and between columns, as Pixel Spacing orders them."""
        x, y, _ = np.linalg.norm(self.affine[:3, :3], axis=0)
        return decimal(y), decimal(x)

    @property
    def thickness_mm(self) -> float:
        """Return how far apart the slices of the map are, shown or not."""
        return decimal(float(np.linalg.norm(self.affine[:3, 2])))

    @property
    def step_mm(self) -> float:
        """Return how far apart the frames are."""
        stride = self.slices[1] - self.slices[0] if len(self.slices) > 1 else 1
        return decimal(self.thickness_mm * stride)

    @property
    def orientation(self) -> list[float]:
        """Return Image Orientation (Patient): the directions of a row and of a column."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return [decimal(each) for each in (*directions[:, 0], *directions[:, 1])]

    def position(self, frame: int) -> list[float]:
        """Return Image Position (Patient) of a frame, counted from 0: the centre of its first pixel."""
        return [decimal(each) for each in (self.affine @ (0.0, 0.0, self.slices[frame], 1.0))[:3]]


def draw_frames(
    context: ReportContext, saliency: SaliencyMap, source_header: Dataset, *, template: ReportTemplate
) -> SaliencyFrames:
    """Draw the map of a time point; `source_header` is of an instance of the map's series.

    Raises:
        ReportError: if the header is of another series or the map is not of this run.
    """
    role = shown_series(context, saliency, source_header).role
    day = context.time_points[saliency.time_point].acquired.date().isoformat()
    threshold = template.saliency_threshold
    slices, shape = _choose(saliency)
    factors = (shape[0] / saliency.values.shape[1], shape[1] / saliency.values.shape[2])
    warning = wording.short_warning(context, template)
    peak = slices.index(_peak(saliency))
    hint = ""
    if float(saliency.values.max()) >= threshold:  # viewers open the first frame, mostly without colour
        hint = template.wording.peak.format(image=peak + 1, count=len(slices))
    not_a_lesion = template.wording.not_a_lesion.split(" / ")  # a translation gets a line of its own
    lines = (warning, "", f"{role} {day}{hint}", *not_a_lesion)  # OHIF's cine bar hides the second line
    top, right = margins(*shape)
    layer = legend(shape[0] + top, shape[1] + right, lines, threshold)
    drawn = np.pad(_fused(saliency, slices, factors, threshold), ((0, 0), (top, 0), (0, right), (0, 0)))
    return SaliencyFrames(
        role=role,
        day=day,
        description=(
            f"AI saliency over windowed anatomy; colour from {threshold:.2f} of the maximum; {len(slices)} of "
            f"{len(saliency.slices)} slices shown; enlarged {factors[0]:.2f} x {factors[1]:.2f}"
        ),
        slices=slices,
        affine=_moved_up(_enlarged(saliency.affine, factors), top),
        pixels=laid_over(drawn, layer),
        peak=peak,
    )


def shown_series(context: ReportContext, saliency: SaliencyMap, source_header: Dataset) -> SeriesEvidence:
    """Return the series that a map lies on.

    Raises:
        ReportError: if the header is of another series or the map is not of this run.
    """
    if source_header.SeriesInstanceUID != saliency.series_instance_uid:
        msg = "saliency: expected the header of the map's own series, found another series'"
        raise ReportError(msg)
    if not 0 <= saliency.time_point < len(context.time_points):
        msg = f"saliency: expected a time point below {len(context.time_points)}, found {saliency.time_point}"
        raise ReportError(msg)
    for series in context.time_points[saliency.time_point].series:
        if series.instances[0].series_instance_uid == saliency.series_instance_uid:
            return series
    msg = f"saliency: expected a series of time point {saliency.time_point}, found a map of another series"
    raise ReportError(msg)


def decimal(value: float) -> float:
    """Return a number that fits DS (16 characters) in every case: micrometre-fine, and no negative zero."""
    return round(float(value), 6) + 0.0


def _peak(saliency: SaliencyMap) -> int:
    """Return the slice with the largest value."""
    return int(np.unravel_index(int(np.argmax(saliency.values)), saliency.values.shape)[0])


def _choose(saliency: SaliencyMap) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Choose slices about 3 mm apart, the one with the peak among them, and rows and columns of square pixels."""
    planes, rows, columns = saliency.values.shape
    step_x, step_y, step_z = np.linalg.norm(saliency.affine[:3, :3], axis=0)
    stride = max(1, int(_FRAME_STEP_MM / step_z + 1e-6))
    finest = min(step_x, step_y)
    size = max(rows * step_y, columns * step_x) / finest
    enlarge = min(_LARGEST_FACTOR, max(1.0, _READABLE_PX / size))
    shape = (round(rows * step_y / finest * enlarge), round(columns * step_x / finest * enlarge))
    return tuple(range(_peak(saliency) % stride, planes, stride)), shape


def _enlarged(affine: NDArray[np.float64], factors: tuple[float, float]) -> NDArray[np.float64]:
    """Return the affine of the enlarged grid: outer pixel edges stay, so the first centre moves outward."""
    factor_y, factor_x = factors
    scaled = affine.copy()
    scaled[:3, 0] = affine[:3, 0] / factor_x
    scaled[:3, 1] = affine[:3, 1] / factor_y
    scaled[:3, 3] = affine[:3, 3] - (affine[:3, 0] - scaled[:3, 0]) / 2 - (affine[:3, 1] - scaled[:3, 1]) / 2
    return scaled


def _moved_up(affine: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Return the affine of a grid with that many rows more above its first one."""
    moved = affine.copy()
    moved[:3, 3] -= rows * affine[:3, 1]
    return moved


def _fused(
    saliency: SaliencyMap, slices: tuple[int, ...], factors: tuple[float, float], threshold: float
) -> NDArray[np.uint8]:
    """Return anatomy with colour where the map reaches the threshold, shape (Z, Y, X, 3)."""
    chosen = list(slices)
    scale = (1.0, *factors)
    grey = windowed(saliency.anatomy)[chosen].astype(np.float32)  # (Z, Y, X), one window for all slices
    anatomy = zoom(grey, scale, order=1, mode="nearest", grid_mode=True)
    values = zoom(saliency.values[chosen], scale, order=1, mode="nearest", grid_mode=True)
    return fused(np.clip(anatomy, 0, 255).astype(np.uint8), values, threshold)
