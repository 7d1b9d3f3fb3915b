"""Saliency maps on slices that are not plain axial ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydicom.uid import EnhancedMRImageStorage

from inference.results import SaliencyMap
from tests.factories.results import SLICES, saliency_map


def oblique(step_mm: float, planes: int = SLICES) -> SaliencyMap:
    """Return a map on the tilted frames of one instance, rows and columns of unequal spacing, a spot near the end."""
    angle = np.deg2rad(20)
    x = np.array([np.cos(angle), np.sin(angle), 0.0])
    z = np.array([0.0, -np.sin(0.3), np.cos(0.3)])
    z -= x * np.dot(x, z)
    z /= np.linalg.norm(z)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = 2.0 * x, 3.0 * np.cross(z, x), step_mm * z
    affine[:3, 3] = (-40.0, -70.0, 12.0)
    base = saliency_map()
    values = np.zeros((planes, 40, 50), dtype=np.float32)
    values[planes - 2, 12:15, 30:33] = 1.0
    slices = tuple(replace(base.slices[0], sop_class_uid=EnhancedMRImageStorage, frame=n + 1) for n in range(planes))
    return replace(base, values=values, anatomy=values * 0 + 100, affine=affine, slices=slices)
