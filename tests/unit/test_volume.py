"""However a scanner writes a head, the volume that is read lies in the same place; and a broken series says why."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid
from scipy import ndimage
from scipy.spatial.transform import Rotation

from inference.geometry import Defect, GeometryError
from inference.volume import VolumeError, planes_of, read_series
from tests.factories.mr import SENTINEL_ID, SENTINEL_NAME, classic_series, enhanced_instance, write

SHAPE = (40, 60, 56)  # (Z, Y, X)


def pose(*, euler_deg=(0.0, 0.0, 0.0), voxel_mm=(3.0, 3.0, 4.0), shape=SHAPE):
    """Return the affine of a field of view centred on the world's origin."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", euler_deg, degrees=True).as_matrix() * voxel_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return affine


def head(affine, shape=SHAPE):
    """Return a smooth head without any symmetry (Z, Y, X), sampled where the affine says: values 0..1000."""
    z, y, x = np.indices(shape)
    world = np.einsum("ij,j...->i...", affine[:3], np.stack([x, y, z, np.ones_like(x)]).astype(float))
    blobs = [((0, 0, 0), 35, 1.0), ((30, 5, 0), 12, 0.6), ((0, -35, 10), 14, -0.5), ((-10, 10, 30), 10, 0.8)]
    value = sum(
        weight * np.exp(-sum((world[axis] - centre[axis]) ** 2 for axis in range(3)) / (2 * width**2))
        for centre, width, weight in blobs
    )
    return np.rint(np.clip(value, 0, None) * 1000 / 1.6)


def in_world(volume):
    """Return a volume at the points of one world grid (8 mm apart, 10 cm wide), 0 outside."""
    axis = np.arange(-48.0, 49.0, 8.0)
    points = np.stack([*np.meshgrid(axis, axis, axis, indexing="ij"), np.ones((13, 13, 13))])
    voxels = np.einsum("ij,j...->i...", np.linalg.inv(volume.affine), points)[:3]
    return ndimage.map_coordinates(volume.array, voxels[::-1], order=1)


OBLIQUE = pose(euler_deg=(12.0, -8.0, 20.0))
SAGITTAL = pose(euler_deg=(90.0, 0.0, 80.0))
INTERLEAVED = [*range(1, SHAPE[0] + 1, 2), *range(2, SHAPE[0] + 1, 2)]


def reversed_slices():
    """Return the straight head written from the top down, as a left-handed pile of slices."""
    affine = pose()
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = SHAPE[0] - 1
    return classic_series(head(affine)[::-1], affine @ flip)


WRITTEN = {
    "straight": (lambda: classic_series(head(pose()), pose()), pose()),
    "oblique": (lambda: classic_series(head(OBLIQUE), OBLIQUE), OBLIQUE),
    "sagittal": (lambda: classic_series(head(SAGITTAL), SAGITTAL), SAGITTAL),
    "reversed": (reversed_slices, pose()),
    "interleaved": (lambda: classic_series(head(pose()), pose(), numbering=INTERLEAVED), pose()),
    "rescaled": (lambda: classic_series(head(pose()), pose(), slope=0.5, intercept=-20.0), pose()),
    "enhanced": (lambda: [enhanced_instance(head(OBLIQUE), OBLIQUE)], OBLIQUE),
    "enhanced, frames shuffled": (
        lambda: [enhanced_instance(head(OBLIQUE), OBLIQUE, order=[number - 1 for number in INTERLEAVED], slope=0.25)],
        OBLIQUE,
    ),
}


@pytest.mark.parametrize(("build", "affine"), WRITTEN.values(), ids=WRITTEN.keys())
def test_one_head_reads_back_the_same_however_it_was_written(build, affine, tmp_path):
    """Pose, slice order, numbering, rescaling and multi-frame change nothing in world space."""
    reference = read_series(write(classic_series(head(pose()), pose()), tmp_path / "reference"))
    volume = read_series(write(build(), tmp_path / "series")[::-1])
    corners = np.array([[x, y, z, 1] for x in (0, SHAPE[2]) for y in (0, SHAPE[1]) for z in (0, SHAPE[0])]).T
    assert np.abs((volume.affine - affine) @ corners).max() < 0.01
    assert np.corrcoef(in_world(volume).ravel(), in_world(reference).ravel())[0, 1] > 0.999
    assert volume.array.max() == pytest.approx(reference.array.max(), rel=0.02)


def test_every_slice_knows_the_image_it_came_from(tmp_path):
    """Slices name their instance, and their frame only where there are frames."""
    datasets = classic_series(head(pose()), pose(), numbering=INTERLEAVED)
    volume = read_series(write(datasets, tmp_path / "classic")[::-1])
    assert [each.sop_instance_uid for each in volume.slices] == [ds.SOPInstanceUID for ds in datasets]
    assert {each.frame for each in volume.slices} == {None}
    order = [number - 1 for number in INTERLEAVED]
    enhanced = read_series(write([enhanced_instance(head(pose()), pose(), order=order)], tmp_path / "enhanced"))
    assert [order[each.frame - 1] for each in enhanced.slices] == list(range(SHAPE[0]))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_pixels_are_the_same_pixels(syntax, tmp_path):
    """A lossless transfer syntax changes no value."""
    array = head(pose())[:10]
    native = read_series(write(classic_series(array, pose()), tmp_path / "native"))
    datasets = classic_series(array, pose())
    for ds in datasets:
        ds.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read_series(write(datasets, tmp_path / "compressed")).array, native.array)


def test_a_header_without_pixels_has_its_planes():
    """The ledger reads planes from headers alone."""
    ds = classic_series(head(pose()), pose())[0]
    del ds.PixelData
    (plane,) = planes_of(ds)
    assert (plane.rows, plane.columns, plane.thickness_mm) == (60, 56, 4.0)
    assert plane.spacing_mm == (3.0, 3.0)


HEADERS = {
    "no position": ({"ImagePositionPatient": None}, Defect.MISSING_POSITION, "ImagePositionPatient"),
    "empty orientation": ({"ImageOrientationPatient": []}, Defect.MISSING_POSITION, "ImageOrientationPatient"),
    "no rows": ({"Rows": None}, Defect.MISSING_POSITION, "Rows"),
    "frames without places": ({"NumberOfFrames": 4}, Defect.MISSING_POSITION, "PerFrameFunctionalGroupsSequence"),
    "a mosaic": ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, Defect.MOSAIC, "tiled"),
}


@pytest.mark.parametrize(("changes", "defect", "words"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_without_a_place_is_refused(changes, defect, words):
    """A missing attribute is named."""
    ds = classic_series(head(pose()), pose(), **changes)[0]
    with pytest.raises(GeometryError, match=words) as caught:
        planes_of(ds)
    assert caught.value.defect is defect


def test_enhanced_frames_without_positions_are_refused():
    """A frame without its plane position has no place; one group too few is noticed."""
    ds = enhanced_instance(head(pose()), pose())
    del ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    with pytest.raises(GeometryError, match="PlanePositionSequence"):
        planes_of(ds)
    ds.PerFrameFunctionalGroupsSequence.pop()
    with pytest.raises(GeometryError, match="expected 40 frames, found 39"):
        planes_of(ds)


def test_a_missing_instance_and_a_second_repetition_are_told_apart(tmp_path):
    """The reader passes the defect of the stack on."""
    datasets = classic_series(head(pose()), pose())
    paths = write(datasets, tmp_path / "series")
    with pytest.raises(GeometryError) as gap:
        read_series([*paths[:7], *paths[8:]])
    assert gap.value.defect is Defect.GAP
    again = classic_series(head(pose()), pose())
    for ds in again:
        ds.SOPInstanceUID = generate_uid(entropy_srcs=["again", ds.SOPInstanceUID])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    with pytest.raises(GeometryError) as duplicate:
        read_series([*paths, *write(again, tmp_path / "again")])
    assert duplicate.value.defect is Defect.DUPLICATE


CLAIMS = {
    "huge matrix": ({"Rows": 40_000, "Columns": 40_000}, "expected pixel data for 3200000000 bytes, found 6720 bytes"),
    "colour": ({"SamplesPerPixel": 3}, "grey pixels"),
    "odd bits": ({"BitsAllocated": 12}, "grey pixels"),
    "no pixels": ({"PixelData": None}, "found 0 bytes"),
    "infinite slope": ({"RescaleSlope": "1e300"}, "finite values"),
    "no pixel format": ({"PixelRepresentation": None}, "cannot be decoded"),
}


@pytest.mark.parametrize(("changes", "words"), CLAIMS.values(), ids=CLAIMS.keys())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_an_instance_claims_is_checked_before_it_is_believed(changes, words, tmp_path):
    """A lying or unreadable instance is refused by name, without the patient's."""
    paths = write(classic_series(head(pose()), pose(), **changes), tmp_path)
    with pytest.raises(VolumeError, match=words) as caught:
        read_series(paths)
    assert not any(secret in str(caught.value) for secret in (SENTINEL_NAME, SENTINEL_ID, "2010"))


def test_files_that_are_no_series_are_refused(tmp_path):
    """No file, no DICOM, two series, and the same instance twice."""
    paths = write(classic_series(head(pose()), pose()), tmp_path / "one")
    other = write(classic_series(head(pose()), pose(), name="other"), tmp_path / "other")
    (tmp_path / "noise.dcm").write_bytes(b"noise" * 100)
    for given, words in (
        ([], "found no file"),
        ([tmp_path / "noise.dcm"], "expected a DICOM file"),
        ([*paths, *other], "one SeriesInstanceUID"),
        ([*paths, paths[3]], "given twice"),
    ):
        with pytest.raises(VolumeError, match=words):
            read_series(given)


def test_a_cut_file_is_refused_and_nothing_is_logged_about_the_patient(tmp_path, caplog):
    """A transfer that broke off leaves a file with too few pixels."""
    caplog.set_level(logging.DEBUG)
    paths = write(classic_series(head(pose()), pose()), tmp_path)
    paths[5].write_bytes(paths[5].read_bytes()[:-900])
    with pytest.raises(VolumeError):
        read_series(paths)
    assert SENTINEL_NAME not in caplog.text
    assert SENTINEL_ID not in caplog.text
