"""A scan from NIfTI lies where the same scan from DICOM lies; what says nothing of its place is refused."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest

from inference.phantom import scan_grid
from inference.training.sources import find_source, read_nifti, read_source
from inference.volume import VolumeError
from tests.factories.mr import classic_series, write

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
GRID = scan_grid(spacing_mm=(5.0, 2.0, 2.5), shape=(9, 12, 10), oblique_deg=(8, 3, 2))


@pytest.fixture
def values() -> np.ndarray:
    """Return voxels (Z, Y, X) that all differ."""
    return np.random.default_rng(1).permutation(9 * 12 * 10).reshape(GRID.shape).astype(np.int16)


def nifti(folder: Path, values: np.ndarray, affine: np.ndarray, name: str = "scan.nii.gz") -> Path:
    """Write (X, Y, Z) voxels with an affine to RAS."""
    image = nibabel.Nifti1Image(values, affine)
    nibabel.save(image, folder / name)
    return folder / name


def test_the_same_scan_from_nifti_and_from_dicom_is_one_volume(tmp_path: Path, values: np.ndarray) -> None:
    """Values, place and spacing; the digest is that of the bytes."""
    write(classic_series(values, GRID.affine), tmp_path / "dicom")
    (tmp_path / "dicom" / "note.txt").write_text("no image")
    dicom = read_source(find_source(tmp_path / "dicom"))
    other = read_source(find_source(nifti(tmp_path, values.T, RAS @ GRID.affine)))
    assert np.array_equal(dicom.array, other.array)
    assert np.allclose(dicom.affine, other.affine, atol=1e-3)
    assert dicom.spacing_mm == pytest.approx(other.spacing_mm, abs=1e-4)
    assert find_source(tmp_path / "dicom").digest != find_source(tmp_path / "scan.nii.gz").digest


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_any_order_and_direction_of_axes_is_the_same_scan(tmp_path: Path, values: np.ndarray, axes) -> None:
    """Every voxel keeps its place in the world; slices come first, axes are right-handed."""
    plain = {
        tuple(np.round((GRID.affine @ (x, y, z, 1))[:3], 3)): values[z, y, x] for z, y, x in np.ndindex(values.shape)
    }
    for number, flips in enumerate(product((False, True), repeat=3)):
        turned, affine = values.T, RAS @ GRID.affine
        for axis in (axis for axis in range(3) if flips[axis]):
            turned = np.flip(turned, axis)
            affine = affine.copy()
            affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
            affine[:3, axis] *= -1
        read = read_nifti(nifti(tmp_path, turned.transpose(axes), affine[:, [*axes, 3]], f"{number}.nii"))
        assert read.spacing_mm[0] == pytest.approx(5.0, abs=1e-4)
        assert np.linalg.det(read.affine[:3, :3]) > 0
        for z, y, x in ((0, 0, 0), (8, 0, 3), (2, 5, 1)):
            place = (read.affine @ (x, y, z, 1))[:3]
            nearest = min(plain, key=lambda each: float(np.linalg.norm(np.array(each) - place)))
            assert np.linalg.norm(np.array(nearest) - place) < 0.01
            assert read.array[z, y, x] == plain[nearest]


def test_a_file_with_one_time_is_read_and_with_several_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    """A fourth dimension of one is no dimension."""
    assert read_nifti(nifti(tmp_path, values.T[..., None], RAS @ GRID.affine)).array.shape == GRID.shape
    with pytest.raises(VolumeError, match="expected one volume, found 4 dimensions"):
        read_nifti(nifti(tmp_path, np.stack([values.T, values.T], axis=-1), RAS @ GRID.affine))


def test_a_file_that_does_not_say_where_it_lies_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    """Left and right would be a guess."""
    image = nibabel.Nifti1Image(values.T, None)
    nibabel.save(image, tmp_path / "nowhere.nii")
    with pytest.raises(VolumeError, match="neither sform nor qform"):
        read_nifti(tmp_path / "nowhere.nii")


def test_a_sheared_grid_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    """No scanner's slices lie so."""
    affine = RAS @ GRID.affine
    affine[:3, 0] += 0.2 * affine[:3, 1]
    with pytest.raises(VolumeError, match="right angles"):
        read_nifti(nifti(tmp_path, values.T, affine))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x1f\x8b\x08\x00broken"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_file_that_is_no_nifti_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """Empty, foreign, torn."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=f"{name}: expected a NIfTI file"):
        read_nifti(tmp_path / name)


def test_a_torn_nifti_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    """Its header promises more than it holds."""
    path = nifti(tmp_path, values.T, RAS @ GRID.affine)
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(VolumeError, match="expected a NIfTI file"):
        read_nifti(path)


def test_undefined_values_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    """One is enough."""
    spoilt = values.T.astype(np.float32)
    spoilt[3, 4, 5] = np.nan
    with pytest.raises(VolumeError, match="finite"):
        read_nifti(nifti(tmp_path, spoilt, RAS @ GRID.affine))


def test_a_folder_of_several_series_or_of_none_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    """Which one is meant, the table must say."""
    write(classic_series(values, GRID.affine, name="one"), tmp_path / "one")
    write(classic_series(values, GRID.affine, name="two"), tmp_path / "two")
    with pytest.raises(VolumeError, match="found 2 series"):
        find_source(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("no image")
    with pytest.raises(VolumeError, match="found 0 series in 1 files"):
        find_source(tmp_path / "notes")
