"""A task: a question with a model and a report, one YAML file in `config/tasks/`, checked when it is read."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from dicom_node.documents import Document, load_document
from dicom_node.timeline.model import Role, TimePointKind, canonical_json

if TYPE_CHECKING:
    from pathlib import Path

Days = Annotated[int, Field(ge=0)]


class Requirement(StrEnum):
    """Whether a task needs something."""

    REQUIRED = "required"
    NOT_NEEDED = "not-needed"


class BundleReference(Document):
    """Which model: a shipped bundle by name, or a folder; pinned by its digest."""

    name: Annotated[str, Field(min_length=1)] | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _name_or_path(self) -> Self:
        if (self.name is None) == (self.path is None):
            msg = "expected exactly one of name (a shipped bundle) and path (a folder)"
            raise ValueError(msg)
        return self


class Roles(Document):
    """The series that the model sees at every time point."""

    required: Annotated[tuple[Role, ...], Field(min_length=1)]
    optional: tuple[Role, ...] = ()

    @model_validator(mode="after")
    def _apart(self) -> Self:
        named = (*self.required, *self.optional)
        if len(set(named)) != len(named):
            msg = f"every role may stand once in required and optional, found {', '.join(named)}"
            raise ValueError(msg)
        return self

    @property
    def wanted(self) -> tuple[Role, ...]:
        """Required and optional roles, in this order."""
        return (*self.required, *self.optional)


class TimePointRule(Document):
    """How many time points, and which."""

    kinds: Annotated[tuple[TimePointKind, ...], Field(min_length=1)]
    minimum: Annotated[int, Field(ge=1)]
    maximum: Annotated[int, Field(ge=1)]
    allow_fewer: bool = False  # then one time point is enough, and the report says that the history is short
    choose: Literal["last", "spread"] = "last"  # the newest `maximum`, or evenly thinned, oldest and newest kept

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            msg = f"minimum: expected at most maximum ({self.maximum}), found {self.minimum}"
            raise ValueError(msg)
        if self.choose == "spread" and self.maximum == 1:
            msg = "choose: spread keeps the oldest and the newest; expected a maximum of 2 or more, found 1"
            raise ValueError(msg)
        return self


class Gates(Document):
    """What the model saw, and so what it may be asked. None: no limit."""

    min_gap_days: Days = 0  # of two time points nearer than this, the newer is used
    max_gap_days: Days | None = None  # time points before a longer gap are not used
    max_slice_spacing_mm: Annotated[float, Field(gt=0)] | None = None
    min_coverage_mm: Annotated[float, Field(ge=0)] = 0.0  # along the normal: a slab is no brain
    max_age_of_newest_scan_days: Days | None = None
    newest_exam_unusable: Literal["hold", "name"] = "hold"  # hold the case, or report and name the exam left out
    preferred_plane: Literal["axial", "coronal", "sagittal"] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_gap_days is not None and self.max_gap_days < self.min_gap_days:
            msg = f"max_gap_days: expected at least min_gap_days ({self.min_gap_days}), found {self.max_gap_days}"
            raise ValueError(msg)
        return self


class Completeness(Document):
    """What happens to a study that is still incomplete when `receive.max_wait_s` is over.

    `wait` goes on waiting, `proceed` uses what is there and says so, `discard` leaves the study out and says so. None
    of them lets a series with a slice gap in.
    """

    when_overdue: Literal["wait", "proceed", "discard"] = "proceed"
    priors_overdue: Literal["wait", "proceed"] = "proceed"  # the archives could not be asked, or did not send


class Eligibility(Document):
    """Whom the model is for. What is not known does not make eligible."""

    diagnosis: tuple[str, ...]  # in the cohort's words, case ignored; empty: any, even unknown
    age_years: tuple[float, float] | None = None
    body_part: tuple[str, ...] | None = None  # Body Part Examined, or a word of the descriptions
    surgery: Requirement = Requirement.REQUIRED

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.age_years and self.age_years[0] > self.age_years[1]:
            msg = f"age_years: expected [lowest, highest], found {list(self.age_years)}"
            raise ValueError(msg)
        return self


class SaliencyRule(Document):
    """Whether saliency is delivered, for which time points, and as which objects."""

    deliver: Literal["auto", "always", "never"] = "auto"  # auto: where the bundle says that its maps are good
    time_points: Literal["newest", "all"] = "newest"
    format: Literal["multi-frame", "single-frame"] = "multi-frame"  # one capture, or a series of one per slice
    parametric_map: bool = False  # the values themselves too


class Task(Document):
    """A question with a model and a report."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: Annotated[str, Field(min_length=1)]
    bundle: BundleReference
    roles: Roles
    time_points: TimePointRule
    gates: Gates = Gates()
    completeness: Completeness = Completeness()
    eligibility: Eligibility
    anchor: Literal["first", "last"] = "first"  # which surgery the kinds of time points are counted from
    horizon_days: Annotated[int, Field(gt=0)] | None = None
    report_template: Annotated[str, Field(min_length=1)]
    saliency: SaliencyRule = SaliencyRule()
    priority: Annotated[int, Field(ge=0, le=100)] = 50  # higher runs first; STAT comes before all

    @model_validator(mode="after")
    def _kinds_can_occur(self) -> Self:
        needed = self.eligibility.surgery is Requirement.REQUIRED
        if not needed and TimePointKind.UNKNOWN not in self.time_points.kinds:
            msg = "time_points.kinds: expected unknown among them where eligibility.surgery is not-needed"
            raise ValueError(msg)
        return self

    def digest(self) -> str:
        """Name this very content: "sha256:" over canonical JSON, so that comments and key order do not count."""
        return "sha256:" + hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def load_task(path: Path) -> Task:
    """Read a task.

    Raises:
        ConfigError: with one line per problem: file, key, value, rule.
    """
    return load_document(path, Task)
