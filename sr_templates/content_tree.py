"""The content tree of the report: TID 1500, which is extensible, with the Summary as its first visible item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.uid import ParametricMapStorage

from sr_templates import codes, wording
from sr_templates.containers import container
from sr_templates.image_library import image_library
from sr_templates.measurement_groups import imaging_measurements
from sr_templates.uids import series_instance_uid
from sr_templates.words import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from highdicom.sr import CodedConcept
    from pydicom import Dataset

    from sr_templates.sources import ReportContext
    from sr_templates.template import ReportTemplate

_CONTAINS = RelationshipTypeValues.CONTAINS


def build_tree(context: ReportContext, template: ReportTemplate, captures: Sequence[Dataset]) -> ContainerContentItem:
    """Return the root container; `captures` are the image objects of this run that the report points at.

    Source: PS3.16 TID 1500: language, observers, procedure; then Summary, captures, selection, images, measurements.
    """
    root = ContainerContentItem(codes.REPORT_TITLE, is_content_continuous=False, template_id="1500")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(template.language.concept()),
            *_device_observer(context),
            *_person_observer(context),
            CodeContentItem(
                codes.PROCEDURE_REPORTED, template.procedure.concept(), RelationshipTypeValues.HAS_CONCEPT_MOD
            ),
            TextContentItem(codes.SUMMARY, "\r\n".join(wording.summary(context, template, captures)), _CONTAINS),
            *_captures(context, captures),
            *_selection(context, template),
            image_library(context, template),
            imaging_measurements(context, template),
        ]
    )
    return root


def _device_observer(context: ReportContext) -> Iterable[Any]:
    """Return TID 1002 for a device: no human has looked at this."""
    device = context.device
    attributes = DeviceObserverIdentifyingAttributes(
        uid=device.uid,
        name=device.name,
        manufacturer_name=device.manufacturer,
        model_name=device.model_name,
        serial_number=device.serial_number,
    )
    return ObserverContext(codes.DEVICE, attributes)  # type: ignore[no-any-return]


def _person_observer(context: ReportContext) -> Iterable[Any]:
    """Return TID 1002 for the person who ordered the run, by login name; nothing where the node did by itself."""
    if not context.requested_by:
        return ()
    login = plain(context.requested_by)
    family_name = "".join(" " if each in "^=\\" else each for each in login)[:63]
    attributes = PersonObserverIdentifyingAttributes(name=f"{family_name}^", login_name=login)
    return ObserverContext(codes.PERSON, attributes)  # type: ignore[no-any-return]


def _captures(context: ReportContext, captures: Sequence[Dataset]) -> Iterator[ImageContentItem]:
    """Yield a reference per series of the run's images: of a series of single frames, the middle one."""
    series: dict[str, list[Dataset]] = {}
    for each in captures:
        series.setdefault(str(each.SeriesInstanceUID), []).append(each)
    for members in series.values():
        shown = members[len(members) // 2]
        name = _capture_name(context, shown)
        yield ImageContentItem(name, shown.SOPClassUID, shown.SOPInstanceUID, relationship_type=_CONTAINS)


def _capture_name(context: ReportContext, capture: Dataset) -> CodedConcept:
    if capture.SOPClassUID == ParametricMapStorage:
        return codes.PARAMETRIC_MAP
    if capture.SeriesInstanceUID == series_instance_uid(context, "summary"):
        return codes.SUMMARY_PAGE
    return codes.SALIENCY_MAP


def _selection(context: ReportContext, template: ReportTemplate) -> Iterator[ContainerContentItem]:
    """Yield what was not used and why, one comment each, if there is anything to say."""
    notes = wording.notes(context, template)
    if notes:
        selection = container(codes.SELECTION)
        selection.ContentSequence.extend([TextContentItem(codes.COMMENT, each, _CONTAINS) for each in notes])
        yield selection
