"""Say why more of a series may be on its way: an archive, the positions, the numbers or the scanner tell.

None of it is a proof, so an incomplete series is waited for and ranked behind a complete one, not refused; only a gap
between slices is refused, and that by the geometry.
"""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING

from dicom_node.timeline.model import Reason
from inference.geometry import COSINE_TOLERANCE, STEP_TOLERANCE, STEP_TOLERANCE_MM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.timeline.model import InstanceFacts
    from inference.geometry import Plane

LONGEST_GAP = 64  # slices; what is farther away is another stack, no gap
MOST_LOST_AT_THE_BEGINNING = 0.25  # of what is held; numbers that begin later go on from another series
SPARSE = 1.9  # slices this many thicknesses apart: every second is missing; no protocol leaves as wide gaps


def why_incomplete(instances: Sequence[InstanceFacts], expected: int | None) -> Reason | None:
    """Return the first reason to believe that instances of a series are missing, None if there is none.

    Args:
        instances: of one whole series, in any order.
        expected: how many instances an archive says the series has; None: nobody was asked, or it does not say.
    """
    if expected is not None and expected > len(instances):
        return Reason(code="archive-holds-more", text=f"{len(instances)} instances (an archive holds {expected})")
    gap = why_gappy(instances)
    if gap is not None:
        return gap
    if expected is not None:  # the archive holds no more either, so the scanner's numbers mean something else
        return None
    return _holes(instances) or _fewer_than_acquired(instances)


def why_gappy(instances: Sequence[InstanceFacts]) -> Reason | None:
    """Return a reason if slices are missing between others by their positions."""
    missing = missing_slices([plane for each in instances for plane in each.planes])
    if not missing:
        return None
    noun = "slice is" if missing == 1 else "slices are"
    return Reason(code="missing-slices", text=f"{missing} {noun} missing between others by the positions")


def missing_slices(planes: Sequence[Plane]) -> int:
    """Count the slices missing between others: steps along the normal that are multiples of the least.

    0 where the planes are not parallel, or unevenly spaced in another way: then nothing is known to be missing.
    """
    if len(planes) < 3 or not _parallel(planes):
        return 0
    steps_mm = _steps_mm(planes)
    if len(steps_mm) < 2:
        return 0
    least_mm = min(steps_mm)  # not the median: of half a stack most steps may be gaps
    tolerance_mm = max(STEP_TOLERANCE * least_mm, STEP_TOLERANCE_MM)
    missing = 0
    for step_mm in steps_mm:
        times = round(step_mm / least_mm)
        if times > LONGEST_GAP or abs(step_mm / times - least_mm) > tolerance_mm:
            return 0
        missing += times - 1
    return missing


def _holes(instances: Sequence[InstanceFacts]) -> Reason | None:
    """Look for holes in the Instance Numbers, where these count 1, 2, ... n: all that tells of a lost first slice.

    They do not where makers count across echoes, image types or series: numbers that repeat, begin far from 1, leave
    out more than they hold, or come in even strides with slices as near to each other as ever.
    """
    numbers = sorted(each.instance_number for each in instances if each.instance_number is not None)
    if len(numbers) < max(3, len(instances)) or len(set(numbers)) < len(numbers) or numbers[0] < 0:
        return None
    first = min(numbers[0], 1)  # some count from 0
    holes = numbers[-1] - first + 1 - len(numbers)
    if not 0 < holes <= len(numbers) or numbers[0] - first > MOST_LOST_AT_THE_BEGINNING * len(numbers):
        return None
    strides = {later - earlier for earlier, later in pairwise(numbers)}
    if strides != {1} and len(strides) == 1 and not _is_sparse(instances):
        return None
    noun = "number is" if holes == 1 else "numbers are"
    text = f"{len(numbers)} instances numbered {numbers[0]} to {numbers[-1]}: {holes} {noun} missing"
    return Reason(code="missing-numbers", text=text)


def _is_sparse(instances: Sequence[InstanceFacts]) -> bool:
    """Tell whether the slices lie so far apart that others belong between them (half of an interleaved stack)."""
    planes = [plane for each in instances for plane in each.planes]
    thicknesses_mm = [plane.thickness_mm for plane in planes if plane.thickness_mm]
    steps_mm = _steps_mm(planes) if _parallel(planes) else []
    return bool(steps_mm and thicknesses_mm) and median(steps_mm) > SPARSE * median(thicknesses_mm)


def _fewer_than_acquired(instances: Sequence[InstanceFacts]) -> Reason | None:
    """Compare with Images in Acquisition (0020,1002), which counts all echoes and repetitions of one acquisition."""
    told = [each.attributes.get("ImagesInAcquisition") for each in instances]
    images = max((int(each) for each in told if isinstance(each, int | float)), default=0)
    held = sum(max(1, len(each.planes)) for each in instances)
    if images > held:
        return Reason(code="fewer-than-acquired", text=f"{held} images (Images in Acquisition: {images})")
    return None


def _steps_mm(planes: Sequence[Plane]) -> list[float]:
    """Return the distances between neighbouring positions of parallel planes along their normal; none if not finite."""
    if not planes:
        return []
    a, b, c, d, e, f = min(each.orientation for each in planes)
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    depths_mm = sorted(sum(x * n for x, n in zip(each.position_mm, normal, strict=True)) for each in planes)
    if not all(isfinite(depth_mm) for depth_mm in depths_mm):
        return []
    return [later - earlier for earlier, later in pairwise(depths_mm) if later - earlier > STEP_TOLERANCE_MM]


def _parallel(planes: Sequence[Plane]) -> bool:
    """Compare the direction cosines as the geometry does."""
    reference = min((each.orientation for each in planes), default=())
    return all(
        abs(one - other) <= COSINE_TOLERANCE
        for each in planes
        for one, other in zip(each.orientation, reference, strict=True)
    )
