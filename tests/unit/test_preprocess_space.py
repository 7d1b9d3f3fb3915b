"""Maps go from the model's space to a series' own slices and land where they came from."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own short name
from scipy.spatial.transform import Rotation

from inference.preprocess import Preprocessed, Quality, load_template, to_native
from inference.preprocess.images import affine_of, grid_image, head_mask, resample, to_image, to_matrix, to_transform
from inference.preprocess.stretch import normalise, stretch, stretched_affine
from inference.results import QualityFlag, SourceSlice
from inference.volume import Volume

MODEL_SHAPE = (96, 128, 96)
TEMPLATE_SHAPE = (189, 233, 197)
TEMPLATE_AFFINE = np.array([[1.0, 0, 0, -98], [0, 1, 0, -98], [0, 0, 1, -72], [0, 0, 0, 1]])


def rigid(euler_deg, shift_mm):
    """Return a rigid matrix (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", euler_deg, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def prepared(template_to_source):
    """Return a scan in the model's space, with nothing in it."""
    return Preprocessed(
        array=np.zeros(MODEL_SHAPE, dtype=np.float32),
        affine=stretched_affine(TEMPLATE_AFFINE, TEMPLATE_SHAPE, MODEL_SHAPE),
        template_to_source=template_to_source,
        quality=Quality(coverage=1.0, overlap=0.9, mutual_information=0.2),
    )


def thick_axial(euler_deg):
    """Return an empty 2-D acquisition: 30 slices of 5 mm, 0.9 mm in plane, oblique."""
    affine = rigid(euler_deg, (0, 0, 0))
    affine[:3, :3] *= (0.9, 0.9, 5.0)
    affine[:3, 3] = np.array([0, 10, 10]) - affine[:3, :3] @ (111.5, 127.5, 14.5)
    return Volume(
        array=np.zeros((30, 256, 224), dtype=np.float32),
        affine=affine,
        spacing_mm=(5.0, 0.9, 0.9),
        thickness_mm=5.0,
        slices=(SourceSlice(sop_class_uid="1.2", sop_instance_uid="1.2.3"),) * 30,
        frame_of_reference_uid="1.2.4",
        series_instance_uid="1.2.5",
    )


POSES = [((0, 0, 0), (0, 0, 0)), ((10, -5, 15), (12, -20, 8)), ((-20, 8, -12), (-5, 25, -15))]


@pytest.mark.parametrize(("euler_deg", "shift_mm"), POSES)
def test_a_saliency_peak_lands_on_the_voxel_it_came_from(euler_deg, shift_mm):
    """Within 2 mm in plane and half a slice through plane, for voxels all over the brain."""
    scan = prepared(rigid(euler_deg, shift_mm))
    volume = thick_axial(np.array(euler_deg) / 2)
    to_model = np.linalg.inv(scan.template_to_source @ scan.affine) @ volume.affine
    random = np.random.default_rng(7)
    for _ in range(8):
        native = random.integers((70, 80, 8), (150, 170, 22))  # (x, y, z)
        x, y, z = np.rint((to_model @ (*native, 1))[:3]).astype(int)
        peak = np.zeros(MODEL_SHAPE, dtype=np.float32)
        peak[z, y, x] = 1.0
        landed = to_native(peak, scan, volume)
        assert landed.dtype == np.float32
        found = np.unravel_index(np.argmax(landed), landed.shape)[::-1]
        off_mm = np.abs(np.array(found) - native) * volume.spacing_mm[::-1]
        assert np.hypot(off_mm[0], off_mm[1]) <= 2.0
        assert off_mm[2] <= 2.5


def test_outside_the_model_view_a_native_map_is_zero():
    """Neck slices below the template's field of view carry no saliency."""
    landed = to_native(
        np.ones(MODEL_SHAPE, dtype=np.float32), prepared(rigid((0, 0, 0), (0, 0, 60))), thick_axial((0, 0, 0))
    )
    assert landed[0].max() == 0.0
    assert landed[15, 128, 112] == pytest.approx(1.0)


def test_stretching_averages_boxes_of_equal_width():
    """A hand-computed case: five voxels into two boxes of two and a half."""
    line = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]], dtype=np.float32)
    assert stretch(line, (1, 1, 2)).ravel() == pytest.approx([(1 + 2 + 1.5) / 2.5, (1.5 + 4 + 5) / 2.5])


def test_stretching_keeps_a_centre_of_mass_in_the_world():
    """A smooth blob lies at the same millimetres before and after."""
    old = np.diag([1.0, 1.0, 1.0, 1.0])
    z, y, x = np.indices((40, 50, 45)).astype(float)
    blob = np.exp(-((x - 17) ** 2 + (y - 31) ** 2 + (z - 22) ** 2) / 50).astype(np.float32)
    small = stretch(blob, (19, 27, 22))
    indices = np.stack([*np.indices(small.shape)[::-1], np.ones(small.shape)])
    centre = (indices * small).reshape(4, -1).sum(axis=1) / small.sum()
    assert (stretched_affine(old, blob.shape, small.shape) @ centre)[:3] == pytest.approx([17, 31, 22], abs=0.02)


def test_values_span_zero_to_one_inside_the_brain_only():
    """The brightest voxel outside the brain changes nothing; a flat brain is all zero."""
    array = np.array([[[2.0, 4.0, 6.0, 900.0]]], dtype=np.float32)
    brain = np.array([[[True, True, True, False]]])
    assert normalise(array, brain).ravel() == pytest.approx([0.0, 0.5, 1.0, 0.0])
    assert normalise(np.full_like(array, 3.0), brain).max() == 0.0


def test_images_keep_their_place():
    """An affine survives the way through an image, a matrix the way through a transform."""
    affine = thick_axial((5, 6, 7)).affine
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    assert affine_of(to_image(array, affine)) == pytest.approx(affine)
    matrix = rigid((5, 6, 7), (8, 9, 10))
    assert to_matrix(to_transform(matrix)) == pytest.approx(matrix)
    assert resample(to_image(array, affine), grid_image(array.shape, affine), np.eye(4)) == pytest.approx(array)


def test_bright_fat_does_not_turn_the_brain_into_air():
    """Air, a brain and a shell of fat seven times as bright: both are head."""
    z, y, x = np.indices((24, 24, 24)) - 11.5
    radius = np.sqrt(z**2 + y**2 + x**2)
    values = np.random.default_rng(0).uniform(0, 20, radius.shape) + 200.0 * (radius < 8)
    values[(radius > 9) & (radius < 11)] = 1400.0
    mask = sitk.GetArrayFromImage(head_mask(to_image(values.astype(np.float32), np.eye(4)))) > 0
    assert mask[(radius < 8) | ((radius > 9) & (radius < 11))].all()
    assert not mask[radius > 11].any()


def test_a_saved_scan_loads_as_it_was(tmp_path):
    """Array, geometry, quality and flags survive, without pickle."""
    scan = Preprocessed(
        array=np.random.default_rng(0).random((4, 5, 6), dtype=np.float32),
        affine=TEMPLATE_AFFINE,
        template_to_source=rigid((1, 2, 3), (4, 5, 6)),
        quality=Quality(
            coverage=0.9, overlap=0.8, mutual_information=0.1, flags=(QualityFlag(code="thick-slices", message="5 mm"),)
        ),
    )
    scan.save(tmp_path / "scan.npz")
    loaded = Preprocessed.load(tmp_path / "scan.npz")
    for name in ("array", "affine", "template_to_source"):
        assert np.array_equal(getattr(loaded, name), getattr(scan, name))
    assert loaded.array.dtype == np.float32
    assert loaded.quality == scan.quality


def test_the_template_is_a_brain_in_lps():
    """The default template: grid in mm, face to the front (small y), mask without holes around the centre."""
    template = load_template()
    assert template.array.shape == template.mask.shape == TEMPLATE_SHAPE
    assert template.affine == pytest.approx(TEMPLATE_AFFINE)
    assert template.mask[72 + 10, 98 + 20, 98]  # between the ventricles
    assert 1.7e6 < template.mask.sum() < 2.1e6
    assert template.digest == load_template().digest
