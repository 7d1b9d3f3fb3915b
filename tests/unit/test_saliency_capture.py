"""The saliency capture shows the map where it lies, on its own anatomy, and says what it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset
from scipy.ndimage import center_of_mass

from inference.results import SaliencyMap, SourceSlice
from sr_templates.drawing import drawable, legend, margins
from sr_templates.errors import ReportError
from sr_templates.headers import to_bytes
from sr_templates.saliency_capture import build_saliency
from sr_templates.template import load_template
from sr_templates.true_colour import source_images
from tests.factories.results import DAYS, answer, mr_header, report_context, saliency_map
from tests.factories.saliency import oblique

TEMPLATE = load_template("glioma_recurrence")


def build(saliency: SaliencyMap, **changes: object) -> Dataset:
    """Return the capture of a map."""
    header = mr_header(DAYS[saliency.time_point], "T1c", 0)
    return build_saliency(report_context(**changes), saliency, header, template=TEMPLATE)


def frame_affine(ds: Dataset, frame: int) -> np.ndarray:
    """Return (column, row, 1) of a frame to LPS millimetres as a viewer computes it, (3, 3) (PS3.3 C.7.6.2.1.1)."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    rows, columns = shared.PixelMeasuresSequence[0].PixelSpacing
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    position = ds.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0].ImagePositionPatient
    return np.column_stack([orientation[:3] * columns, orientation[3:] * rows, np.array(position, dtype=float)])


def coloured(frame: np.ndarray) -> np.ndarray:
    """Return which pixels are coloured, away from the text and the colour bar; shape (rows, columns)."""
    colour = np.ptp(frame.astype(int), axis=-1) > 40
    colour[: frame.shape[0] // 5] = False
    colour[:, int(frame.shape[1] * 0.8) :] = False
    return colour


@pytest.mark.parametrize(
    "saliency", [saliency_map(), oblique(5.0), oblique(1.0, planes=12)], ids=["axial", "oblique", "thin"]
)
def test_a_peak_is_shown_where_it_lies_in_the_patient(saliency: SaliencyMap) -> None:
    """A viewer reading our geometry finds the peak within half a source pixel, on the slice it came from."""
    ds = build(saliency)
    peak = np.unravel_index(int(np.argmax(saliency.values)), saliency.values.shape)
    centre = np.array(center_of_mass(np.where(saliency.values[peak[0]] > 0.4, 1.0, 0.0)))[::-1]
    expected = (saliency.affine @ [*centre, peak[0], 1.0])[:3]
    pixels = ds.pixel_array
    frame = int(np.argmax([coloured(each).sum() for each in pixels]))
    row, column = center_of_mass(coloured(pixels[frame]))
    assert np.linalg.norm(frame_affine(ds, frame) @ [column, row, 1.0] - expected) < 1.0
    assert ds.RepresentativeFrameNumber == frame + 1


@pytest.mark.parametrize(("share", "is_told"), [(1.0, True), (0.1, False)])
def test_every_frame_tells_where_to_scroll_to(share: float, is_told: bool) -> None:
    """Viewers open the first frame, mostly without colour; of a map that has none nothing is said."""
    whole = saliency_map()
    faint = replace(whole, values=whole.values * np.float32(share))
    other = TEMPLATE.model_copy(update={"wording": TEMPLATE.wording.model_copy(update={"peak": ""})})
    header = mr_header(DAYS[faint.time_point], "T1c", 0)
    without = build_saliency(report_context(), faint, header, template=other)
    differs = (build(faint).pixel_array != without.pixel_array).any(axis=(1, 2, 3))
    assert set(differs.tolist()) == {is_told}


def test_frames_keep_the_positions_of_their_source_slices() -> None:
    """The middle of what is drawn of a slice, below and beside the legend, is the middle of the source slice."""
    saliency = saliency_map()
    ds = build(saliency)
    planes, rows, columns = saliency.values.shape
    assert ds.NumberOfFrames == planes
    above, beside = margins(4 * rows, 4 * columns)
    assert (ds.Rows, ds.Columns) == (above + 4 * rows, beside + 4 * columns)
    for frame in range(planes):
        ours = frame_affine(ds, frame) @ [(4 * columns - 1) / 2, above + (4 * rows - 1) / 2, 1.0]
        source = (saliency.affine @ [(columns - 1) / 2, (rows - 1) / 2, frame, 1.0])[:3]
        np.testing.assert_allclose(ours, source, atol=1e-4)


def test_unequal_spacing_becomes_square_pixels_in_the_right_proportion() -> None:
    """A viewer that ignores Pixel Spacing still shows a head that is not squeezed."""
    ds = build(oblique(5.0))
    rows, columns = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert rows == pytest.approx(columns, rel=0.01)
    above, beside = margins(240, 200)
    assert (ds.Rows - above) / (ds.Columns - beside) == pytest.approx(40 * 3.0 / (50 * 2.0), rel=0.01)


def test_what_is_written_hides_nothing_of_the_slice() -> None:
    """A lesion at the forehead must not lie under our warning: the whole slice shows, edge to edge."""
    saliency = saliency_map()
    bright = replace(saliency, anatomy=np.full_like(saliency.anatomy, 100.0), values=np.zeros_like(saliency.values))
    bright.anatomy[:, 0, 0] = 0.0
    above, beside = margins(4 * 64, 4 * 64)
    slices = build(bright).pixel_array[:, above:, :-beside]
    assert slices.shape[1:3] == (256, 256)
    assert np.unique(slices[:, 8:]).tolist() == [255]


def test_thin_slices_are_thinned_out_but_the_peak_stays() -> None:
    """Frames stand about 3 mm apart, and the slice with the maximum is among them."""
    saliency = oblique(1.0, planes=12)
    ds = build(saliency)
    assert ds.NumberOfFrames == 4
    shown = {number for item in ds.SourceImageSequence for number in np.atleast_1d(item.ReferencedFrameNumber)}
    assert 11 in shown
    assert ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 3


def test_anatomy_below_the_threshold_is_grey() -> None:
    """Colour means saliency at or above the stated threshold and nothing else."""
    saliency = saliency_map()
    weak = replace(saliency, values=saliency.values * (TEMPLATE.saliency_threshold - 0.01))
    frame = build(weak).pixel_array[3].astype(int)
    middle = frame[frame.shape[0] // 4 :, : int(frame.shape[1] * 0.75)]
    assert np.ptp(middle, axis=-1).max() == 0
    assert f"{TEMPLATE.saliency_threshold:.2f} of the maximum" in build(weak).DerivationDescription


def test_text_stays_out_of_the_corners_and_the_bottom() -> None:
    """Viewers write their own text there: with black anatomy these places are black."""
    saliency = saliency_map()
    dark = replace(saliency, anatomy=np.zeros_like(saliency.anatomy), values=np.zeros_like(saliency.values))
    frame = build(dark).pixel_array[0]
    rows, columns = frame.shape[:2]
    assert frame[int(rows * 0.8) :].max() == 0
    assert frame[: rows // 4, : columns // 10].max() == 0
    assert frame[: rows // 6, -columns // 10 :].max() == 0
    assert frame[: rows // 5, columns // 4 : -columns // 4].max() > 200


def test_a_letter_that_the_font_lacks_is_a_question_mark() -> None:
    """A site's wording in any script makes a capture, without a warning and without an empty box."""
    assert drawable("Läsion \u75c5\u5909 $x$") == "Läsion ?? $x$"
    layer = legend(300, 260, ["RESEARCH USE ONLY", "\u75c5\u5909"], 0.4)
    assert layer[:40].max() > 0


def test_a_burned_in_date_is_declared() -> None:
    """The date of the scan is in the pixels, so the object says so."""
    ds = build(saliency_map())
    assert ds.BurnedInAnnotation == "YES"
    assert "not a lesion outline" in ds.ImageComments
    assert "PatientName" not in str(ds.SharedFunctionalGroupsSequence)


def test_the_capture_is_deterministic_and_filed_in_the_newest_study() -> None:
    """Equal input, equal bytes; an older time point's capture stands in the newest study, in a series of its own."""
    newest, older = build(saliency_map()), build(saliency_map(1))
    assert to_bytes(newest) == to_bytes(build(saliency_map()))
    assert newest.StudyInstanceUID == older.StudyInstanceUID
    assert newest.SeriesInstanceUID != older.SeriesInstanceUID
    assert newest.SeriesNumber != older.SeriesNumber
    assert newest.FrameOfReferenceUID != older.FrameOfReferenceUID
    assert older.SeriesDescription == "RUO AI saliency T1c 2024-04-12"


def test_a_synthetic_model_is_named_in_the_pixels() -> None:
    """The line above the image changes with the model."""
    real, synthetic = build(saliency_map()), build(saliency_map(), result=answer(synthetic=True))
    assert not np.array_equal(real.pixel_array, synthetic.pixel_array)


def test_a_map_of_another_series_or_time_point_is_refused() -> None:
    """A map is never laid on anatomy that is not its own."""
    saliency = saliency_map()
    context = report_context()
    with pytest.raises(ReportError, match="own series"):
        build_saliency(context, saliency, mr_header(DAYS[0], "T1c", 0), template=TEMPLATE)
    with pytest.raises(ReportError, match="below 4, found 7"):
        build_saliency(context, replace(saliency, time_point=7), mr_header(DAYS[-1], "T1c", 0), template=TEMPLATE)
    with pytest.raises(ReportError, match="another series"):
        build_saliency(context, replace(saliency, time_point=0), mr_header(DAYS[-1], "T1c", 0), template=TEMPLATE)


def test_a_multi_frame_source_is_listed_once_with_its_frames() -> None:
    """An enhanced instance is one item, however many of its frames were used."""
    slices = [SourceSlice(sop_class_uid="1.2", sop_instance_uid="1.3", frame=frame) for frame in (4, 5)]
    (item,) = source_images(slices)
    assert list(item.ReferencedFrameNumber) == [4, 5]
