"""The measurement groups of a report (TID 1501): the answers, or why there is none, then one group per time point.

highdicom 0.28 gives the uncertainty of a percentage the unit "no units", and cannot leave a number out. Both are put
right here. No group has a `Finding`: a probability of recurrence asserts no recurrent tumour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContainerContentItem,
    FindingSite,
    LongitudinalTemporalOffsetFromEvent,
    Measurement,
    MeasurementProperties,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TimePointContext,
    TrackingIdentifier,
)

from sr_templates import codes, wording
from sr_templates.containers import container
from sr_templates.uids import tracking_uid
from sr_templates.words import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom import Dataset

    from inference.results import Abstention, Output
    from sr_templates.sources import ReportContext, SeriesEvidence, TimePointEvidence
    from sr_templates.template import OutputTemplate, ReportTemplate


def imaging_measurements(context: ReportContext, template: ReportTemplate) -> ContainerContentItem:
    """Return the answers first, the primary one at the top, then one group per time point."""
    measurements = container(codes.IMAGING_MEASUREMENTS)
    measurements.ContentSequence.extend(_answer_groups(context, template))
    for index in range(len(context.time_points)):
        measurements.ContentSequence.append(_time_point_group(context, template, index))
    return measurements


def _answer_groups(context: ReportContext, template: ReportTemplate) -> Iterator[Dataset]:
    """Yield one group per answer, or one per question that was not answered; the primary one first."""
    abstention = context.result.abstention
    if abstention is not None:
        for name in sorted(template.outputs, key=lambda each: each != template.primary):
            yield _abstention_group(context, template, name, abstention)
    for output in sorted(context.result.outputs, key=lambda each: each.name != template.primary):
        yield _answer_group(context, template, output)


def _answer_group(context: ReportContext, template: ReportTemplate, output: Output) -> Dataset:
    """Return one output with its interval, its category and the images behind it (TID 1501)."""
    words = template.output(output.name)
    measurement = Measurement(
        name=words.probability.concept(),
        value=wording.rounded(output.probability, words.edges),
        unit=codes.PERCENT,
        properties=_interval(output),
    )
    primary = output.name == template.primary
    return _group(
        context,
        template,
        identifier=_identifier(template, output.name),
        points=context.time_points,
        measurements=[measurement],
        qualitative_evaluations=[QualitativeEvaluation(words.category.concept(), _category(context, words, output))],
        comments=_cautions(context, template, None) if primary else (),
    )


def _identifier(template: ReportTemplate, name: str) -> tuple[str, str]:
    """Return how an output is tracked over the runs: what is read, and what its UID derives from."""
    return (template.tracking_identifier if name == template.primary else template.output(name).label, name)


def _cautions(context: ReportContext, template: ReportTemplate, time_point: int | None) -> tuple[str, ...]:
    """Return the quality remarks on one time point, or on the run as a whole."""
    flags = [each for each in context.result.flags if each.time_point == time_point]
    return tuple(wording.caution(each, template, placed=False) for each in flags)


def _abstention_group(context: ReportContext, template: ReportTemplate, name: str, abstention: Abstention) -> Dataset:
    """Return an output without a value: the number is absent, the qualifier (CID 42) and a comment say why."""
    words = template.output(name)
    measurement = Measurement(
        name=words.probability.concept(),
        value=0,
        unit=codes.PERCENT,
        qualifier=codes.QUALIFIERS[abstention.kind],
    )
    measurement[0].MeasuredValueSequence = []
    cause = wording.abstention_cause(abstention.kind, template)
    return _group(
        context,
        template,
        identifier=_identifier(template, name),
        points=context.time_points,
        measurements=[measurement],
        qualitative_evaluations=[QualitativeEvaluation(words.category.concept(), codes.NO_CATEGORY)],
        comments=(f"{cause}: {wording.abstention_reason(abstention, template)}", *_cautions(context, template, None)),
    )


def _time_point_group(context: ReportContext, template: ReportTemplate, index: int) -> Dataset:
    """Return time point `index` in its context (TID 1502), with the probability of the scans up to it if known.

    A synthetic model says so in each group: a reader may be shown one alone.
    """
    point = context.time_points[index]
    prefix = wording.prefix_of(context, index)
    name = template.main.prefix_probability.concept()
    measurements = [
        Measurement(name=name, value=wording.rounded(each.probability, template.main.edges), unit=codes.PERCENT)
        for each in (prefix,)
        if each
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
        identifier=(template.wording.tracked_scan.format(date=day), f"time point {day}"),
        points=(point,),
        measurements=measurements,
        qualitative_evaluations=[QualitativeEvaluation(template.main.category.concept(), codes.SYNTHETIC_MODEL)]
        if context.result.model.synthetic
        else None,
        comments=_cautions(context, template, index),
        time_point_context=time_point_context,
    )


def _group(
    context: ReportContext,
    template: ReportTemplate,
    *,
    identifier: tuple[str, str],
    points: Sequence[TimePointEvidence],
    measurements: list[Measurement],
    comments: Sequence[str] = (),
    **rows: Any,
) -> Dataset:
    """Return a Measurement Group; `identifier` is (what is read, what the tracking UID derives from).

    `rows` are the optional rows of TID 1501 as highdicom names them.
    """
    readable, tracked = identifier
    model = context.result.model
    algorithm = AlgorithmIdentification(
        name=plain(model.name),
        version=plain(model.version),
        parameters=[*_training(context), *_roles(points[0])] if "time_point_context" in rows else _parameters(context),
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
    within = RelationshipTypeValues.CONTAINS
    group.ContentSequence.extend([TextContentItem(codes.COMMENT, each, within) for each in comments])
    return group  # type: ignore[no-any-return]


def _parameters(context: ReportContext) -> list[str]:
    """Return what the algorithm ran with; said in the groups of the answers.

    Task, run and version are what a node that lost its database reads back (`read_report`), so that it goes on counting
    and reports no inputs twice.
    """
    model, record = context.result.model, context.record
    ran = [f"task={record.task}", f"run={record.run_key}", f"report version={record.version}"]
    return [f"weights={model.digest}", f"time points={len(context.time_points)}", *_training(context), *ran]


def _training(context: ReportContext) -> list[str]:
    """Return that the model learnt from phantoms, where it did."""
    return ["training data=SYNTHETIC PHANTOMS"] if context.result.model.synthetic else []


def _roles(point: TimePointEvidence) -> list[str]:
    """Return what the series of a time point were for the model, in the order of the group's source images."""
    return [f"roles={' '.join(series.role for series in point.series)}"]


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
