"""From a report context to bytes, in the order of sending: images first, then the report that refers to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.work.report_context import header
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import build_report
from sr_templates.saliency_capture import build_saliency
from sr_templates.summary_page import build_summary, render_summary
from sr_templates.template import load_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydicom import Dataset

    from inference.results import SaliencyMap
    from sr_templates.sources import ReportContext


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedObject:
    """One object as the bytes of a Part 10 file."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    content: bytes


def encode_objects(
    context: ReportContext, maps: Sequence[SaliencyMap], report_template: str, paths: Mapping[str, Path]
) -> list[EncodedObject]:
    """Make every object of a run.

    Raises:
        NodeError: if an input file is lost.
        ReportError: if the context or template does not make a legal object.
    """
    template = load_template(report_template)
    captures = [
        build_saliency(context, each, header(paths, each.slices[0].sop_instance_uid), template=template)
        for each in maps
    ]
    page = render_summary(context, template, maps[-1] if maps else None)
    summary = build_summary(context, page, template=template)
    report = build_report(context, template, references=[*captures, summary])
    kinds = [*(("saliency", each) for each in captures), ("summary", summary), ("report", report)]
    return [_encoded(kind, ds) for kind, ds in kinds]


def _encoded(kind: str, ds: Dataset) -> EncodedObject:
    return EncodedObject(
        kind=kind,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        content=to_bytes(ds),
    )
