"""The Parametric Map holds the map's very values where they lie in the patient, and says what they are."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from highdicom.pm.sop import pmread
from pydicom import Dataset

from inference.results import SaliencyMap
from sr_templates.errors import ReportError
from sr_templates.headers import to_bytes
from sr_templates.parametric_map import build_parametric_map, quantity
from sr_templates.template import load_template
from tests.factories.results import DAYS, SENTINEL_NAME, answer, mr_header, report_context, saliency_map
from tests.factories.saliency import oblique

TEMPLATE = load_template("glioma_recurrence")


def build(saliency: SaliencyMap, **changes: object) -> Dataset:
    """Return the parametric map of a saliency map."""
    header = mr_header(DAYS[saliency.time_point], "T1c", 0)
    return build_parametric_map(report_context(**changes), saliency, header, template=TEMPLATE)


@pytest.mark.parametrize("saliency", [saliency_map(), oblique(4.0, planes=9)], ids=["axial", "oblique"])
def test_a_reader_finds_every_value_at_its_place_in_the_patient(saliency: SaliencyMap) -> None:
    """Read back as a volume, each voxel's patient coordinates lead to the very value of the map there."""
    volume = pmread(BytesIO(to_bytes(build(saliency)))).get_volume(dtype=np.float32)
    grid = np.argwhere(np.ones(volume.spatial_shape))
    world = grid @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    to_voxels = np.linalg.inv(saliency.affine)
    x, y, z = np.round(world @ to_voxels[:3, :3].T + to_voxels[:3, 3], 3).T
    assert np.allclose((x, y, z), np.round((x, y, z)), atol=0.01)
    indices = tuple(np.round(each).astype(int) for each in (z, y, x))
    assert np.array_equal(volume.array[tuple(grid.T)], saliency.values[indices])


def test_every_frame_names_the_slice_it_lies_on() -> None:
    """The source of a frame has the frame's own position; its values keep their places."""
    ds = build(saliency_map())
    positions = {
        each.SOPInstanceUID: each.ImagePositionPatient[2] for each in (mr_header(DAYS[-1], "T1c", z) for z in range(5))
    }
    for group in ds.PerFrameFunctionalGroupsSequence:
        (derivation,) = group.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        assert positions[source.ReferencedSOPInstanceUID] == group.PlanePositionSequence[0].ImagePositionPatient[2]
        assert derivation.DerivationDescription == "integrated gradients"
    assert ds.FrameOfReferenceUID == saliency_map().frame_of_reference_uid


def test_a_multi_frame_source_is_named_with_the_frame() -> None:
    """Frame numbers follow the slices, and the instance is listed once."""
    saliency = oblique(4.0, planes=9)
    ds = build(saliency)
    for group in ds.PerFrameFunctionalGroupsSequence:
        position = (*group.PlanePositionSequence[0].ImagePositionPatient, 1.0)
        index = round(float((np.linalg.inv(saliency.affine) @ np.array(position, dtype=float))[2]))
        assert group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == index + 1
    assert len(ds.SourceImageSequence) == 1
    assert len(ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("integrated gradients from a flat brain, 8 steps", "130404"),
        ("Gradient-weighted class activation of the last block", "130403"),
        ("Grad-CAM, layer 4", "130403"),
        ("class activation mapping", "130402"),
        (None, "130404"),
    ],
)
def test_the_quantity_is_what_the_method_makes(method: str | None, code: str) -> None:
    """CID 217 tells class activation from other saliency."""
    assert quantity(method).CodeValue == code
    ds = build(saliency_map(), result=replace(answer(), saliency_method=method))
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == code
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


def test_the_map_is_for_research_and_names_the_patient_only_in_its_header() -> None:
    """Marked as every object of a run, stamped with the record's time and not with the clock's, signed by us alone."""
    ds = build(saliency_map())
    assert (ds.ContentQualification, ds.BurnedInAnnotation, ds.ContentLabel) == ("RESEARCH", "NO", "AI_SALIENCY")
    assert ds.SeriesDescription == "RUO AI saliency map T1c 2024-10-18"
    assert str(ds.PatientName) == SENTINEL_NAME
    assert (ds.ContentDate, ds.InstanceCreationDate) == ("20241018", "20241018")
    assert len(ds.ContributingEquipmentSequence) == 1
    assert b"ighdicom" not in to_bytes(ds)


def test_the_window_begins_where_the_colour_of_the_capture_begins() -> None:
    """A viewer that fuses the map shows no wider area than the capture does; the values below stay in it."""
    ds = build(saliency_map())
    (window,) = ds.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    assert window.WindowCenter - window.WindowWidth / 2 == pytest.approx(TEMPLATE.saliency_threshold)
    assert window.WindowCenter + window.WindowWidth / 2 == pytest.approx(1.0)
    values = np.frombuffer(ds.FloatPixelData, dtype=np.float32)
    assert 0 < values[values > 0].min() < TEMPLATE.saliency_threshold


def test_an_older_scan_s_map_is_filed_in_the_newest_study_and_refers_to_the_older_one() -> None:
    """The series it lies on is named under its own study, and no series of the newest study is claimed."""
    ds = build(saliency_map(1))
    older = mr_header(DAYS[1], "T1c", 0)
    assert ds.StudyInstanceUID == report_context().study_instance_uid
    assert ds.FrameOfReferenceUID == older.FrameOfReferenceUID
    assert "ReferencedSeriesSequence" not in ds
    (study,) = ds.StudiesContainingOtherReferencedInstancesSequence
    assert study.StudyInstanceUID == older.StudyInstanceUID
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == older.SeriesInstanceUID


def test_equal_input_gives_equal_bytes() -> None:
    """No random UID and no clock is left of what the library writes."""
    assert to_bytes(build(saliency_map())) == to_bytes(build(saliency_map()))


def test_a_map_of_another_series_is_refused() -> None:
    """Values are never laid on anatomy that is not their own."""
    with pytest.raises(ReportError, match="own series"):
        build_parametric_map(report_context(), saliency_map(), mr_header(DAYS[0], "T1c", 0), template=TEMPLATE)


@pytest.mark.peer
@pytest.mark.parametrize("saliency", [saliency_map(), saliency_map(1), oblique(4.0)], ids=["newest", "older", "frames"])
def test_dciodvfy_finds_nothing_but_known_false_alarms(saliency: SaliencyMap, tmp_path: Path) -> None:
    """Value 4 of Image Type is QUANTITY (PS3.3 C.8.32.2), Device UID may stand in contributing equipment (C.12.1)."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("needs dicom3tools' dciodvfy")
    path = tmp_path / "map.dcm"
    path.write_bytes(to_bytes(build(saliency)))
    said = subprocess.run([tool, path], capture_output=True, text=True, check=False).stderr.splitlines()
    known = ("<QUANTITY> for value 4", "Device UID", "Standard Extended SOP Class")
    assert said[0] == "ParametricMap"
    assert [line for line in said[1:] if not any(each in line for each in known)] == []
