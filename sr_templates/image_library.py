"""The image library: one representative image per series and time point, with the date of its study (TID 1600).

highdicom's own library describes every slice, 2,900 items for one series of 160, and gives no study date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    DateContentItem,
    ImageContentItem,
    RelationshipTypeValues,
    TextContentItem,
    UIDRefContentItem,
)

from sr_templates import codes
from sr_templates.containers import container

if TYPE_CHECKING:
    from sr_templates.sources import ReportContext, SeriesEvidence
    from sr_templates.template import ReportTemplate

_WITHIN = RelationshipTypeValues.HAS_ACQ_CONTEXT


def image_library(context: ReportContext, template: ReportTemplate) -> ContainerContentItem:
    """Return one group per study date and frame of reference of each time point, one image per series."""
    library = container(codes.IMAGE_LIBRARY)
    for point in context.time_points:
        grouped: dict[tuple[str, str], list[SeriesEvidence]] = {}
        for series in point.series:
            key = (series.study_date.strftime("%Y%m%d"), series.frame_of_reference_uid)
            grouped.setdefault(key, []).append(series)
        for (study_date, frame_of_reference), members in grouped.items():
            library.ContentSequence.append(_group(template, study_date, frame_of_reference, members))
    return library


def _group(
    template: ReportTemplate, study_date: str, frame_of_reference_uid: str, members: list[SeriesEvidence]
) -> ContainerContentItem:
    """Return an Image Library Group with the descriptors its images share (TID 1602)."""
    group = container(codes.IMAGE_LIBRARY_GROUP)
    group.ContentSequence.extend(
        [
            CodeContentItem(codes.MODALITY, codes.MAGNETIC_RESONANCE, _WITHIN),
            CodeContentItem(codes.TARGET_REGION, template.target_region.concept(), _WITHIN),
            DateContentItem(codes.STUDY_DATE, study_date, _WITHIN),
            UIDRefContentItem(codes.FRAME_OF_REFERENCE_UID, frame_of_reference_uid, _WITHIN),
            *(_image(series) for series in members),
        ]
    )
    return group


def _image(series: SeriesEvidence) -> ImageContentItem:
    """Return the representative image of a series, with what the series was taken for."""
    item = ImageContentItem(
        codes.SOURCE,
        series.representative.sop_class_uid,
        series.representative.sop_instance_uid,
        referenced_frame_numbers=series.representative_frame,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    item.ContentSequence = ContentSequence([TextContentItem(codes.SERIES_ROLE, series.role, _WITHIN)])
    return item
