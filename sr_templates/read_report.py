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
_ALGORITHM_NAME, _ALGORITHM_VERSION, _ALGORITHM_PARAMETERS = "111001", "111003", "111002"
_DAYS_FROM_SURGERY = "128740"
_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadInstance:
    """An instance in the evidence of a report."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTimePoint:
    """A time point of a report; `roles` are those of the series that `source_sop_instance_uids` lie in, in order."""

    day: str  # YYYYMMDD
    days_from_surgery: int | None
    roles: tuple[str, ...]
    source_sop_instance_uids: tuple[str, ...]
    probability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRun:
    """Which run a report is of, as the parameters of its algorithm say; version 0 or an empty text: not said."""

    task: str
    run_key: str
    version: int
    model_name: str
    model_version: str
    model_digest: str
    synthetic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """What a report says. `probability` (0..1) is None where it abstained; then `qualifier` is a code of CID 42."""

    sop_instance_uid: str
    summary: tuple[str, ...]
    answer_code: str  # of the concept that the first number is about
    probability: float | None
    qualifier: str | None
    category: str
    tracking_uid: str
    run: ReadRun
    time_points: tuple[ReadTimePoint, ...]  # oldest first
    evidence: tuple[ReadInstance, ...]  # the inputs, and the captures of the same run
    predecessor_sop_instance_uid: str | None

    @property
    def trajectory(self) -> tuple[tuple[str, float], ...]:
        """Return (date as YYYYMMDD, probability in 0..1) of each time point that has one, oldest first."""
        return tuple((each.day, each.probability) for each in self.time_points if each.probability is not None)

    @property
    def input_sop_instance_uids(self) -> frozenset[str]:
        """Return every instance in the evidence, captures included."""
        return frozenset(each.sop_instance_uid for each in self.evidence)


def read_report(ds: Dataset) -> ReadReport:
    """Return what a report says.

    Raises:
        ReportError: if it has no summary or no answer group.
    """
    items = tuple(descendants(ds))
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
        answer_code=concept(number),
        probability=_probability(number),
        qualifier=str(qualifier[0].CodeValue) if qualifier else None,
        category=str(_category(main).ConceptCodeSequence[0].CodeMeaning),
        tracking_uid=str(_required(main, _TRACKING_UID).UID),
        run=_run(main),
        time_points=tuple(_time_points(groups)),
        evidence=tuple(_evidence(ds)),
        predecessor_sop_instance_uid=_predecessor(ds),
    )


def concept(item: Dataset) -> str:
    """Return the code value of an item's concept name, empty where it has none."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def descendants(item: Dataset) -> Iterator[Dataset]:
    """Yield every content item below this one, in document order."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from descendants(child)


def _children(item: Dataset, code_value: str) -> Iterator[Dataset]:
    return (each for each in item.get("ContentSequence", ()) if concept(each) == code_value)


def _child(item: Dataset, code_value: str) -> Dataset | None:
    return next(_children(item, code_value), None)


def _text(item: Dataset, code_value: str) -> str:
    """Return the text of a child, empty where there is none."""
    child = _child(item, code_value)
    return "" if child is None else str(child.get("TextValue", ""))


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


def _parameters(group: Dataset) -> dict[str, str]:
    """Return the parameters of a group's algorithm, each `name=value` (TID 4019)."""
    texts = (str(each.get("TextValue", "")) for each in _children(group, _ALGORITHM_PARAMETERS))
    return {name: value for name, found, value in (text.partition("=") for text in texts) if found}


def _run(main: Dataset) -> ReadRun:
    said = _parameters(main)
    version = said.get("report version", "")
    return ReadRun(
        task=said.get("task", ""),
        run_key=said.get("run", ""),
        version=int(version) if version.isdecimal() else 0,
        model_name=_text(main, _ALGORITHM_NAME),
        model_version=_text(main, _ALGORITHM_VERSION),
        model_digest=said.get("weights", ""),
        synthetic="training data" in said,
    )


def _time_points(groups: list[Dataset]) -> Iterator[ReadTimePoint]:
    """Yield what each time point group says (TID 1501 with the context of TID 1502)."""
    for group in groups:
        point = _child(group, _TIME_POINT)
        if point is None:
            continue
        numbers = [_probability(each) for each in group.ContentSequence if _is_contained_number(each)]
        yield ReadTimePoint(
            day=str(point.TextValue),
            days_from_surgery=_days_from_surgery(group),
            roles=tuple(_parameters(group).get("roles", "").split()),
            source_sop_instance_uids=tuple(_sources(group)),
            probability=next((each for each in numbers if each is not None), None),
        )


def _is_contained_number(item: Dataset) -> bool:
    return bool(item.get("ValueType") == "NUM" and item.get("RelationshipType") == "CONTAINS")


def _days_from_surgery(group: Dataset) -> int | None:
    offset = next((each for each in descendants(group) if concept(each) == _DAYS_FROM_SURGERY), None)
    measured = None if offset is None else offset.get("MeasuredValueSequence")
    return int(measured[0].NumericValue) if measured else None


def _sources(group: Dataset) -> Iterator[str]:
    """Yield the instances that a group's images are."""
    for each in group.ContentSequence:
        if each.get("ValueType") == "IMAGE":
            yield str(each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def _evidence(ds: Dataset) -> Iterator[ReadInstance]:
    """Yield every instance of both evidence sequences."""
    for study in (each for keyword in _EVIDENCE for each in ds.get(keyword, ())):
        for series in study.ReferencedSeriesSequence:
            for each in series.ReferencedSOPSequence:
                yield ReadInstance(
                    sop_class_uid=str(each.ReferencedSOPClassUID),
                    sop_instance_uid=str(each.ReferencedSOPInstanceUID),
                    series_instance_uid=str(series.SeriesInstanceUID),
                    study_instance_uid=str(study.StudyInstanceUID),
                )


def _predecessor(ds: Dataset) -> str | None:
    for study in ds.get("PredecessorDocumentsSequence", ()):
        return str(study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    return None
