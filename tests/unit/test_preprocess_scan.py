"""A whole scan through N4, registration and stretch: left stays left, the pose is found, the bits repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from inference.preprocess import PreprocessError, load_template, preprocess
from inference.preprocess.bias import estimate_log_bias
from inference.preprocess.images import coarsen, grid_image, resample, to_image
from inference.volume import read_series
from tests.factories.mr import classic_series, write

# Left, front, top in template millimetres (LPS): a lesion that no symmetry maps onto itself.
LESION_MM = np.array([35.0, -30.0, 40.0])


def rigid(euler_deg, shift_mm):
    """Return a rigid matrix (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", euler_deg, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


TEMPLATE_TO_SCANNER = rigid((9.0, -6.0, 11.0), (14.0, -18.0, 25.0))


@pytest.fixture(scope="module")
def template():
    """Return the default template."""
    return load_template()


@pytest.fixture(scope="module")
def volume(template, tmp_path_factory):
    """Return a head with scalp and lesion, scanned oblique in 34 slices of 4.5 mm with a bias field and noise."""
    z, y, x = (index.astype(np.float32) for index in np.indices(template.mask.shape))
    distance_mm = ndimage.distance_transform_edt(~template.mask)
    values = 600.0 * template.array + 700.0 * ((distance_mm > 8) & (distance_mm < 14))
    lesion = np.linalg.inv(template.affine) @ (*LESION_MM, 1.0)
    values[(x - lesion[0]) ** 2 + (y - lesion[1]) ** 2 + (z - lesion[2]) ** 2 < 9**2] = 1100.0
    values *= 1.0 + 0.3 * (x - 98) / 98
    shape, affine = (34, 128, 128), rigid((4.0, 3.0, 0.0), (0.0, 0.0, 0.0))
    affine[:3, :3] *= (1.9, 1.9, 4.5)
    affine[:3, 3] = (14.0, 4.0, 35.0) - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    scanned = resample(
        to_image(values.astype(np.float32), template.affine),
        grid_image(shape, affine),
        np.linalg.inv(TEMPLATE_TO_SCANNER),
    )
    noisy = np.abs(scanned + np.random.default_rng(3).normal(0, 15, shape))
    return read_series(write(classic_series(noisy, affine), tmp_path_factory.mktemp("scan"))[::-1])


@pytest.fixture(scope="module")
def prepared(volume, template):
    """Return the head in the model's space."""
    return preprocess(volume, template)


def test_the_pose_of_the_head_is_found(prepared, template):
    """Every corner of a 14 cm box around the brain lies within 3 mm of where it was put."""
    corners = np.array([(x, y, z, 1) for x in (-70, 70) for y in (-80, 60) for z in (-50, 70)]).T
    off_mm = np.linalg.norm(((prepared.template_to_source - TEMPLATE_TO_SCANNER) @ corners)[:3], axis=0)
    assert off_mm.max() < 3.0
    assert prepared.quality.overlap > 0.8
    assert [flag.code for flag in prepared.quality.flags] == ["thick-slices"]


def test_left_front_and_top_stay_where_they_are(prepared):
    """The lesion is the brightest spot of the model's array, left, front and top: no axis flips."""
    assert prepared.array.shape == (96, 128, 96)
    assert prepared.array.dtype == np.float32
    smooth = ndimage.gaussian_filter(prepared.array, 1.5)
    z, y, x = np.unravel_index(np.argmax(smooth), smooth.shape)
    assert x > 48  # x grows to the patient's left
    assert y < 64  # y grows to the back
    assert z > 48  # z grows to the top
    assert np.linalg.norm((prepared.affine @ (x, y, z, 1))[:3] - LESION_MM) < 6.0


def test_values_lie_between_zero_and_one_and_the_scalp_is_gone(prepared, template):
    """The skull strip leaves the template's brain; the range is full."""
    assert prepared.array.min() == 0.0
    assert 1.0 - 1e-6 < prepared.array.max() <= 1.0  # the last bit depends on how many threads registered the scan
    brain = _on_model_grid(template.mask.astype(np.uint8), template, prepared)
    assert prepared.array[brain <= 0.5].max() == 0.0
    assert (
        np.corrcoef(prepared.array[brain > 0.5], _on_model_grid(template.array, template, prepared)[brain > 0.5])[0, 1]
        > 0.7
    )


def _on_model_grid(array, template, prepared):
    """Return an array of the template (Z, Y, X) on the model's grid."""
    return resample(to_image(array, template.affine), grid_image((96, 128, 96), prepared.affine), np.eye(4))


def test_the_same_scan_gives_the_same_bits(prepared, volume, template):
    """Caches and content digests may rely on it."""
    again = preprocess(volume, template)
    assert np.array_equal(again.array, prepared.array)
    assert np.array_equal(again.template_to_source, prepared.template_to_source)
    assert again.quality == prepared.quality


def test_a_known_bias_field_is_found():
    """N4 on a ball with a field of +-30 % from side to side: what is left is below half of it."""
    z, y, x = np.indices((24, 24, 24)).astype(np.float32)
    ball = ((x - 11.5) ** 2 + (y - 11.5) ** 2 + (z - 11.5) ** 2 < 100).astype(np.float32)
    texture = 1.0 + 0.4 * (((x // 4) + (y // 4) + (z // 4)) % 2)
    bias = 1.0 + 0.3 * (x - 11.5) / 11.5
    image = to_image((500.0 * ball * texture * bias).astype(np.float32), np.diag([8.0, 8.0, 8.0, 1.0]))
    field = np.exp(resample(estimate_log_bias(coarsen(image, 8.0)), image, np.eye(4)))
    left, right = field[(ball > 0) & (x < 6)].mean(), field[(ball > 0) & (x > 17)].mean()
    assert 1.15 < right / left < 2.0


def test_noise_and_emptiness_are_refused(volume, template):
    """A picture of nothing gets a reason, not a place on the template."""
    noise = np.random.default_rng(0).random(volume.array.shape, dtype=np.float32)
    with pytest.raises(PreprocessError, match="registration failed"):
        preprocess(replace(volume, array=noise), template)
    with pytest.raises(PreprocessError, match="one value everywhere"):
        preprocess(replace(volume, array=np.zeros_like(noise)), template)
