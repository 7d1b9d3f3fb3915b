"""A stack of planes is one volume, or says exactly why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.geometry import MIN_SLICES, Defect, GeometryError, Plane, stack

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def axial(z_mm: float, **changes: object) -> Plane:
    """Return an axial plane at a height."""
    plane = Plane(
        position_mm=(-100.0, -120.0, z_mm),
        orientation=AXIAL,
        spacing_mm=(0.9, 0.8),
        rows=256,
        columns=224,
        thickness_mm=5.0,
    )
    return replace(plane, **changes)


def pile(count: int = 20, step_mm: float = 5.5) -> list[Plane]:
    """Return an even pile of axial planes, feet first."""
    return [axial(index * step_mm) for index in range(count)]


def test_the_affine_maps_columns_rows_and_slices_to_millimetres():
    """A hand-computed axial case: x by the column spacing, y by the row spacing, z by the step."""
    found = stack(pile()[::-1])
    assert found.order == tuple(range(19, -1, -1))
    assert found.spacing_mm == (5.5, 0.9, 0.8)
    expected = [[0.8, 0, 0, -100], [0, 0.9, 0, -120], [0, 0, 5.5, 0], [0, 0, 0, 1]]
    assert np.allclose(found.affine, expected)


def test_a_sagittal_volume_is_right_handed():
    """Rows to the back, columns to the feet: the normal points to the right, and slices run that way."""
    planes = [axial(0.0, position_mm=(float(x), 0.0, 0.0), orientation=(0, 1, 0, 0, 0, -1)) for x in range(10)]
    found = stack(planes)
    assert np.linalg.det(found.affine[:3, :3]) > 0
    assert found.order == tuple(range(9, -1, -1))


def test_coarse_rounding_of_positions_is_tolerated():
    """Positions rounded to 0.01 mm, as some scanners write them, are no gap and no tilt."""
    planes = [axial(round(index * 0.9371, 2)) for index in range(100)]
    assert stack(planes).spacing_mm[0] == pytest.approx(0.9371, abs=1e-3)


BROKEN = {
    "nothing": ([], Defect.TOO_FEW, "found 0"),
    "a localizer": (pile(3), Defect.TOO_FEW, f"at least {MIN_SLICES} slices, found 3"),
    "no position": ([*pile(), axial(float("nan"))], Defect.MISSING_POSITION, "plane 20"),
    "no spacing": ([*pile(), axial(200.0, spacing_mm=(0.0, 0.8))], Defect.MISSING_POSITION, "positive spacing"),
    "skewed cosines": (
        [axial(index, orientation=(1.0, 0.0, 0.0, 0.5, 0.866, 0.0)) for index in range(9)],
        Defect.MISSING_POSITION,
        "dot product 0.5",
    ),
    "two matrices": ([*pile(), axial(200.0, rows=128)], Defect.MIXED_GRID, "128x224, 256x224"),
    "two spacings": ([*pile(), axial(200.0, spacing_mm=(0.9, 0.9))], Defect.MIXED_GRID, "0.8000 to 0.9000 mm"),
    "a turned plane": (
        [*pile(), axial(200.0, orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))],
        Defect.MIXED_ORIENTATION,
        "turned by up to 90.00 degrees",
    ),
    "two repetitions": (pile() + pile(), Defect.DUPLICATE, "40 slices at 20 positions (2 each)"),
    "one slice twice": ([*pile(), axial(5.5)], Defect.DUPLICATE, "21 slices at 20 positions (1 to 2 each)"),
    "a missing slice": (pile()[:9] + pile()[10:], Defect.GAP, "found 11.000 mm between slices 8 and 9"),
    "two slabs": (pile(10, 4.0) + [axial(60.0 + index * 5.0) for index in range(6)], Defect.GAP, "of 15 steps"),
    "a tilted gantry": (
        [axial(0.0, position_mm=(0.0, index * 1.0, index * 5.0)) for index in range(20)],
        Defect.TILT,
        "11.3 degrees of tilt",
    ),
}


@pytest.mark.parametrize(("planes", "defect", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_pile_is_refused_with_its_numbers(planes, defect, words):
    """Each rule has its own defect, and its message names what was found."""
    with pytest.raises(GeometryError) as caught:
        stack(planes)
    assert caught.value.defect is defect
    assert words in str(caught.value)
