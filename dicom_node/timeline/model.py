"""What the time line knows: frozen values read from instances, from the cohort and from earlier runs.

Nothing here acts. `InstanceFacts` and `Inputs` travel through the ledger as canonical JSON, so both have
`to_json` and `from_json`; the other values are derived from them whenever they are needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import date, datetime, time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from inference.geometry import Plane

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value: TypeAlias = str | float | tuple[str, ...] | tuple[float, ...]


class Role(StrEnum):
    """What a series is for a model (the four roles that a task can ask for)."""

    T1 = "T1"
    T1C = "T1c"
    T2 = "T2"
    FLAIR = "FLAIR"


class TimePointKind(StrEnum):
    """Where a time point lies with respect to the surgeries."""

    PRE_OP = "pre-op"
    EARLY_POST_OP = "early-post-op"  # within 72 hours, or days 0 to 3 where no time is known
    FOLLOW_UP = "follow-up"
    UNKNOWN = "unknown"


class RunState(StrEnum):
    """Where a run stands, as far as a decision needs to know."""

    QUEUED = "queued"
    RUNNING = "running"
    REPORTED = "reported"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"  # a tombstone: never issued again
    SUPERSEDED = "superseded"  # a newer revision took its place before it was issued


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientFacts:
    """Whom an instance says it shows. `issuer` and `patient_id` name the patient; the rest only may conflict."""

    issuer: str
    patient_id: str
    name: str = ""
    birth_date: str = ""  # as in DICOM, YYYYMMDD; empty: not said
    sex: str = ""
    phantom: bool = False  # Quality Control Subject (0010,0200) is YES

    @property
    def key(self) -> tuple[str, str]:
        """Name the patient: (issuer, PatientID)."""
        return (self.issuer, self.patient_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFacts:
    """What one MR instance says, without its pixels.

    `attributes` maps DICOM keywords to the values that decide role and time; enhanced MR functional groups are
    mapped to the classic keywords, and a value that differs between frames is a tuple of its distinct values.
    `planes` holds one plane per frame, empty where the object has no image position.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    content_digest: str  # "sha256:..."
    patient: PatientFacts
    attributes: Mapping[str, Value] = field(default_factory=dict)
    acquired_on: date | None = None
    acquired_time: time | None = None  # local time of the scanner, None: only the day is known
    acquired_from: str = ""  # the attribute the date was read from
    frame_of_reference_uid: str = ""
    instance_number: int | None = None
    planes: tuple[Plane, ...] = ()

    @property
    def acquired_at(self) -> datetime | None:
        """The acquisition date-time (naive, the scanner's clock), if day and time are both known."""
        if self.acquired_on is None or self.acquired_time is None:
            return None
        return datetime.combine(self.acquired_on, self.acquired_time)

    def text(self, keyword: str) -> str:
        """Return an attribute as one string, empty if absent; several values are joined by a backslash."""
        value = self.attributes.get(keyword, "")
        return "\\".join(str(each) for each in value) if isinstance(value, tuple) else str(value)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, dates and times as ISO 8601."""
        return canonical_json(_shallow(self))

    @classmethod
    def from_json(cls, text: str) -> InstanceFacts:
        """Rebuild facts from `to_json`.

        Raises:
            KeyError: if a field is missing.
        """
        content: dict[str, Any] = json.loads(text)
        content["patient"] = PatientFacts(**content["patient"])
        content["attributes"] = {key: _value(value) for key, value in content["attributes"].items()}
        content["acquired_on"] = _date(content["acquired_on"])
        content["acquired_time"] = _time(content["acquired_time"])
        content["planes"] = tuple(_plane(each) for each in content["planes"])
        return cls(**content)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrace:
    """One rule's verdict on one series: whether it matched and, if not, which condition failed and what it found."""

    rule: str
    matched: bool
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the selection rules say of a series: `role` for a model, or None with `name` saying what it is instead."""

    role: Role | None
    name: str  # the role, or why it is not used: "localizer", "DWI", ...
    rule: str
    trace: tuple[RuleTrace, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A reason as data: a stable code and a text that may hold dates and roles, but never a name or an ID."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A series with its instances in order along the normal, its verdict, and what keeps it from being used."""

    series_instance_uid: str
    study_instance_uid: str
    instances: tuple[InstanceFacts, ...]
    verdict: Verdict
    acquired_on: date | None
    acquired_time: time | None
    acquired_from: str
    part: str = ""  # "EchoTime 90" where a rule split the series: these instances only; empty: the whole series
    slices: int = 0
    coverage_mm: float = 0.0  # along the normal
    spacing_mm: float = 0.0  # between slice centres
    in_plane_mm: float = 0.0  # the larger of both pixel spacings
    plane: str = ""  # "axial", "coronal", "sagittal": the nearest
    incomplete: Reason | None = None  # why more of it may be on its way: gaps, or fewer than its makers or archives say
    excluded: Reason | None = None

    def leave_out(self, reason: Reason | None) -> Series:
        """Return the same series, left out for a reason (None: usable)."""
        return replace(self, excluded=reason)

    @property
    def description(self) -> str:
        """The Series Description, for an explanation (not for a log)."""
        return self.instances[0].text("SeriesDescription")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study: its series in order of UID and its day, the earliest acquisition in it."""

    study_instance_uid: str
    series: tuple[Series, ...]
    acquired_on: date | None
    acquired_time: time | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A series that could have filled a role: its rank from 0 (chosen), the figures it was ranked by, and why."""

    role: Role
    series: Series
    rank: int
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePoint:
    """One day of a patient: its studies, one chosen series per role, all candidates, and what was left out."""

    acquired_on: date
    acquired_time: time | None  # of the earliest acquisition, None: only the day is known
    kind: TimePointKind
    studies: tuple[Study, ...]
    chosen: Mapping[Role, Series] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    excluded: tuple[tuple[str, Reason], ...] = ()  # (Series Instance UID, why it was left out)
    flags: tuple[Reason, ...] = ()

    @property
    def study_instance_uids(self) -> tuple[str, ...]:
        """The studies of this day, in order of their UIDs."""
        return tuple(study.study_instance_uid for study in self.studies)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLine:
    """A patient's time points in acquisition order, and the studies that have no day."""

    time_points: tuple[TimePoint, ...] = ()
    undated: tuple[Study, ...] = ()

    @property
    def studies(self) -> tuple[Study, ...]:
        """Every study of the patient, the undated last."""
        return tuple(study for point in self.time_points for study in point.studies) + self.undated


@dataclass(frozen=True, slots=True, kw_only=True)
class Surgery:
    """An operation; `at` is None where only the day is known."""

    on: date
    at: time | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A recorded event that ends surveillance: recurrence, death, end of follow-up."""

    on: date
    kind: str = "recurrence"


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortFacts:
    """What the images do not say. A surgery date that a text rule found is not `surgery_confirmed`.

    Where its sources contradict each other a fact is left empty, and `conflicts` says why.
    """

    diagnosis: str = ""  # empty: unknown
    surgeries: tuple[Surgery, ...] = ()
    radiotherapy: tuple[date, ...] = ()
    events: tuple[Event, ...] = ()
    birth_date: date | None = None
    surgery_source: str = "cohort"
    surgery_confirmed: bool = True
    conflicts: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InputInstance:
    """One instance of a run, named by its UID and by what it says."""

    sop_class_uid: str
    sop_instance_uid: str
    content_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSeries:
    """The series that fills a role; its instances lie in order along the normal."""

    role: Role
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    instances: tuple[InputInstance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTimePoint:
    """A time point of a run, reduced to what the run uses; `studies` are those of the series used."""

    acquired_on: date
    acquired_time: time | None
    kind: TimePointKind
    studies: tuple[str, ...]
    series: tuple[InputSeries, ...]  # in order of role
    days_since_surgery: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The frozen inputs of a run, oldest time point first."""

    time_points: tuple[InputTimePoint, ...]

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, dates and times as ISO 8601."""
        return canonical_json(_shallow(self))

    @classmethod
    def from_json(cls, text: str) -> Inputs:
        """Rebuild inputs from `to_json`.

        Raises:
            KeyError: if a field is missing.
        """
        return cls(time_points=tuple(_input_time_point(each) for each in json.loads(text)["time_points"]))

    @property
    def dates(self) -> tuple[date, ...]:
        """The days of the time points, oldest first."""
        return tuple(point.acquired_on for point in self.time_points)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a decision needs to know of an earlier run of the same task."""

    run_key: str
    inputs_key: str
    task: str
    state: RunState
    version: int
    time_points: tuple[date, ...]
    studies: tuple[str, ...] = ()
    bundle_digest: str = ""
    task_digest: str = ""
    issued_at: datetime | None = None  # tz-aware; None: not issued
    error: str = ""
    instances: frozenset[str] = frozenset()  # SOP Instance UIDs of its inputs


def canonical_json(content: Mapping[str, Any]) -> str:
    """Return JSON with sorted keys and no spaces, dates and times as ISO 8601, so that equal values are equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, date | time):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return _shallow(value)
    raise TypeError(type(value).__name__)


def _shallow(value: DataclassInstance) -> dict[str, Any]:
    """Return the fields of a dataclass, not copied deeply as by `asdict`: a patient may have ten thousand of them."""
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _value(value: object) -> Value:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str | int | float):
        return value
    raise TypeError(type(value).__name__)


def _date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _time(text: str | None) -> time | None:
    return None if text is None else time.fromisoformat(text)


def _plane(content: dict[str, Any]) -> Plane:
    triples = {key: tuple(content[key]) for key in ("position_mm", "orientation", "spacing_mm")}
    return Plane(**{**content, **triples})


def _input_time_point(content: dict[str, Any]) -> InputTimePoint:
    return InputTimePoint(
        acquired_on=date.fromisoformat(content["acquired_on"]),
        acquired_time=_time(content["acquired_time"]),
        kind=TimePointKind(content["kind"]),
        studies=tuple(content["studies"]),
        series=tuple(_input_series(each) for each in content["series"]),
        days_since_surgery=content["days_since_surgery"],
    )


def _input_series(content: dict[str, Any]) -> InputSeries:
    instances = tuple(InputInstance(**each) for each in content["instances"])
    return InputSeries(**{**content, "role": Role(content["role"]), "instances": instances})
