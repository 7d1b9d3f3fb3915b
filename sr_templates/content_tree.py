"""The content tree of the report: TID 1500 from highdicom's templates, with its known defects put right.

highdicom 0.28 marks every container CONTINUOUS, which makes viewers drop the labels; gives the uncertainty of a
percentage the unit "no units"; and cannot leave a number out. Each is corrected here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DateContentItem,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    LongitudinalTemporalOffsetFromEvent,
    Measurement,
    MeasurementProperties,
    MeasurementsAndQualitativeEvaluations,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TimePointContext,
    TrackingIdentifier,
    UIDRefContentItem,
)

from sr_templates import codes, wording
from sr_templates.uids import tracking_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom import Dataset

    from inference.results import Abstention, Output
    from sr_templates.sources import ReportContext, SeriesEvidence, TimePointEvidence
    from sr_templates.template import OutputTemplate, ReportTemplate

CONTAINS = RelationshipTypeValues.CONTAINS
_HAS_ACQUISITION_CONTEXT = RelationshipTypeValues.HAS_ACQ_CONTEXT


def build_tree(context: ReportContext, template: ReportTemplate, captures: Sequence[Dataset]) -> ContainerContentItem:
    """Return the root container; `captures` are the secondary captures of this run that the report points at.

    Source: PS3.16 TID 1500 (extensible): language, observer, procedure, then Summary first, images, measurements.
    """
    root = ContainerContentItem(codes.REPORT_TITLE, is_content_continuous=False, template_id="1500")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(template.language.concept()),
            *_device_observer(context),
            CodeContentItem(
                codes.PROCEDURE_REPORTED, template.procedure.concept(), RelationshipTypeValues.HAS_CONCEPT_MOD
            ),
            TextContentItem(codes.SUMMARY, "\r\n".join(wording.summary(context, template, captures)), CONTAINS),
            *(_capture(each) for each in captures),
            _image_library(context, template),
            _imaging_measurements(context, template),
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


def _capture(capture: Dataset) -> ImageContentItem:
    """Return a reference to an image of this run; saliency lies somewhere in the patient, a page does not."""
    name = codes.SALIENCY_MAP if "FrameOfReferenceUID" in capture else codes.SUMMARY_PAGE
    return ImageContentItem(name, capture.SOPClassUID, capture.SOPInstanceUID, relationship_type=CONTAINS)


def _image_library(context: ReportContext, template: ReportTemplate) -> ContainerContentItem:
    """Return one group per time point and frame of reference, one representative image per series (TID 1600)."""
    library = _container(codes.IMAGE_LIBRARY)
    for point in context.time_points:
        grouped: dict[tuple[str, str], list[SeriesEvidence]] = {}
        for series in point.series:
            key = (series.study_date.strftime("%Y%m%d"), series.frame_of_reference_uid)
            grouped.setdefault(key, []).append(series)
        for (study_date, frame_of_reference), members in grouped.items():
            library.ContentSequence.append(_library_group(template, study_date, frame_of_reference, members))
    return library


def _library_group(
    template: ReportTemplate, study_date: str, frame_of_reference_uid: str, members: list[SeriesEvidence]
) -> ContainerContentItem:
    """Return an Image Library Group with the descriptors its images share (TID 1602)."""
    group = _container(codes.IMAGE_LIBRARY_GROUP)
    within = _HAS_ACQUISITION_CONTEXT
    group.ContentSequence.extend(
        [
            CodeContentItem(codes.MODALITY, codes.MAGNETIC_RESONANCE, within),
            CodeContentItem(codes.TARGET_REGION, template.target_region.concept(), within),
            DateContentItem(codes.STUDY_DATE, study_date, within),
            UIDRefContentItem(codes.FRAME_OF_REFERENCE_UID, frame_of_reference_uid, within),
            *(
                ImageContentItem(
                    codes.SOURCE,
                    series.representative.sop_class_uid,
                    series.representative.sop_instance_uid,
                    referenced_frame_numbers=series.representative_frame,
                    relationship_type=CONTAINS,
                )
                for series in members
            ),
        ]
    )
    return group


def _imaging_measurements(context: ReportContext, template: ReportTemplate) -> ContainerContentItem:
    """Return the answers first, the primary one at the top, then one group per time point."""
    container = _container(codes.IMAGING_MEASUREMENTS)
    abstention = context.result.abstention
    if abstention is not None:
        container.ContentSequence.append(_abstention_group(context, template, abstention))
    for output in sorted(context.result.outputs, key=lambda each: each.name != template.primary):
        container.ContentSequence.append(_answer_group(context, template, output))
    for index in range(len(context.time_points)):
        container.ContentSequence.append(_time_point_group(context, template, index))
    return container


def _answer_group(context: ReportContext, template: ReportTemplate, output: Output) -> Dataset:
    """Return one output with its interval, its category and the images behind it (TID 1501)."""
    words = template.output(output.name)
    measurement = Measurement(
        name=words.probability.concept(),
        value=_percentage(output.probability),
        unit=codes.PERCENT,
        properties=_interval(output),
    )
    name = template.tracking_identifier if output.name == template.primary else words.label
    return _group(
        context,
        template,
        identifier=(name, output.name),
        points=context.time_points,
        measurements=[measurement],
        qualitative_evaluations=[QualitativeEvaluation(words.category.concept(), _category(context, words, output))],
    )


def _abstention_group(context: ReportContext, template: ReportTemplate, abstention: Abstention) -> Dataset:
    """Return the primary output without a value: the number is absent and the qualifier says why (CID 42)."""
    words = template.main
    measurement = Measurement(
        name=words.probability.concept(),
        value=0,
        unit=codes.PERCENT,
        qualifier=codes.QUALIFIERS[abstention.kind],
    )
    measurement[0].MeasuredValueSequence = []
    return _group(
        context,
        template,
        identifier=(template.tracking_identifier, template.primary),
        points=context.time_points,
        measurements=[measurement],
        qualitative_evaluations=[QualitativeEvaluation(words.category.concept(), codes.NO_CATEGORY)],
    )


def _time_point_group(context: ReportContext, template: ReportTemplate, index: int) -> Dataset:
    """Return time point `index` in its context (TID 1502), with the probability of the scans up to it if known."""
    point = context.time_points[index]
    prefix = wording.prefix_of(context, index)
    name = template.main.prefix_probability.concept()
    measurements = [
        Measurement(name=name, value=_percentage(each.probability), unit=codes.PERCENT) for each in (prefix,) if each
    ]
    days = point.days_from_surgery
    offset = days is not None and LongitudinalTemporalOffsetFromEvent(days, codes.DAY, codes.SURGERY)
    time_point_context = TimePointContext(
        time_point=point.acquired.strftime("%Y%m%d"),
        time_point_type=codes.TIME_POINT_TYPES.get(point.kind),
        time_point_order=index + 1,
        temporal_offset_from_event=offset or None,
    )
    day = point.acquired.date().isoformat()
    return _group(
        context,
        template,
        identifier=(f"Scan of {day}", f"time point {day}"),
        points=(point,),
        measurements=measurements,
        time_point_context=time_point_context,
    )


def _group(
    context: ReportContext,
    template: ReportTemplate,
    *,
    identifier: tuple[str, str],
    points: Sequence[TimePointEvidence],
    measurements: list[Measurement],
    **rows: Any,
) -> Dataset:
    """Return a Measurement Group; `identifier` is (what is read, what the tracking UID derives from).

    `rows` are the optional rows of TID 1501 as highdicom names them.
    """
    readable, tracked = identifier
    model = context.result.model
    algorithm = AlgorithmIdentification(
        name=model.name,
        version=model.version,
        parameters=None if "time_point_context" in rows else _parameters(context),
        family=codes.ARTIFICIAL_INTELLIGENCE,
    )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(context.patient_study, context.record.task, tracked), identifier=readable
        ),
        algorithm_id=algorithm,
        finding_sites=[FindingSite(template.finding_site.concept())],
        measurements=measurements,
        source_images=[_source_image(series) for point in points for series in point.series],
        **rows,
    )[0]
    group.ContinuityOfContent = "SEPARATE"
    return group  # type: ignore[no-any-return]


def _parameters(context: ReportContext) -> list[str]:
    """Return what the algorithm ran with; said once, in the group of the answer."""
    model = context.result.model
    training = ["training data=SYNTHETIC PHANTOMS"] if model.synthetic else []
    return [f"weights={model.digest}", f"time points={len(context.time_points)}", *training]


def _source_image(series: SeriesEvidence) -> SourceImageForMeasurementGroup:
    """Return the representative image of a series as the source of a measurement."""
    frame = series.representative_frame
    return SourceImageForMeasurementGroup(
        series.representative.sop_class_uid,
        series.representative.sop_instance_uid,
        referenced_frame_numbers=None if frame is None else [frame],
    )


def _category(context: ReportContext, words: OutputTemplate, output: Output) -> CodedConcept:
    """Return the band's code; a synthetic model is given none."""
    return codes.SYNTHETIC_MODEL if context.result.model.synthetic else words.band(output.probability).code.concept()


def _interval(output: Output) -> MeasurementProperties | None:
    """Return how far the ensemble's interval reaches above and below the value, in percent (TID 310)."""
    if output.lower is None or output.upper is None:
        return None
    properties = MeasurementProperties(
        upper_measurement_uncertainty=_percentage(max(0.0, output.upper - output.probability)),
        lower_measurement_uncertainty=_percentage(max(0.0, output.probability - output.lower)),
    )
    for item in properties:
        item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [codes.PERCENT]
    return properties


def _percentage(fraction: float) -> float:
    """Return a fraction in percent with one decimal."""
    return round(float(fraction) * 100, 1)


def _container(name: CodedConcept) -> ContainerContentItem:
    """Return an empty container whose items a viewer shows one by one."""
    container = ContainerContentItem(name, is_content_continuous=False, relationship_type=CONTAINS)
    container.ContentSequence = ContentSequence()
    return container
