"""What a report of ours must be, beside legal: rules that no public validator knows, held before a report leaves.

None of them misses a tracking UID or objects to 713 %: each rule stands for a fault that they were seen to let pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sr_templates import codes
from sr_templates.errors import ReportError
from sr_templates.read_report import concept, descendants
from sr_templates.words import RESEARCH_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydicom import Dataset

_CURRENT: Final = "CurrentRequestedProcedureEvidenceSequence"
_OTHER: Final = "PertinentOtherEvidenceSequence"
_DEVICE_UID, _PROCEDURE, _GROUP = "121012", "121058", "125007"
_GROUP_ROWS: Final = {
    "112039": "Tracking Identifier",
    "112040": "Tracking Unique Identifier",
    "111001": "Algorithm Name",
    "111003": "Algorithm Version",
}
_UNITS: Final = {("%", "UCUM"), ("d", "UCUM"), ("1", "UCUM")}


def faults(ds: Dataset) -> tuple[str, ...]:
    """Return every rule of ours that a report breaks."""
    items = tuple(descendants(ds))
    found = (*_document_faults(ds), *_tree_faults(ds, items), *_evidence_faults(ds, items))
    return tuple(dict.fromkeys(found))


def refuse_faults(ds: Dataset) -> None:
    """Let a report pass that breaks no rule.

    Raises:
        ReportError: naming every rule that it breaks.
    """
    found = faults(ds)
    if found:
        msg = f"report: {'; '.join(found)}"
        raise ReportError(msg)


def _document_faults(ds: Dataset) -> Iterator[str]:
    if ds.get("ContentQualification") != "RESEARCH":
        yield "Content Qualification: expected RESEARCH"
    if ds.get("VerificationFlag") != "UNVERIFIED":
        yield "Verification Flag: expected UNVERIFIED, for no human has looked at it"
    if ds.get("PreliminaryFlag") != "PRELIMINARY":
        yield "Preliminary Flag: expected PRELIMINARY"
    if not str(ds.get("SeriesDescription", "")).startswith("RUO "):
        yield "Series Description: expected to begin with RUO"


def _tree_faults(ds: Dataset, items: tuple[Dataset, ...]) -> Iterator[str]:
    """Yield what is wrong with the items: title, observer, Summary, containers, groups, numbers, private codes."""
    if concept(ds) != codes.REPORT_TITLE.value:
        yield f"title: expected {codes.REPORT_TITLE.value}, for a viewer shows any other of CID 7021 as a black image"
    children = {concept(each) for each in ds.get("ContentSequence", ())}
    yield from (f"root: expected an item {code}" for code in (_DEVICE_UID, _PROCEDURE) if code not in children)
    shown = next((each for each in ds.get("ContentSequence", ()) if each.get("RelationshipType") == "CONTAINS"), None)
    if shown is None or not str(shown.get("TextValue", "")).startswith(RESEARCH_ONLY):
        yield f"Summary: expected as the first item shown, beginning with {RESEARCH_ONLY}"
    for each in (ds, *items):
        if each.get("ValueType") == "CONTAINER" and each.get("ContinuityOfContent") != "SEPARATE":
            yield "Continuity of Content: expected SEPARATE, for viewers drop the labels of continuous containers"
    for each in items:
        yield from _group_faults(each) if concept(each) == _GROUP else ()
        yield from _number_faults(each) if each.get("ValueType") == "NUM" else ()
    yield from _unregistered(ds, (ds, *items))


def _group_faults(group: Dataset) -> Iterator[str]:
    children = group.get("ContentSequence", ())
    held = {concept(each) for each in children}
    yield from (f"Measurement Group: expected a {name}" for code, name in _GROUP_ROWS.items() if code not in held)
    if not any(each.get("ValueType") == "IMAGE" for each in children):
        yield "Measurement Group: expected a source image"


def _number_faults(item: Dataset) -> Iterator[str]:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        if not item.get("NumericValueQualifierCodeSequence"):
            yield "number: expected a value, or a qualifier that says why there is none"
        return
    unit = (measured[0].get("MeasurementUnitsCodeSequence") or [{}])[0]
    name = (unit.get("CodeValue"), unit.get("CodingSchemeDesignator"))
    if name not in _UNITS:
        yield "number: expected a unit of %, d or 1 (UCUM)"
    if name[0] == "%" and not 0 <= float(measured[0].NumericValue) <= 100:
        yield "number: expected a percentage of 0 to 100"


def _unregistered(ds: Dataset, items: Iterable[Dataset]) -> Iterator[str]:
    """Yield the private schemes that nobody answers for."""
    registered = {each.get("CodingSchemeDesignator") for each in ds.get("CodingSchemeIdentificationSequence", ())}
    used = {
        str(code.get("CodingSchemeDesignator", ""))
        for item in items
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence")
        for code in item.get(keyword, ())
    }
    private = {scheme for scheme in used if scheme.startswith("99")}
    yield from (f"Coding Scheme Identification: expected {each}" for each in sorted(private - registered))


def _evidence_faults(ds: Dataset, items: tuple[Dataset, ...]) -> Iterator[str]:
    """Yield what is wrong with the evidence (PS3.3 C.17.2.3): each input once, this study's apart from the others'."""
    current, other = tuple(_evidence(ds, _CURRENT)), tuple(_evidence(ds, _OTHER))
    listed = [uid for _, uid in (*current, *other)]
    if len(listed) != len(set(listed)):
        yield "evidence: expected each instance once"
    study = ds.get("StudyInstanceUID")
    if any(each != study for each, _ in current) or any(each == study for each, _ in other):
        yield "evidence: expected this study's instances as current, and other studies' as pertinent"
    referenced = {
        sop.ReferencedSOPInstanceUID
        for item in items
        if item.get("ValueType") in ("IMAGE", "COMPOSITE")
        for sop in item.get("ReferencedSOPSequence", ())
    }
    if referenced - set(listed):
        yield "evidence: expected every instance that the tree refers to"


def _evidence(ds: Dataset, keyword: str) -> Iterator[tuple[str, str]]:
    for study in ds.get(keyword, ()):
        for series in study.ReferencedSeriesSequence:
            yield from (
                (study.StudyInstanceUID, each.ReferencedSOPInstanceUID) for each in series.ReferencedSOPSequence
            )
