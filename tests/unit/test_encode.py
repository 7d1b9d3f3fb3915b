"""A run's objects come in the order of sending, as the task wants its saliency."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.timeline.task import SaliencyRule
from dicom_node.work.encode import EncodedObject, encode_objects
from sr_templates.template import load_template
from tests.factories.results import DAYS, SLICES, mr_header, report_context, saliency_map


def encoded(folder: Path, **rule: object) -> list[EncodedObject]:
    """Return the objects of a run with the maps of two time points."""
    maps = [saliency_map(1), saliency_map()]
    paths = {}
    for day in (DAYS[1], DAYS[-1]):
        for z in range(SLICES):
            ds = mr_header(day, "T1c", z)
            paths[str(ds.SOPInstanceUID)] = folder / f"{day:%Y%m%d}-{z}.dcm"
            ds.save_as(paths[str(ds.SOPInstanceUID)], enforce_file_format=True)
    return encode_objects(
        report_context(), maps, load_template("glioma_recurrence"), paths, saliency=SaliencyRule(**rule)
    )


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        ({}, ["saliency", "saliency"]),
        ({"parametric_map": True}, ["saliency", "parametric-map"] * 2),
        ({"format": "single-frame"}, ["saliency"] * 10),
    ],
    ids=["multi-frame", "with parametric maps", "single-frame"],
)
def test_images_come_first_then_the_page_then_the_reports(
    tmp_path: Path, rule: dict[str, object], kinds: list[str]
) -> None:
    """The report refers to what the archive then holds already."""
    found = [each.kind for each in encoded(tmp_path, **rule)]
    assert found[: len(kinds) + 1] == [*kinds, "summary"]
    assert found[len(kinds) + 1] == "report"
    assert all(each.startswith("report") for each in found[len(kinds) + 1 :])


@pytest.mark.parametrize("form", ["multi-frame", "single-frame"])
def test_the_report_points_at_one_image_of_every_series_of_the_result(tmp_path: Path, form: str) -> None:
    """Each saliency series by the capture of its peak, each map, and the page; all of them among the evidence."""
    objects = encoded(tmp_path, format=form, parametric_map=True)
    report = dcmread(BytesIO(next(each.content for each in objects if each.kind == "report")))
    images = [each for each in objects if not each.kind.startswith("report")]
    named = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in report.ContentSequence
        if item.ValueType == "IMAGE"
    }
    assert len(named) == 5
    assert {each.series_instance_uid for each in images if each.sop_instance_uid in named} == {
        each.series_instance_uid for each in images
    }
    (current,) = report.CurrentRequestedProcedureEvidenceSequence
    evidence = {
        instance.ReferencedSOPInstanceUID
        for series in current.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert {each.sop_instance_uid for each in images} <= evidence  # whoever reads it back can withdraw all of them


def test_every_object_lies_in_the_newest_study_and_no_two_share_a_uid(tmp_path: Path) -> None:
    """What a viewer opens with the newest exam, under UIDs that tell every object apart."""
    objects = encoded(tmp_path, format="single-frame", parametric_map=True)
    assert {each.study_instance_uid for each in objects} == {report_context().study_instance_uid}
    assert len({each.sop_instance_uid for each in objects}) == len(objects)
    assert all(len(each.kind) <= 16 for each in objects)  # as the ledger keeps them
