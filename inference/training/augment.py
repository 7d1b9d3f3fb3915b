"""Small changes to a patient's scans: where the head lies is shared by all scans, scanner effects are each scan's own.

Shared geometry invents no change between scans; separate scanner effects (contrast, shading, noise, thick slices) teach
that such a change means nothing.

Published: rotation, translation, scale, blur and noise, all shared, no flips. Ours: geometry shared, scanner effects
per scan, left-right mirroring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far scans are changed; zero switches a change off."""

    shift_voxels: int = 2
    mirror: bool = True
    rotation_deg: float = 0.0  # SD about each axis; costs an interpolation, about as much as a small encoder
    scale: float = 0.0  # SD of the log of an isotropic scale
    gamma: float = 0.15  # SD of the log of the exponent, per scan
    shading: float = 0.05  # SD of a linear gain from one edge of the volume to the other, per scan and axis
    noise: float = 0.01  # SD relative to full range, per scan, inside the head only
    blur_probability: float = 0.2  # of a thicker slice: a blur along z, per scan


def augment(volumes: Tensor, generator: torch.Generator, how: Augmentation | None = None) -> Tensor:
    """Return changed scans (T, C, Z, Y, X) of one patient, in 0..1; what was outside the head stays 0."""
    how = how or Augmentation()
    moved = _move(volumes, generator, how)
    return _rescan(moved, generator, how).mul_(moved > 0)


def _move(volumes: Tensor, generator: torch.Generator, how: Augmentation) -> Tensor:
    """Shift, mirror, turn and scale all scans alike."""
    most = how.shift_voxels
    shifts = torch.randint(-most, most + 1, (3,), generator=generator).tolist()
    moved = torch.roll(volumes, shifts, dims=(2, 3, 4))
    if how.mirror and torch.rand((), generator=generator) < 0.5:
        moved = moved.flip(4)
    if not (how.rotation_deg or how.scale):
        return moved
    angles = torch.randn(3, generator=generator) * math.radians(how.rotation_deg)
    factor = torch.exp(torch.randn((), generator=generator) * how.scale)
    theta = (_turn(angles) * factor)[None, :, :]
    theta = torch.cat([theta, torch.zeros(1, 3, 1)], dim=2).expand(len(moved), -1, -1)
    grid = affine_grid(theta, list(moved.shape), align_corners=False)
    return grid_sample(moved, grid, align_corners=False)


def _turn(angles: Tensor) -> Tensor:
    """Return the rotation (3, 3) about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = torch.cos(angles).tolist(), torch.sin(angles).tolist()
    about_x = torch.tensor([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = torch.tensor([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _rescan(scans: Tensor, generator: torch.Generator, how: Augmentation) -> Tensor:
    """Change each of the scans (T, C, Z, Y, X) as another machine would have."""
    count = len(scans)
    blurred = torch.rand(count, generator=generator) < how.blur_probability
    widths = 0.5 + torch.rand(count, generator=generator)
    gammas = torch.exp(how.gamma * torch.randn(count, generator=generator))
    slopes = how.shading * torch.randn(count, 3, generator=generator)
    changed = scans.clone()
    for scan in torch.nonzero(blurred)[:, 0].tolist():
        changed[scan] = _blur_through_plane(changed[scan], float(widths[scan]))
    changed.pow_(gammas[:, None, None, None, None])
    for axis in range(3):
        ramp = 1 + slopes[:, axis, None] * torch.linspace(-1, 1, scans.shape[axis + 2])  # (T, size)
        changed.mul_(ramp.reshape([count, 1, *(-1 if place == axis else 1 for place in range(3))]))
    if how.noise:
        changed.add_(torch.randn(scans.shape, generator=generator), alpha=how.noise)
    return changed.clamp_(0, 1)


def _blur_through_plane(scan: Tensor, sd_voxels: float) -> Tensor:
    """Blur (C, Z, Y, X) along z with a Gaussian, as a thicker slice does; the ends see their own slice beyond."""
    reach = max(1, round(2 * sd_voxels))
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sd_voxels) ** 2)
    places = torch.arange(scan.shape[1])
    parts = (
        weight * scan[:, (places + int(offset)).clamp(0, scan.shape[1] - 1)]
        for offset, weight in zip(offsets, weights / weights.sum(), strict=True)
    )
    return torch.stack(list(parts)).sum(dim=0)
