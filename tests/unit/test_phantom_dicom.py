"""Phantoms as DICOM: marked as synthetic, valid, worded like each vendor, true in geometry."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmread

from inference.phantom import (
    SliceOrder,
    StudyOptions,
    make_patient,
    scan_grid,
    write_patient,
    write_study,
    write_volume,
)
from inference.phantom.scanner import VENDORS

if TYPE_CHECKING:
    from pathlib import Path

SMALL = StudyOptions(spacing_mm=(8, 6, 6), shape=(6, 36, 32), truth=False)


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("volumetric", [False, True])
def test_dciodvfy_finds_no_error(tmp_path: Path, vendor: str, enhanced: bool, volumetric: bool) -> None:
    """Every kind of object of every vendor follows its information object definition."""
    options = replace(SMALL, vendor=vendor, enhanced=enhanced, volumetric=volumetric, localizer=True)
    write_study(make_patient(5, n_visits=1), 0, tmp_path, options)
    for folder in sorted(tmp_path.iterdir()):
        first = min(folder.iterdir())
        found = subprocess.run(["dciodvfy", first], capture_output=True, text=True, check=False)
        errors = [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], folder.name


@pytest.mark.parametrize("enhanced", [False, True])
def test_every_file_says_that_it_is_no_patient(tmp_path: Path, enhanced: bool) -> None:
    """The mark that the node trusts stands in each object."""
    options = replace(SMALL, enhanced=enhanced, localizer=True)
    for path in write_study(make_patient(5, n_visits=1), 0, tmp_path, options):
        ds = dcmread(path)
        assert ds.QualityControlSubject == "YES"
        assert ds.PatientComments == ds.ImageComments == "SYNTHETIC PHANTOM - NOT A PATIENT"
        assert (ds.PatientID, ds.IssuerOfPatientID, str(ds.PatientName)) == ("PHANTOM-000005", "PHANTOM", "PHANTOM^5")


def test_headers_come_back_as_written(tmp_path: Path) -> None:
    """Dates, role-deciding physics and contrast agent are complete."""
    patient = make_patient(5, n_visits=2)
    write_study(patient, 1, tmp_path, replace(SMALL, vendor="siemens"))
    heads = {path.name[4:]: dcmread(min(path.iterdir())) for path in tmp_path.iterdir()}
    assert set(heads) == {"T1", "T1c", "T2", "FLAIR"}
    assert {ds.StudyDate for ds in heads.values()} == {f"{patient.visits[1].acquired:%Y%m%d}"}
    assert len({ds.StudyInstanceUID for ds in heads.values()}) == 1
    assert len({ds.SeriesInstanceUID for ds in heads.values()}) == 4
    assert heads["FLAIR"].InversionTime > 2000
    assert list(heads["FLAIR"].ScanningSequence) == ["SE", "IR"]
    assert heads["T1c"].ContrastBolusAgent == "Gadovist"
    assert "ContrastBolusAgent" not in heads["T1"]
    assert heads["T2"].EchoTime > 80


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    """Files depend on nothing but their arguments."""
    options = replace(SMALL, roles=("FLAIR",))
    one = write_study(make_patient(5, n_visits=1), 0, tmp_path / "one", options)
    other = write_study(make_patient(5, n_visits=1), 0, tmp_path / "other", options)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.parametrize("order", list(SliceOrder))
@pytest.mark.parametrize("enhanced", [False, True])
def test_order_and_kind_of_object_leave_the_world_alone(tmp_path: Path, order: SliceOrder, enhanced: bool) -> None:
    """Each plane carries the same pixels at the same place, whatever its number."""
    grid = scan_grid(spacing_mm=(5, 2, 2), shape=(7, 10, 12), oblique_deg=(20, -10, 5))
    values = np.arange(840, dtype=np.float32).reshape(7, 10, 12)
    options = StudyOptions(order=order, enhanced=enhanced)
    paths = write_volume(values, grid.affine, make_patient(1, n_visits=1), 0, tmp_path, options=options)
    found = {}
    for ds in map(dcmread, paths):
        frames = ds.pixel_array.reshape(-1, 10, 12)
        groups = ds.get("PerFrameFunctionalGroupsSequence")
        planes = [each.PlanePositionSequence[0] for each in groups] if groups else [ds]
        for frame, plane in zip(frames, planes, strict=True):
            found[tuple(float(each) for each in plane.ImagePositionPatient)] = frame
    for z in range(7):
        position = grid.affine[:3, 3] + z * grid.affine[:3, 2]
        nearest = min(found, key=lambda each: float(np.abs(np.array(each) - position).sum()))
        assert np.allclose(nearest, position, atol=1e-4)
        assert np.array_equal(found[nearest], values[z])


def test_a_localizer_has_three_orientations_in_one_series(tmp_path: Path) -> None:
    """Axial, coronal and sagittal, as scanners send it."""
    paths = write_study(make_patient(5, n_visits=1), 0, tmp_path, replace(SMALL, roles=(), localizer=True))
    heads = [dcmread(path) for path in paths]
    assert len({ds.SeriesInstanceUID for ds in heads}) == 1
    assert len({ds.SOPInstanceUID for ds in heads}) == 3
    assert len({tuple(ds.ImageOrientationPatient) for ds in heads}) == 3


def test_the_truth_stands_beside_the_images(tmp_path: Path) -> None:
    """Latents, event and masks are kept, one study folder per visit."""
    patient = make_patient(5, n_visits=2)
    folders = write_patient(patient, tmp_path, replace(SMALL, roles=("FLAIR",), truth=True))
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["history"]["z"] == patient.history.z
    assert truth["event_within_horizon"] == patient.label
    assert len(folders) == 2
    with np.load(folders[0] / "truth.npz") as masks:
        assert masks["lesion"].shape == (6, 36, 32)


def test_an_unknown_vendor_is_refused(tmp_path: Path) -> None:
    """The message names the vendors there are."""
    with pytest.raises(ValueError, match="siemens, ge, philips, hitachi, found 'acme'"):
        write_study(make_patient(5, n_visits=1), 0, tmp_path, replace(SMALL, vendor="acme"))
