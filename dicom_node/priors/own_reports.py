"""Reports of ours that an archive holds: read back when the ledger that knew of them is lost.

As untrusted as everything that comes from outside, and read in the same sacrificial child as images. A report is taken
for ours by its equipment, its template and a device UID that agrees with both; which of several nodes made it, its
station name says. What a report does not say stays empty: it is a record of what was issued, not of how.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import pydicom
from pydicom.uid import (
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.receive.facts import NotAnInput, UnreadableInstance, blaming_the_file, read_patient
from dicom_node.receive.uids import is_uid
from dicom_node.timeline.model import (
    InputInstance,
    Inputs,
    InputSeries,
    InputTimePoint,
    PatientFacts,
    Role,
    TimePointKind,
    canonical_json,
)
from inference.results import Abstention, AbstentionKind, ModelCard, Output, PrefixRisk, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydicom import Dataset

    from sr_templates.read_report import ReadInstance, ReadReport, ReadTimePoint

STRUCTURED_REPORT: Final = "structured-report"
MOST_INSTANCES: Final = 100_000
MOST_VERSIONS: Final = 9999
RUN_KEY: Final = re.compile(r"[0-9a-f]{64}")
ISSUED_WITH_A_REPORT: Final = frozenset(
    {SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage, ParametricMapStorage}
)
TASK: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedObject:
    """A report, or an image that was issued together with it."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnReport:
    """What a report of ours says of the run behind it; `result` is the answer as JSON of `Result`."""

    sop_instance_uid: str
    station_ae_title: str
    patient: PatientFacts
    task: str
    run_key: str
    version: int
    issued_at: datetime
    model_digest: str
    inputs: Inputs  # content digests are not in a report
    result: str
    objects: tuple[IssuedObject, ...]  # the report last

    def to_json(self) -> str:
        """Return canonical JSON."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        return canonical_json(content | {"issued_at": self.issued_at.isoformat(), "inputs": self.inputs.to_json()})

    @classmethod
    def from_json(cls, text: str) -> OwnReport:
        """Rebuild a report from `to_json`.

        Raises:
            KeyError: if a field is missing.
        """
        content: dict[str, Any] = json.loads(text)
        content["patient"] = PatientFacts(**content["patient"])
        content["issued_at"] = datetime.fromisoformat(content["issued_at"])
        content["inputs"] = Inputs.from_json(content["inputs"])
        content["objects"] = tuple(IssuedObject(**each) for each in content["objects"])
        return cls(**content)


def read_own_report(path: Path, *, default_issuer: str) -> OwnReport:
    """Read a structured report as one of ours.

    Args:
        path: a Part 10 file of one of the SR classes.
        default_issuer: the issuer of the PatientID where the object names none.

    Raises:
        NotAnInput: if somebody else made it, or it is a document of another kind.
        UnreadableInstance: if it claims to be ours and does not say what our reports say.
    """
    from sr_templates.read_report import read_report  # noqa: PLC0415 - child only

    with blaming_the_file():
        ds = pydicom.dcmread(path)
        if not _is_ours(ds):
            raise NotAnInput(STRUCTURED_REPORT, str(ds.get("SOPClassUID") or ""))
        report = read_report(ds)
        run = report.run
        if not (RUN_KEY.fullmatch(run.run_key) and TASK.fullmatch(run.task) and 0 < run.version <= MOST_VERSIONS):
            raise UnreadableInstance("no-run", "a report of ours without task, run and version")
        inputs = _inputs(report)
        used = {each.sop_instance_uid for point in inputs.time_points for s in point.series for each in s.instances}
        return OwnReport(
            sop_instance_uid=report.sop_instance_uid,
            station_ae_title=str(ds.get("StationName") or "").strip(),
            patient=read_patient(ds, default_issuer),
            task=run.task,
            run_key=run.run_key,
            version=run.version,
            issued_at=_issued_at(ds),
            model_digest=run.model_digest,
            inputs=inputs,
            result=_result(report),
            objects=(*_captures(report, used, str(ds.StudyInstanceUID)), _itself(ds)),
        )


def _is_ours(ds: Dataset) -> bool:
    """Say whether equipment, template and device UID are those of a node of this make.

    Source: PS3.3 C.7.5.1, C.12.1.1.5 (Contributing Equipment); PS3.16 TID 1500.
    """
    from dicom_node.work.report_context import MANUFACTURER, MODEL_NAME  # noqa: PLC0415 - child only
    from sr_templates.uids import derive_uid  # noqa: PLC0415 - child only

    made_by = (str(ds.get("Manufacturer") or ""), str(ds.get("ManufacturerModelName") or ""))
    templates = {str(each.get("TemplateIdentifier") or "") for each in ds.get("ContentTemplateSequence") or ()}
    if made_by != (MANUFACTURER, MODEL_NAME) or templates != {"1500"}:
        return False
    station = str(ds.get("StationName") or "").strip()
    return any(
        str(each.get("DeviceUID") or "") == derive_uid("device", station, _digest(each)) for each in _equipment(ds)
    )


def _equipment(ds: Dataset) -> Iterator[Dataset]:
    yield from ds.get("ContributingEquipmentSequence") or ()


def _digest(equipment: Dataset) -> str:
    """Return the weights digest of the model, which stands behind its version in as many values as it needs."""
    versions = equipment.get("SoftwareVersions") or ()
    values = [versions] if isinstance(versions, str) else [str(each) for each in versions]
    return "".join(values[1:])


def _issued_at(ds: Dataset) -> datetime:
    """Return the time of issue as the equipment's contribution tells it, with its time zone."""
    for each in _equipment(ds):
        text = str(each.get("ContributionDateTime") or "")
        if re.fullmatch(r"\d{14}[+-]\d{4}", text):
            return datetime.strptime(text, "%Y%m%d%H%M%S%z").astimezone(UTC)
    raise UnreadableInstance("missing", "ContributionDateTime with a time zone")


def _itself(ds: Dataset) -> IssuedObject:
    uids = {
        "sop_class_uid": str(ds.SOPClassUID),
        "sop_instance_uid": str(ds.SOPInstanceUID),
        "series_instance_uid": str(ds.SeriesInstanceUID),
        "study_instance_uid": str(ds.StudyInstanceUID),
    }
    if not all(is_uid(each) for each in uids.values()):
        raise UnreadableInstance("invalid-uid", "a report of ours")
    return IssuedObject(kind="report", **uids)


def _captures(report: ReadReport, used: set[str], study_instance_uid: str) -> Iterator[IssuedObject]:
    """Yield the images that were issued with a report: what its evidence names of its own study beside the inputs.

    A withdrawal names them, so that only what can be ours counts: never an original of a scanner.
    """
    for each in report.evidence:
        is_beside = each.sop_instance_uid not in used and each.study_instance_uid == study_instance_uid
        if is_beside and each.sop_class_uid in ISSUED_WITH_A_REPORT and is_uid(each.series_instance_uid):
            yield IssuedObject(
                kind="image",
                sop_class_uid=each.sop_class_uid,
                sop_instance_uid=each.sop_instance_uid,
                series_instance_uid=each.series_instance_uid,
                study_instance_uid=each.study_instance_uid,
            )


def _inputs(report: ReadReport) -> Inputs:
    """Rebuild what went in: per time point the whole series that its source images lie in.

    Raises:
        UnreadableInstance: if the evidence is not what the time points speak of.
    """
    if not 0 < len(report.evidence) <= MOST_INSTANCES or not report.time_points:
        raise UnreadableInstance("bad-evidence", f"{len(report.evidence)} instances")
    if not all(is_uid(each.sop_instance_uid) for each in report.evidence):
        raise UnreadableInstance("invalid-uid", "in the evidence of a report")
    series_of = {each.sop_instance_uid: each.series_instance_uid for each in report.evidence}
    in_order = sorted(report.evidence, key=lambda each: each.series_instance_uid)  # stable: slices keep their order
    members = {uid: tuple(each) for uid, each in groupby(in_order, key=lambda each: each.series_instance_uid)}
    return Inputs(time_points=tuple(_time_point(each, series_of, members) for each in report.time_points))


def _time_point(
    point: ReadTimePoint, series_of: Mapping[str, str], members: Mapping[str, tuple[ReadInstance, ...]]
) -> InputTimePoint:
    if len(point.roles) != len(point.source_sop_instance_uids):
        raise UnreadableInstance("bad-evidence", "roles and source images of a time point differ in number")
    named = zip(point.roles, point.source_sop_instance_uids, strict=True)
    series = tuple(_series(role, members[series_of[source]]) for role, source in named)
    return InputTimePoint(
        acquired_on=date.fromisoformat(point.day),
        acquired_time=None,
        kind=TimePointKind.UNKNOWN,
        studies=tuple(sorted({each.study_instance_uid for each in series})),
        series=series,
        days_since_surgery=point.days_from_surgery,
    )


def _series(role: str, members: tuple[ReadInstance, ...]) -> InputSeries:
    return InputSeries(
        role=Role(role),
        study_instance_uid=members[0].study_instance_uid,
        series_instance_uid=members[0].series_instance_uid,
        frame_of_reference_uid="",
        instances=tuple(
            InputInstance(sop_class_uid=each.sop_class_uid, sop_instance_uid=each.sop_instance_uid, content_digest="")
            for each in members
        ),
    )


def _result(report: ReadReport) -> str:
    """Rebuild the answer as it was shown: rounded, and named by the code that a reader saw."""
    run, probability = report.run, report.probability
    answered = probability is not None
    return Result(
        task=run.task,
        model=ModelCard(
            name=run.model_name,
            version=run.model_version,
            digest=run.model_digest,
            training_data="",
            intended_use="",
            synthetic=run.synthetic,
        ),
        horizon_days=None,
        outputs=(Output(name=report.answer_code, probability=probability, raw_probability=probability),)
        if probability is not None
        else (),
        trajectory=tuple(
            PrefixRisk(n_scans=number, acquired=date.fromisoformat(each.day), probability=each.probability)
            for number, each in enumerate(report.time_points, start=1)
            if each.probability is not None
        ),
        abstention=None if answered else Abstention(kind=AbstentionKind(report.qualifier or ""), reason=""),
    ).to_json()
