"""An older scan as the baseline of a newer one: the same brightness, the same brain.

Both scans lie on the template, so voxels correspond. Scanners differ in gain and offset, and min-max scaling follows
the brightest voxel, which may be disease: the quartiles of the common brain, which no lesion moves far, are matched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from inference.saliency.maps import brain_of

if TYPE_CHECKING:
    from torch import Tensor

_DARKEST = 1e-4  # 0 would mean "not brain"


def matched_baseline(older: Tensor, newer: Tensor) -> Tensor:
    """Return the older scan (C, Z, Y, X) at the newer one's brightness; outside the common brain the newer one's."""
    common = brain_of(older) & brain_of(newer)
    if not common.any():
        return newer
    quartiles = torch.tensor([0.25, 0.75], dtype=newer.dtype, device=newer.device)
    low_old, high_old = torch.quantile(older[common], quartiles)
    low_new, high_new = torch.quantile(newer[common], quartiles)
    gain = (high_new - low_new) / (high_old - low_old).clamp(min=_DARKEST)
    matched = (low_new + (older - low_old) * gain).clamp(min=_DARKEST)
    return torch.where(common, matched, newer)


def change_image(older: Tensor, newer: Tensor) -> Tensor:
    """Return newer minus older (C, Z, Y, X) after matching: what an eye sees without any network."""
    return newer - matched_baseline(older, newer)
