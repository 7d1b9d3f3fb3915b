"""What a report is made from: frozen values that the caller fills from the ledger. Nothing here reads a clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from sr_templates.errors import ReportError

if TYPE_CHECKING:
    from datetime import date, datetime

    from pydicom import Dataset

    from inference.results import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRef:
    """One instance, with the series and study an evidence sequence files it under (PS3.3 C.17.2.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesEvidence:
    """One series the model saw. `representative_frame` counts from 1 in a multi-frame object, else None."""

    role: str  # "T1", "T1c", "T2", "FLAIR"
    study_date: date
    frame_of_reference_uid: str
    instances: tuple[InstanceRef, ...]
    representative: InstanceRef
    representative_frame: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePointEvidence:
    """One time point of the run: when, of which kind, how long after surgery, and its series."""

    acquired: datetime
    kind: str  # "pre-op", "early-post-op", "follow-up" or "unknown"
    days_from_surgery: int | None
    series: tuple[SeriesEvidence, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The node as it signs its objects."""

    name: str
    uid: str
    manufacturer: str
    model_name: str
    software_version: str
    station_ae_title: str
    serial_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The report before this one, in each SOP Class it was made in.

    `replaced`: this one corrects it, for both speak of the same newest time point; otherwise it stays valid, unless it
    was `taken_back`: it rests on images that were rejected.
    """

    reports: tuple[InstanceRef, ...]
    issued: date
    replaced: bool
    taken_back: bool = False

    def of_class(self, sop_class_uid: str) -> InstanceRef:
        """Return the report in a SOP Class, or in the first it was made in: what a destination holds of it."""
        return next((each for each in self.reports if each.sop_class_uid == sop_class_uid), self.reports[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What the ledger froze before encoding; every UID and every timestamp derives from it."""

    run_key: str  # hexadecimal
    task: str
    version: int  # counts from 1
    issued_at: datetime  # tz-aware
    predecessor: Predecessor | None = None
    encoding: int = 1  # grows where a header that nobody received yet had to be corrected


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportContext:
    """Everything the objects of one run need. `patient_study` is the header of an instance of the newest study."""

    record: RunRecord
    patient_study: Dataset
    time_points: tuple[TimePointEvidence, ...]  # oldest first
    result: Result
    device: Device
    remarks: tuple[str, ...] = ()
    phantom: bool = False  # the patient is a phantom
    requested_by: str | None = None  # the person who ordered the run, where one did
    template_digest: str = ""  # of the report template: other words, bands or language are another object

    def __post_init__(self) -> None:
        """Refuse a context that no honest report can be made from.

        Raises:
            ReportError: if there are no or unordered time points, a time point or series is empty, the target study
                is not one of the newest time point's, the result speaks of scans that are not there, or the time of
                issue has no time zone.
        """
        points = self.time_points
        if not points or not all(point.series and all(each.instances for each in point.series) for point in points):
            _refuse("at least one time point, each with series that have instances", f"{len(points)} time points")
        acquired = [point.acquired for point in points]
        if acquired != sorted(acquired):
            _refuse("time points oldest first", "another order")
        newest = {ref.study_instance_uid for series in points[-1].series for ref in series.instances}
        if self.patient_study.get("StudyInstanceUID") not in newest:
            _refuse("the header of a study of the newest time point", "another study's")
        scans = [each.n_scans for each in self.result.trajectory]
        scans += [each.time_point + 1 for each in self.result.flags if each.time_point is not None]
        if any(not 1 <= each <= len(points) for each in scans):
            _refuse(f"a result about {len(points)} scans", f"one that speaks of scans {scans}")
        if self.record.issued_at.utcoffset() is None:
            _refuse("a time of issue with a time zone", "one without")

    @property
    def study_instance_uid(self) -> str:
        """Return the study that all objects of this run are filed in."""
        return str(self.patient_study.StudyInstanceUID)

    @property
    def instances(self) -> tuple[InstanceRef, ...]:
        """Return every input instance, newest time point first."""
        return tuple(ref for point in reversed(self.time_points) for series in point.series for ref in series.instances)


def _refuse(expected: str, found: str) -> NoReturn:
    """Raise with what a context should have held."""
    msg = f"report context: expected {expected}, found {found}"
    raise ReportError(msg)
