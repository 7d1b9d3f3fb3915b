"""Which head a phantom is drawn on, at the resolution that its image needs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from inference.phantom.real_head import real_head_maps
from inference.phantom.tissue import TissueMaps, template_maps

if TYPE_CHECKING:
    from pathlib import Path


@lru_cache(maxsize=8)
def tissue_maps(spacing_mm: int = 1, *, through_plane_mm: int = 0, head: Path | None = None) -> TissueMaps:
    """Return a head's tissue at 1 or 2 mm, averaged over `through_plane_mm` along z for thick slices.

    Without `head` it is the template's, else that of the real head in this folder.
    """
    whole = template_maps() if head is None else real_head_maps(head)
    maps = [whole.grey, whole.white, whole.distance_mm]
    if through_plane_mm > 1:
        maps = [ndimage.uniform_filter1d(each, through_plane_mm, axis=0) for each in maps]
    if spacing_mm > 1:
        maps = [
            ndimage.gaussian_filter(each, 0.4 * spacing_mm)[::spacing_mm, ::spacing_mm, ::spacing_mm] for each in maps
        ]
    grey, white, distance = (np.ascontiguousarray(each, dtype=np.float32) for each in maps)
    return TissueMaps(grey=grey, white=white, distance_mm=distance, spacing_mm=float(spacing_mm))
