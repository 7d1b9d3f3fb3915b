"""Real scanners' series are read, or refused with the reason that fits them. Needs DICOM_NODE_REAL_DATA."""

from __future__ import annotations

import os
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest

from inference.geometry import Defect, GeometryError
from inference.preprocess import PreprocessError, load_template, preprocess
from inference.volume import VolumeError, planes_of, read_series

ROOT = os.environ.get("DICOM_NODE_REAL_DATA")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(ROOT is None, reason="DICOM_NODE_REAL_DATA is not set"),
    # Real headers break value rules in ways that pydicom warns of and reads all the same.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def unpack(name: str, folder: Path) -> list[list[Path]]:
    """Unpack an archive and return its files by series."""
    with tarfile.open(Path(str(ROOT)) / name) as archive:
        archive.extractall(folder, filter="data")
    series = defaultdict(list)
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        series[pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID].append(path)
    return list(series.values())


REFUSED = {
    "dicom/ge_mr750_EPI_brain_20180918.tar.xz": (Defect.DUPLICATE, "30 slices at 15 positions"),
    "dicom/canon_galan_DTI_enhanced_3000.tar.xz": (Defect.DUPLICATE, "520 slices at 40 positions"),
    "dicom/siemens_skyra_EPI_mosaic_phantom.tar.xz": (Defect.MOSAIC, "mosaic"),
    "dicom/siemens_vida_XA10_enhanced_phantom.tar.xz": (Defect.DUPLICATE, "at 6 positions"),
    "dicom_odd/bad_geometry_slicecount_001.tar.xz": (Defect.TOO_FEW, "found 2"),
    "dicom_odd/bad_geometry_sliceorientation_001.tar.xz": (Defect.MIXED_ORIENTATION, "degrees"),
    "dicom_vendor_headers_noise_pixels/ge_anatomical_001.tar.xz": (Defect.TOO_FEW, "found 4"),
    "dicom_vendor_headers_noise_pixels/generic_compressed_jpeg_001.tar.xz": (Defect.TOO_FEW, "found 4"),
}


@pytest.mark.parametrize(("name", "expected"), REFUSED.items(), ids=REFUSED.keys())
def test_a_series_that_is_no_volume_says_why(name, expected, tmp_path):
    """Repetitions, mosaics, mixed orientations and fragments each get their own reason."""
    for paths in unpack(name, tmp_path):
        with pytest.raises(GeometryError, match=expected[1]) as caught:
            read_series(paths)
        assert caught.value.defect is expected[0]


READ = {
    "hyperfine_anatomical_001": ((8, 138, 112), (5.0, 1.61, 1.59)),
    "philips_enhanced_anatomical_001": ((8, 256, 256), (1.2, 1.0, 1.0)),
    "siemens_multiframe_anatomical_001": ((8, 256, 256), (0.9, 0.9375, 0.9375)),
}


@pytest.mark.parametrize(("name", "expected"), READ.items(), ids=READ.keys())
def test_vendors_multi_frame_series_are_read_and_their_noise_refused(name, expected, tmp_path):
    """Real headers give the geometry; pixels that are noise do not come to lie on the template."""
    (paths,) = unpack(f"dicom_vendor_headers_noise_pixels/{name}.tar.xz", tmp_path)
    volume = read_series(paths)
    assert volume.array.shape == expected[0]
    assert volume.spacing_mm == pytest.approx(expected[1], abs=1e-3)
    with pytest.raises(PreprocessError):
        preprocess(volume, load_template())


def test_the_classic_and_the_enhanced_copy_of_a_scan_lie_in_one_place(tmp_path):
    """Canon writes one scan both ways: the enhanced frames hold every position of the classic slices."""
    classic = [path for paths in unpack("dicom/canon_galan_DTI_classic_3000.tar.xz", tmp_path / "c") for path in paths]
    enhanced = unpack("dicom/canon_galan_DTI_enhanced_3000.tar.xz", tmp_path / "e")[0]
    volume = read_series(classic)
    planes = planes_of(pydicom.dcmread(enhanced[0], stop_before_pixels=True))
    there = np.unique(np.round([plane.position_mm for plane in planes], 2), axis=0)
    here = np.array([(volume.affine @ (0, 0, z, 1))[:3] for z in range(len(volume.array))])
    nearest_mm = np.linalg.norm(here[:, None] - there[None], axis=2).min(axis=1)
    assert nearest_mm.max() < 0.02
    assert planes[0].spacing_mm == pytest.approx(volume.spacing_mm[1:], abs=1e-3)


def test_a_childs_t1_comes_to_lie_on_the_template(tmp_path):
    """The 3-year-old's T1: the whole brain is covered, and its white matter lies on the template's."""
    (paths,) = unpack("dicom/siemens_skyra_T1_pediatric_3y.tar.xz", tmp_path)
    volume, template = read_series(paths), load_template()
    assert volume.array.shape == (192, 256, 256)
    prepared = preprocess(volume, template)
    assert prepared.quality.coverage > 0.99
    assert prepared.quality.overlap > 0.9
    assert prepared.quality.mutual_information > 0.2
    assert prepared.quality.flags == ()
    assert (prepared.array.min(), prepared.array.max()) == (0.0, 1.0)


def test_every_odd_file_ends_in_one_of_two_errors():
    """Malformed, truncated and foreign files never raise anything that a caller does not expect."""
    paths = sorted((Path(str(ROOT)) / "dicom_odd").glob("*.dcm"))
    assert len(paths) > 30
    for path in paths:
        with pytest.raises((VolumeError, GeometryError)):
            read_series([path])
