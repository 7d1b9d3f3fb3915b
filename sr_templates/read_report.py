"""Read back what a report of ours says: tolerant of what others added on the way, strict on what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom import Dataset

from sr_templates.errors import ReportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SUMMARY, _MEASUREMENT_GROUP = "121111", "125007"
_TRACKING_UID, _TIME_POINT = "112040", "C2348792"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """What a report says. `probability` (0..1) is None where it abstained; then `qualifier` is a code of CID 42."""

    sop_instance_uid: str
    summary: tuple[str, ...]
    probability: float | None
    qualifier: str | None
    category: str
    tracking_uid: str
    trajectory: tuple[tuple[str, float], ...]  # (date as YYYYMMDD, probability in 0..1), oldest first
    input_sop_instance_uids: frozenset[str]  # every instance in the evidence, captures included
    predecessor_sop_instance_uid: str | None


def read_report(ds: Dataset) -> ReadReport:
    """Return what a report says.

    Raises:
        ReportError: if it has no summary or no answer group.
    """
    items = tuple(_descendants(ds))
    summary = next((str(item.TextValue) for item in items if concept(item) == _SUMMARY), None)
    groups = [item for item in items if concept(item) == _MEASUREMENT_GROUP]
    answers = [group for group in groups if _child(group, _TIME_POINT) is None]
    if summary is None or not answers:
        msg = f"report: expected a summary and an answer, found {len(answers)} answers in {len(items)} content items"
        raise ReportError(msg)
    main = answers[0]
    number = _first(main, "NUM")
    qualifier = number.get("NumericValueQualifierCodeSequence")
    return ReadReport(
        sop_instance_uid=str(ds.SOPInstanceUID),
        summary=tuple(summary.split("\r\n")),
        probability=_probability(number),
        qualifier=str(qualifier[0].CodeValue) if qualifier else None,
        category=str(_category(main).ConceptCodeSequence[0].CodeMeaning),
        tracking_uid=str(_required(main, _TRACKING_UID).UID),
        trajectory=tuple(_trajectory(groups)),
        input_sop_instance_uids=frozenset(_evidence(ds)),
        predecessor_sop_instance_uid=_predecessor(ds),
    )


def concept(item: Dataset) -> str:
    """Return the code value of an item's concept name, empty where it has none."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _descendants(item: Dataset) -> Iterator[Dataset]:
    """Yield every content item below this one, in document order."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _descendants(child)


def _child(item: Dataset, code_value: str) -> Dataset | None:
    return next((each for each in item.get("ContentSequence", ()) if concept(each) == code_value), None)


def _required(item: Dataset, code_value: str) -> Dataset:
    child = _child(item, code_value)
    if child is None:
        msg = f"report: expected a content item {code_value} in a measurement group, found none"
        raise ReportError(msg)
    return child


def _first(group: Dataset, value_type: str) -> Dataset:
    """Return the first item of a value type that a group contains."""
    children: Sequence[Dataset] = group.get("ContentSequence", ())
    for each in children:
        if each.get("ValueType") == value_type and each.get("RelationshipType") == "CONTAINS":
            return each
    msg = f"report: expected a {value_type} in the measurement group, found none"
    raise ReportError(msg)


def _category(group: Dataset) -> Dataset:
    return _first(group, "CODE")


def _probability(number: Dataset) -> float | None:
    measured = number.get("MeasuredValueSequence")
    return float(measured[0].NumericValue) / 100 if measured else None


def _trajectory(groups: list[Dataset]) -> Iterator[tuple[str, float]]:
    """Yield date and probability of each time point group that has one."""
    for group in groups:
        point = _child(group, _TIME_POINT)
        if point is None:
            continue
        for item in group.ContentSequence:
            if item.ValueType == "NUM" and item.RelationshipType == "CONTAINS" and item.MeasuredValueSequence:
                yield str(point.TextValue), float(item.MeasuredValueSequence[0].NumericValue) / 100


def _evidence(ds: Dataset) -> Iterator[str]:
    """Yield the UID of every instance in both evidence sequences."""
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in ds.get(keyword, ()):
            for series in study.ReferencedSeriesSequence:
                yield from (str(each.ReferencedSOPInstanceUID) for each in series.ReferencedSOPSequence)


def _predecessor(ds: Dataset) -> str | None:
    for study in ds.get("PredecessorDocumentsSequence", ()):
        return str(study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    return None
