"""What rendering takes for granted about registration and N4 is what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from inference.phantom import make_patient
from inference.phantom.anatomy import rigid_part
from inference.phantom.grid import HEAD_CENTRE_MM
from inference.phantom.residuals import TABLE, residual_table
from inference.phantom.scanner import rotation_matrix
from inference.phantom.serving import left_of_pose

if TYPE_CHECKING:
    from pathlib import Path

ROWS = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]


def test_the_table_holds_twenty_patients_of_both_acquisitions() -> None:
    """At least 20 synthetic patients, thick slices and 1 mm mixed, of seeds that no split uses."""
    assert len({row["seed"] for row in ROWS}) >= 20
    assert {row["volumetric"] for row in ROWS} == {True, False}
    assert all(row["seed"] >= 600_000 for row in ROWS)
    assert max(abs(each) for row in ROWS for each in row["translation_mm"]) < 5


def test_a_perfect_registration_leaves_nothing() -> None:
    """Template to scanner as the phantom was truly posed gives zero; a known error gives itself."""
    visit = make_patient(7).visits[0]
    turn, shift = rotation_matrix(visit.nuisance.rotation_deg), np.array(visit.nuisance.translation_mm)
    true = np.eye(4)
    true[:3, :3] = turn
    true[:3, 3] = HEAD_CENTRE_MM + shift - turn @ HEAD_CENTRE_MM
    assert np.abs(left_of_pose(visit, true)).max() < 1e-9
    error = np.eye(4)
    error[:3, :3] = Rotation.from_euler("xyz", (1.0, -2.0, 0.5), degrees=True).as_matrix()
    error[:3, 3] = np.array([0.3, -0.6, 0.9]) + HEAD_CENTRE_MM - error[:3, :3] @ HEAD_CENTRE_MM
    rotation_deg, translation_mm = left_of_pose(visit, true @ error)
    assert rotation_deg == pytest.approx((1.0, -2.0, 0.5))
    assert translation_mm == pytest.approx((0.3, -0.6, 0.9))


def test_the_rigid_part_undoes_a_shift_and_a_turn() -> None:
    """A lattice that moves the whole head is undone to a tenth of a millimetre; what registration found agrees."""
    anatomy = make_patient(7).anatomy
    lattice = np.zeros_like(anatomy.lattice_mm)
    lattice[0] += 2.0
    pose = rigid_part(replace(anatomy, lattice_mm=lattice))
    assert pose == pytest.approx([0, 0, 0, -2, 0, 0], abs=0.1)
    explained = np.array([row["anatomy"] for row in ROWS])
    found = np.array([[*row["rotation_deg"], *row["translation_mm"]] for row in ROWS])
    assert (found - explained).std(0).mean() < 0.8 * found.std(0).mean()


def test_served_and_rendered_scans_are_alike() -> None:
    """With the residuals of the very scan, rendering and preprocessing correlate inside the brain."""
    alike = json.loads(TABLE.read_text(encoding="utf-8"))["correlation_of_served_and_rendered"]
    assert alike["median"] > 0.95
    assert alike["least"] > 0.9


def test_drawn_residuals_spread_as_measured() -> None:
    """Over all visits and between the visits of a patient, SDs are those of the table."""
    patients = [make_patient(seed, n_visits=2) for seed in range(300)]
    drawn = np.array(
        [
            [[*each.nuisance.residual_rotation_deg, *each.nuisance.residual_translation_mm] for each in patient.visits]
            for patient in patients
        ]
    )
    measured = np.array([[*row["rotation_deg"], *row["translation_mm"]] for row in ROWS]).reshape(-1, 2, 6)
    assert drawn.mean((0, 1)) == pytest.approx(measured.mean((0, 1)), abs=0.45)  # 20 heads: 3 SE
    # Registration follows the anatomy less than one to one, the drawn rest is independent of it: up to a half wider.
    assert ((ratio := drawn.std((0, 1)) / measured.std((0, 1))) > 0.75).all()
    assert (ratio < 1.5).all()
    between_drawn, between_measured = ((each[:, 0] - each[:, 1]) for each in (drawn, measured))
    rms = np.sqrt((between_drawn**2).mean(0)), np.sqrt((between_measured**2).mean(0))
    assert rms[0] == pytest.approx(rms[1], rel=0.35)


def test_the_shading_left_is_that_of_the_acquisition() -> None:
    """3D and 2D scans keep their own means."""
    table, rng = residual_table(), np.random.default_rng(0)
    for volumetric in (True, False):
        rows = np.array([row["bias"] for row in ROWS if row["volumetric"] is volumetric])
        drawn = np.array([table.bias(rng, volumetric=volumetric) for _ in range(400)])
        assert drawn.mean(0) == pytest.approx(rows.mean(0), abs=0.02)


def test_residuals_change_nothing_else_of_a_patient() -> None:
    """Pose, noise and everything drawn beside them stay what they were before residuals were measured."""
    nuisance = make_patient(3).visits[0].nuisance
    assert nuisance.noise_seed == 1_776_998_191
    assert nuisance.rotation_deg == pytest.approx((2.29991932510692, 0.4808811483157133, -9.38580965094109))


def test_a_table_without_pairs_is_refused(tmp_path: Path) -> None:
    """What differs between visits cannot be told from single visits."""
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"rows": ROWS[:1]}), encoding="utf-8")
    with pytest.raises(ValueError, match="expected patients with two visits"):
        residual_table(path)
