"""The Structured Report of a run: the document around the content tree, and the evidence it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from sr_templates import codes
from sr_templates.content_tree import build_tree
from sr_templates.headers import describe_series, new_object
from sr_templates.self_check import refuse_faults
from sr_templates.sources import InstanceRef
from sr_templates.template import check_outputs
from sr_templates.uids import series_instance_uid, sop_instance_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inference.results import Result
    from sr_templates.sources import Predecessor, ReportContext
    from sr_templates.template import ReportTemplate

SopClass = Literal["Comprehensive3DSR", "ComprehensiveSR", "EnhancedSR"]

# In the order in which a destination is asked for them.
SOP_CLASS_UIDS: dict[SopClass, str] = {
    "Comprehensive3DSR": Comprehensive3DSRStorage,
    "ComprehensiveSR": ComprehensiveSRStorage,
    "EnhancedSR": EnhancedSRStorage,
}
# What the outbox calls them (at most 16 characters).
KINDS: dict[SopClass, str] = {
    "Comprehensive3DSR": "report",
    "ComprehensiveSR": "report-compr",
    "EnhancedSR": "report-enhanced",
}
SERIES_NUMBER = 9001


def build_report(
    context: ReportContext,
    template: ReportTemplate,
    *,
    references: Sequence[Dataset] = (),
    made: Sequence[Dataset] = (),
    sop_class: SopClass = "Comprehensive3DSR",
) -> Dataset:
    """Return the TID 1500 report of a run, filed in the newest study; the same context gives the same bytes.

    `references` are the secondary captures of the same run, which the report points at; `made` are all its images,
    which the evidence names, so that whoever reads the report alone can withdraw every one of them.

    Raises:
        ReportError: if the template does not know an output of the result, its primary one is missing, or the report
            would break a rule of ours.
    """
    check_outputs(template, context.result)
    sop_class_uid = SOP_CLASS_UIDS[sop_class]
    ds = new_object(context, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid(context, sop_class_uid))
    describe_series(
        ds,
        uid=series_instance_uid(context, sop_class),
        number=SERIES_NUMBER,
        modality="SR",
        description=template.series_descriptions.report,
        version=context.record.version,
    )
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CodingSchemeIdentificationSequence = coding_schemes(template)
    ds.CompletionFlag = completion(context.result)
    ds.VerificationFlag = "UNVERIFIED"  # only a human observer can verify
    ds.PreliminaryFlag = "PRELIMINARY"
    if context.record.predecessor is not None:
        ds.PredecessorDocumentsSequence = [_predecessor(context.record.predecessor, sop_class_uid)]
    _add_evidence(ds, context, (*made, *references))
    for element in build_tree(context, template, references):
        ds.add(element)
    refuse_faults(ds)
    return ds


def build_reports(
    context: ReportContext, template: ReportTemplate, references: Sequence[Dataset], *, made: Sequence[Dataset] = ()
) -> dict[str, Dataset]:
    """Return the report in every SOP Class by kind, in the order in which a destination is asked for them.

    One tree, three instances with UIDs of their own: a destination is sent the first that it accepts.

    Raises:
        ReportError: as `build_report`.
    """
    return {
        kind: build_report(context, template, references=references, made=made, sop_class=sop_class)
        for sop_class, kind in KINDS.items()
    }


def coding_schemes(template: ReportTemplate) -> list[Dataset]:
    """Return who answers for each private scheme, ours and those of the template (PS3.3 C.12.1)."""
    schemes = {each.designator: each.identification() for each in template.coding_schemes}
    schemes.setdefault(codes.PRIVATE_SCHEME, codes.private_scheme())
    return [schemes[designator] for designator in sorted(schemes)]


def completion(result: Result) -> str:
    """Return the Completion Flag: a report without an answer is partial."""
    return "PARTIAL" if result.abstention is not None else "COMPLETE"


def _add_evidence(ds: Dataset, context: ReportContext, captures: Sequence[Dataset]) -> None:
    """List every input: the target study's as current, other studies' as pertinent, none in both (PS3.3 C.17.2.3)."""
    own = tuple(
        InstanceRef(
            sop_class_uid=each.SOPClassUID,
            sop_instance_uid=each.SOPInstanceUID,
            series_instance_uid=each.SeriesInstanceUID,
            study_instance_uid=each.StudyInstanceUID,
        )
        for each in captures
    )
    study = context.study_instance_uid
    instances = (*context.instances, *own)
    ds.CurrentRequestedProcedureEvidenceSequence = hierarchy(
        each for each in instances if each.study_instance_uid == study
    )
    older = hierarchy(each for each in instances if each.study_instance_uid != study)
    if older:
        ds.PertinentOtherEvidenceSequence = older


def hierarchy(instances: Iterable[InstanceRef]) -> list[Dataset]:
    """Return instances as the Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1), each once, in order."""
    studies: dict[str, dict[str, dict[str, str]]] = {}
    for each in instances:
        series = studies.setdefault(each.study_instance_uid, {})
        series.setdefault(each.series_instance_uid, {})[each.sop_instance_uid] = each.sop_class_uid
    return [
        _study_item(study, [_series_item(uid, members) for uid, members in series.items()])
        for study, series in studies.items()
    ]


def _study_item(study_instance_uid: str, series: list[Dataset]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    item.ReferencedSeriesSequence = series
    return item


def _series_item(series_uid: str, members: dict[str, str]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = series_uid
    item.ReferencedSOPSequence = [_sop_item(sop_class, instance) for instance, sop_class in members.items()]
    return item


def _sop_item(sop_class_uid: str, instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = instance_uid
    return item


def _predecessor(earlier: Predecessor, sop_class_uid: str) -> Dataset:
    """Return the reference to the earlier report; it is replaced by a correction (CID 7009), not by an update."""
    item = hierarchy([earlier.of_class(sop_class_uid)])[0]
    if earlier.replaced or earlier.taken_back:
        sop = item.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        sop.PurposeOfReferenceCodeSequence = [codes.REPLACED_REPORT]
    return item
