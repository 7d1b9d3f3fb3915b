"""A phantom written to DICOM and read back stands where it stood, and saliency returns to the voxel it came from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from inference.phantom import SliceOrder, StudyOptions, make_patient, render, write_study, write_volume
from inference.preprocess import load_template, preprocess, to_native
from inference.preprocess.images import grid_image, resample, to_image
from inference.volume import read_series

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom import PhantomPatient
    from inference.volume import Volume

# Whole heads of few voxels; the second is as a scanner sends it, in slices of 4 mm.
OBLIQUE = StudyOptions(spacing_mm=(4, 3, 2.5), shape=(40, 76, 78), oblique_deg=(20, -10, 15), truth=False)
CLINICAL = StudyOptions(
    spacing_mm=(4, 1, 1), shape=(40, 224, 192), oblique_deg=(8, -5, 4), roles=("FLAIR",), truth=False
)
# A cube of 2 mm voxels around the middle of the head, LPS mm.
WORLD = np.diag([2.0, 2.0, 2.0, 1.0]) + np.outer([1, 1, 1, 0], [0, 0, 0, -60.0]) + np.outer([0, 1, 1, 0], [0, 0, 0, 17])
WORLD_SHAPE = (60, 60, 60)


@pytest.fixture(scope="module")
def patient() -> PhantomPatient:
    """Return a patient with one visit."""
    return make_patient(5, n_visits=1)


def in_world(array: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resample a volume (Z, Y, X) onto the world's cube."""
    return resample(to_image(array, affine), grid_image(WORLD_SHAPE, WORLD), np.eye(4)).astype(np.float64)


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return Pearson's correlation of two volumes."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def corners_mm(affine: NDArray[np.float64], shape: Iterable[int]) -> NDArray[np.float64]:
    """Return the eight outermost voxel centres (3, 8) of a grid in LPS mm; `shape` is (Z, Y, X)."""
    z, y, x = (np.array([0, size - 1]) for size in shape)
    index = np.stack([*(each.ravel() for each in np.meshgrid(x, y, z, indexing="ij")), np.ones(8)])
    return np.asarray((affine @ index)[:3])


@pytest.mark.parametrize("order", list(SliceOrder))
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_phantom_reads_back_where_it_was(
    tmp_path: Path, patient: PhantomPatient, order: SliceOrder, enhanced: bool
) -> None:
    """Oblique, reversed, interleaved or multi-frame: one world, corners within 0.01 mm."""
    options = replace(OBLIQUE, order=order, enhanced=enhanced)
    values, affine = render(patient, 0, "FLAIR", grid=options.grid(patient, 0))
    paths = write_volume(values, affine, patient, 0, tmp_path, options=options)
    assert len(paths) == (1 if enhanced else 40)
    volume = read_series(paths[::-1])
    assert np.abs(corners_mm(volume.affine, volume.array.shape) - corners_mm(affine, values.shape)).max() < 0.01
    assert correlation(in_world(volume.array, volume.affine), in_world(values, affine)) > 0.999


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_flipped_grid_reads_back_to_the_same_world(tmp_path: Path, patient: PhantomPatient, enhanced: bool) -> None:
    """Rows and slices that run the other way are the same head: only the order of voxels differs."""
    values, affine = render(patient, 0, "FLAIR", grid=OBLIQUE.grid(patient, 0))
    flip = np.diag([-1.0, 1.0, -1.0, 1.0])
    flip[[0, 2], 3] = values.shape[2] - 1, values.shape[0] - 1
    paths = write_volume(
        values[::-1, :, ::-1], affine @ flip, patient, 0, tmp_path, options=replace(OBLIQUE, enhanced=enhanced)
    )
    volume = read_series(paths)
    assert np.abs(volume.affine - affine @ flip).max() < 0.01
    assert correlation(in_world(volume.array, volume.affine), in_world(values, affine)) > 0.999


def test_one_head_scanned_straight_and_oblique_is_one_head(tmp_path: Path, patient: PhantomPatient) -> None:
    """Two acquisitions without noise agree in the world, but for what interpolation of 2 mm voxels blurs."""
    still = replace(
        patient,
        visits=tuple(replace(each, nuisance=replace(each.nuisance, noise_fraction=0.0)) for each in patient.visits),
    )
    seen = []
    for name, tilt in (("straight", (0.0, 0.0, 0.0)), ("oblique", (20.0, -10.0, 15.0))):
        options = StudyOptions(
            roles=("T1",), spacing_mm=(2, 2, 2), shape=(84, 112, 96), oblique_deg=tilt, truth=False, enhanced=True
        )
        volume = read_series(write_study(still, 0, tmp_path / name, options))
        seen.append(ndimage.gaussian_filter(in_world(volume.array, volume.affine), 1.5))
    assert correlation(*seen) > 0.999


def scan(patient: PhantomPatient, folder: Path) -> Volume:
    """Return the patient's FLAIR as the node reads it: interleaved slices of 4 mm."""
    return read_series(write_study(patient, 0, folder, replace(CLINICAL, order=SliceOrder.INTERLEAVED)))


def test_a_saliency_peak_of_a_phantom_lands_on_its_own_slice(tmp_path: Path, patient: PhantomPatient) -> None:
    """Through registration and back: within 2 mm in plane and half a slice, all over the brain."""
    volume = scan(patient, tmp_path)
    prepared = preprocess(volume, load_template())
    to_model = np.linalg.inv(prepared.template_to_source @ prepared.affine) @ volume.affine
    random = np.random.default_rng(11)
    model = np.stack([random.integers(low, high, 10) for low, high in ((32, 64), (40, 88), (36, 72))])  # (x, y, z)
    native = np.rint((np.linalg.inv(to_model) @ (*model, np.ones(10)))[:3]).astype(int)
    for voxel in native.T:
        x, y, z = np.rint((to_model @ (*voxel, 1))[:3]).astype(int)
        peak = np.zeros_like(prepared.array)
        peak[z, y, x] = 1.0
        landed = to_native(peak, prepared, volume)
        assert landed.shape == volume.array.shape
        found = np.unravel_index(np.argmax(landed), landed.shape)[::-1]
        off_mm = np.abs(np.array(found) - voxel) * volume.spacing_mm[::-1]
        assert np.hypot(off_mm[0], off_mm[1]) <= 2.0
        assert off_mm[2] <= volume.spacing_mm[0] / 2
