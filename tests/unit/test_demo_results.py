"""The demo tells what came back from the archive apart by what the node sent, whatever objects a task wants."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage

from dicom_node.demo_results import tell_apart
from dicom_node.errors import NodeError, UpstreamError
from dicom_node.ledger.runs import OutboxObject
from dicom_node.timeline.task import SaliencyRule
from dicom_node.work.encode import encode_objects
from sr_templates.template import load_template
from tests.factories.issued import source_images
from tests.factories.results import answer, report_context, saliency_map

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from dicom_node.work.encode import EncodedObject

Found = tuple[list[OutboxObject], list["Dataset"]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The scans that the report speaks of."""
    return source_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def single_frames(images: list[Path]) -> Found:
    """A saliency series of single frames, of the same SOP Class as the summary page, and a Parametric Map."""
    return issued(images, SaliencyRule(format="single-frame", parametric_map=True))


@pytest.fixture(scope="module")
def multi_frame(images: list[Path]) -> Found:
    """What a task gets by default."""
    return issued(images, SaliencyRule())


def issued(images: list[Path], rule: SaliencyRule) -> Found:
    """Return what was sent, and the same objects as an archive gives them back, in another order."""
    made = encode_objects(
        report_context(answer(0.88)),
        [saliency_map()],
        load_template("glioma_recurrence"),
        {each.stem: each for each in images},
        saliency=rule,
    )
    sent = [each for each in made if each.kind in {"saliency", "parametric-map", "summary", "report"}]
    held = [dcmread(io.BytesIO(each.content)) for each in reversed(sent)]
    return [_row(position, each) for position, each in enumerate(sent)], held


def _row(position: int, made: EncodedObject) -> OutboxObject:
    return OutboxObject(
        position=position,
        kind=made.kind,
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=made.sop_instance_uid,
        series_instance_uid=made.series_instance_uid,
        study_instance_uid=made.study_instance_uid,
        path="",
        sha256="",
    )


@pytest.mark.parametrize(
    ("fixture", "saliency_class"),
    [
        ("multi_frame", MultiFrameTrueColorSecondaryCaptureImageStorage),
        ("single_frames", SecondaryCaptureImageStorage),
    ],
)
def test_report_saliency_and_summary_are_told_apart(
    request: pytest.FixtureRequest, fixture: str, saliency_class: str
) -> None:
    """Of a series of single frames the one with colour, never the summary page of the same SOP Class."""
    sent, held = request.getfixturevalue(fixture)
    found = tell_apart(sent, held)
    assert found.report.Modality == "SR"
    assert "summary" in found.summary.SeriesDescription
    assert found.summary.pixel_array.shape == (1024, 1024, 3)
    assert "saliency" in found.saliency.SeriesDescription
    assert found.saliency.SOPClassUID == saliency_class
    anatomy = found.saliency.pixel_array[..., found.saliency.Rows // 3 :, : found.saliency.Columns * 4 // 5, :]
    assert np.count_nonzero(np.ptp(anatomy, axis=-1) > 40) > 100


@pytest.mark.parametrize("position", [0, 2, -1])
def test_an_archive_that_does_not_hold_everything_is_named_as_such(single_frames: Found, position: int) -> None:
    """A slice of a series counts like the report."""
    sent, held = single_frames
    gone = sent[position]
    left = [ds for ds in held if ds.SOPInstanceUID != gone.sop_instance_uid]
    with pytest.raises(UpstreamError, match=f"does not hold 1 of {len(sent)} objects: {gone.kind}"):
        tell_apart(sent, left)


def test_a_run_without_saliency_is_not_blamed_on_the_archive(multi_frame: Found) -> None:
    """An abstention has none to show."""
    sent, held = multi_frame
    with pytest.raises(NodeError, match="issued no saliency"):
        tell_apart([each for each in sent if each.kind != "saliency"], held)
