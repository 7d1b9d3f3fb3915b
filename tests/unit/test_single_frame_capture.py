"""A series of single-frame captures shows what the multi-frame capture shows, at the same places."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from inference.results import SaliencyMap
from sr_templates.headers import to_bytes
from sr_templates.saliency_capture import build_saliency
from sr_templates.single_frame_capture import build_saliency_series
from sr_templates.template import load_template
from tests.factories.results import DAYS, SENTINEL_NAME, mr_header, report_context, saliency_map
from tests.factories.saliency import oblique

TEMPLATE = load_template("glioma_recurrence")


def build(saliency: SaliencyMap) -> tuple[tuple[Dataset, ...], Dataset]:
    """Return the series and the capture that stands for it."""
    header = mr_header(DAYS[saliency.time_point], "T1c", 0)
    return build_saliency_series(report_context(), saliency, header, template=TEMPLATE)


@pytest.mark.parametrize("saliency", [saliency_map(), oblique(1.0, planes=12)], ids=["axial", "oblique and thin"])
def test_the_series_shows_the_frames_of_the_multi_frame_capture(saliency: SaliencyMap) -> None:
    """The same pixels on the same planes from the same sources, one instance each, numbered in order."""
    header = mr_header(DAYS[saliency.time_point], "T1c", 0)
    frames = build_saliency(report_context(), saliency, header, template=TEMPLATE)
    captures, _ = build(saliency)
    shared = frames.SharedFunctionalGroupsSequence[0]
    assert len(captures) == frames.NumberOfFrames
    for index, ds in enumerate(captures):
        group = frames.PerFrameFunctionalGroupsSequence[index]
        assert np.array_equal(ds.pixel_array, frames.pixel_array[index])
        assert ds.InstanceNumber == index + 1
        assert ds.ImagePositionPatient == group.PlanePositionSequence[0].ImagePositionPatient
        assert ds.ImageOrientationPatient == shared.PlaneOrientationSequence[0].ImageOrientationPatient
        assert ds.PixelSpacing == shared.PixelMeasuresSequence[0].PixelSpacing
        assert len(ds.SourceImageSequence) == 1


def test_slices_lie_in_the_order_of_their_numbers() -> None:
    """Slice Location grows by the distance of the slices, so a viewer that sorts by it shows the same order."""
    captures, _ = build(saliency_map())
    assert np.diff([float(ds.SliceLocation) for ds in captures]) == pytest.approx([5.0] * 4)


def test_the_capture_with_the_peak_stands_for_the_series() -> None:
    """The report points at the one image that shows the most."""
    captures, key = build(saliency_map(peak=(3, 20, 40)))
    assert key is captures[3]


def test_it_is_one_series_in_the_newest_study_and_a_time_point_has_its_own() -> None:
    """One series and frame of reference per time point; every instance has a UID of its own; a date on each."""
    (newest, _), (older, _) = build(saliency_map()), build(saliency_map(1))
    everything = (*newest, *older)
    assert len({ds.SOPInstanceUID for ds in everything}) == len(everything)
    assert [len({ds.SeriesInstanceUID for ds in each}) for each in (newest, older, everything)] == [1, 1, 2]
    assert len({ds.FrameOfReferenceUID for ds in everything}) == 2
    assert {ds.StudyInstanceUID for ds in everything} == {report_context().study_instance_uid}
    assert older[0].SeriesDescription == "RUO AI saliency T1c 2024-04-12"
    assert {ds.BurnedInAnnotation for ds in everything} == {"YES"}
    assert {str(ds.PatientName) for ds in everything} == {SENTINEL_NAME}


def test_equal_input_gives_equal_bytes() -> None:
    """Encoding again changes nothing."""
    assert [to_bytes(ds) for ds in build(saliency_map())[0]] == [to_bytes(ds) for ds in build(saliency_map())[0]]


@pytest.mark.peer
def test_dciodvfy_finds_only_the_geometry_that_extends_the_class(tmp_path: Path) -> None:
    """A Standard Extended SOP Class: attributes are added, none is wrong or missing."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("needs dicom3tools' dciodvfy")
    _, key = build(saliency_map())
    path = tmp_path / "capture.dcm"
    path.write_bytes(to_bytes(key))
    said = subprocess.run([tool, path], capture_output=True, text=True, check=False).stderr.splitlines()
    assert said[0] == "SCImage"
    assert [line for line in said[1:] if "not present in standard DICOM IOD" not in line] == []
    assert dcmread(BytesIO(to_bytes(key))).ImagePositionPatient[2] == 5.0
