"""Small changes to a patient's scans, the same for every scan of the patient, so that no order is invented.

Published: rotation, translation, scale, blur, noise with shared parameters, no flips. Ours is cheaper: whole-voxel
shifts, left-right mirroring and contrast (gamma); the phantoms bring their own noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_SHIFT_VOXELS = 2
GAMMA_SPREAD = 0.15


def augment(volumes: Tensor, generator: torch.Generator) -> Tensor:
    """Return changed scans (T, C, Z, Y, X) of one patient."""
    shifts = torch.randint(-MAX_SHIFT_VOXELS, MAX_SHIFT_VOXELS + 1, (3,), generator=generator).tolist()
    changed = torch.roll(volumes, shifts, dims=(2, 3, 4))
    if torch.rand((), generator=generator) < 0.5:
        changed = changed.flip(4)
    gamma = float(torch.exp(GAMMA_SPREAD * torch.randn((), generator=generator)))
    return changed.pow(gamma)
