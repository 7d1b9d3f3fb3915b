"""Whatever order and pose planes come in, they are one and the same volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from inference.geometry import MIN_SLICES, Defect, GeometryError, Plane, stack

angles = st.floats(-180.0, 180.0)
lengths = st.floats(-300.0, 300.0)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Draw a right-handed affine (x, y, z) -> LPS mm of any pose and usual voxel sizes."""
    rotation = Rotation.from_euler("xyz", [draw(angles) for _ in range(3)], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation * [draw(st.floats(0.3, 3.0)), draw(st.floats(0.3, 3.0)), draw(st.floats(0.5, 7.0))]
    affine[:3, 3] = [draw(lengths) for _ in range(3)]
    return affine


def planes_at(affine: np.ndarray, slices: int) -> list[Plane]:
    """Return the planes of a volume as a scanner would describe them."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = (affine[:3, :2] / spacing[:2]).T.ravel()
    return [
        Plane(
            position_mm=tuple((affine @ (0, 0, z, 1))[:3]),
            orientation=tuple(cosines),
            spacing_mm=(float(spacing[1]), float(spacing[0])),
            rows=20,
            columns=30,
        )
        for z in range(slices)
    ]


@given(affines(), st.integers(MIN_SLICES, 40), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_planes_in_any_order_give_back_their_affine(affine, slices, random):
    """Shuffled planes of any pose come back sorted, with the affine they were made from within 0.01 mm."""
    shuffled = list(range(slices))
    random.shuffle(shuffled)
    planes = planes_at(affine, slices)
    found = stack([planes[index] for index in shuffled])
    assert [shuffled[index] for index in found.order] == list(range(slices))
    assert found.shape == (slices, 20, 30)
    corners = np.array([[x, y, z, 1] for x in (0, 29) for y in (0, 19) for z in (0, slices - 1)]).T
    assert np.abs((found.affine - affine) @ corners).max() < 0.01


@given(affines(), st.integers(MIN_SLICES + 1, 30), st.data())
@settings(max_examples=40, deadline=None)
def test_a_missing_slice_is_always_noticed(affine, slices, data):
    """Any one slice taken from the inside of a volume is a gap."""
    planes = planes_at(affine, slices)
    del planes[data.draw(st.integers(1, slices - 2))]
    with pytest.raises(GeometryError) as caught:
        stack(planes)
    assert caught.value.defect is Defect.GAP


@given(affines(), st.integers(MIN_SLICES, 20), st.data())
@settings(max_examples=40, deadline=None)
def test_a_slice_sent_twice_is_always_noticed(affine, slices, data):
    """Any slice at a position that is taken already is a duplicate."""
    planes = planes_at(affine, slices)
    planes.append(planes[data.draw(st.integers(0, slices - 1))])
    with pytest.raises(GeometryError) as caught:
        stack(planes)
    assert caught.value.defect is Defect.DUPLICATE
