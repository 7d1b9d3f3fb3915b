"""From a report context to bytes, in the order of sending: images first, then the report that refers to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.work.report_context import header
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import build_reports
from sr_templates.parametric_map import build_parametric_map
from sr_templates.saliency_capture import build_saliency
from sr_templates.single_frame_capture import build_saliency_series
from sr_templates.summary_page import build_summary, render_summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydicom import Dataset

    from dicom_node.timeline.task import SaliencyRule
    from inference.results import SaliencyMap
    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

SALIENCY: Final = "saliency"
PARAMETRIC_MAP: Final = "parametric-map"
SUMMARY: Final = "summary"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedObject:
    """One object as the bytes of a Part 10 file."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    content: bytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Images:
    """The images of one time point: all of them by kind, and those that the report points at."""

    objects: tuple[tuple[str, Dataset], ...]
    shown: tuple[Dataset, ...]


def encode_objects(
    context: ReportContext,
    maps: Sequence[SaliencyMap],
    template: ReportTemplate,
    paths: Mapping[str, Path],
    *,
    saliency: SaliencyRule,
) -> list[EncodedObject]:
    """Make every object of a run: saliency of each time point, the summary page, the report in every SOP Class.

    Raises:
        NodeError: if an input file is lost.
        ReportError: if the context or template does not make a legal object.
    """
    images = [_images(context, each, paths, template, saliency) for each in maps]
    page = render_summary(context, template, maps[-1] if maps else None)
    summary = build_summary(context, page, template=template)
    shown = [ds for each in images for ds in each.shown]
    objects = [(kind, ds) for each in images for kind, ds in each.objects]
    reports = build_reports(context, template, [*shown, summary], made=[ds for _, ds in objects])
    return [_encoded(kind, ds) for kind, ds in (*objects, (SUMMARY, summary), *reports.items())]


def _images(
    context: ReportContext,
    saliency: SaliencyMap,
    paths: Mapping[str, Path],
    template: ReportTemplate,
    rule: SaliencyRule,
) -> _Images:
    """Make what a task wants of one time point's saliency; of a series the tree points at the capture of the peak."""
    source = header(paths, saliency.slices[0].sop_instance_uid)
    captures: tuple[Dataset, ...]
    if rule.format == "single-frame":
        captures, key = build_saliency_series(context, saliency, source, template=template)
    else:
        key = build_saliency(context, saliency, source, template=template)
        captures = (key,)
    maps = (build_parametric_map(context, saliency, source, template=template),) if rule.parametric_map else ()
    return _Images(
        objects=(*((SALIENCY, each) for each in captures), *((PARAMETRIC_MAP, each) for each in maps)),
        shown=(key, *maps),
    )


def _encoded(kind: str, ds: Dataset) -> EncodedObject:
    return EncodedObject(
        kind=kind,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        content=to_bytes(ds),
    )
