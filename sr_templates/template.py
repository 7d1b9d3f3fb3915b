"""The per-task YAML: codes, wording, risk bands, language. Text from outside, so it is checked before it is used."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from highdicom.sr import CodedConcept
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sr_templates.errors import ReportError

if TYPE_CHECKING:
    from inference.results import Result


class _Strict(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CodeText(_Strict):
    """A coded concept as YAML; lengths as PS3.5 allows for SH and LO."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]

    def concept(self) -> CodedConcept:
        """Return the code as highdicom writes it."""
        return CodedConcept(self.value, self.scheme, self.meaning)


class Band(_Strict):
    """A risk band: `lower` <= probability < `upper`, the last one including 1."""

    lower: Annotated[float, Field(ge=0, le=1)]
    upper: Annotated[float, Field(ge=0, le=1)]
    label: Annotated[str, Field(min_length=1, max_length=64)]
    code: CodeText


class OutputTemplate(_Strict):
    """How one output of the model is named, coded and put into bands."""

    label: str
    units: Literal["percent"]
    probability: CodeText
    prefix_probability: CodeText
    category: CodeText
    bands: tuple[Band, ...]

    @model_validator(mode="after")
    def _bands_tile_zero_to_one(self) -> OutputTemplate:
        edges = [0.0, *(band.upper for band in self.bands)]
        starts = [band.lower for band in self.bands]
        if starts != edges[:-1] or edges[-1] != 1.0 or any(band.lower >= band.upper for band in self.bands):
            found = [(band.lower, band.upper) for band in self.bands]
            msg = f"bands: expected to tile 0 to 1 without gap or overlap, found {found}"
            raise ValueError(msg)
        return self

    def band(self, probability: float) -> Band:
        """Return the band of a probability in 0..1."""
        return next(band for band in self.bands if probability < band.upper or band.upper == 1.0)


class SeriesDescriptions(_Strict):
    """Series Description per kind of object; it begins with RUO because viewers cut the end off."""

    report: Annotated[str, Field(pattern=r"^RUO ", max_length=64)]
    saliency: Annotated[str, Field(pattern=r"^RUO ", max_length=40)]
    summary: Annotated[str, Field(pattern=r"^RUO ", max_length=64)]


class ReportTemplate(_Strict):
    """Everything about a task's report that is not in the result."""

    name: str
    language: CodeText
    procedure: CodeText
    target_region: CodeText
    finding_site: CodeText
    series_descriptions: SeriesDescriptions
    tracking_identifier: Annotated[str, Field(min_length=1, max_length=64)]
    primary: str
    saliency_threshold: Annotated[float, Field(gt=0, lt=1)]
    outputs: dict[str, OutputTemplate]

    @model_validator(mode="after")
    def _primary_is_an_output(self) -> ReportTemplate:
        if self.primary not in self.outputs:
            msg = f"primary: expected one of {sorted(self.outputs)}, found {self.primary!r}"
            raise ValueError(msg)
        return self

    @property
    def main(self) -> OutputTemplate:
        """Return the output that the report is about."""
        return self.outputs[self.primary]

    def output(self, name: str) -> OutputTemplate:
        """Return the wording of one output of the model.

        Raises:
            ReportError: if the template does not know it.
        """
        if name not in self.outputs:
            msg = f"report template {self.name!r}: expected an output of {sorted(self.outputs)}, found {name!r}"
            raise ReportError(msg)
        return self.outputs[name]


def check_outputs(template: ReportTemplate, result: Result) -> None:
    """Refuse an answer that the template has no words for, or that leaves out the question it is about.

    Raises:
        ReportError: naming the output.
    """
    names = [each.name for each in result.outputs]
    for name in names:
        template.output(name)
    if names and template.primary not in names:
        msg = f"report template {template.name!r}: expected the primary output {template.primary!r}, found {names}"
        raise ReportError(msg)


def parse_template(text: str, *, origin: str) -> ReportTemplate:
    """Read a template from YAML; `origin` names it in errors.

    Raises:
        ReportError: naming every wrong key, its value and the rule.
    """
    try:
        return ReportTemplate.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        msg = f"report template {origin}: not valid YAML: {error}"
        raise ReportError(msg) from error
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in each['loc']) or '(top)'}: {each['msg']}, found {each['input']!r}"
            for each in error.errors()
        ]
        msg = f"report template {origin}: " + "; ".join(faults)
        raise ReportError(msg) from error


def load_template(name: str) -> ReportTemplate:
    """Read a template that ships with this package, for example `glioma_recurrence`.

    Raises:
        ReportError: if there is none of this name, or it is not valid.
    """
    folder = resources.files("sr_templates")
    known = sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml"))
    if name not in known:
        msg = f"report template: expected one of {known}, found {name!r}"
        raise ReportError(msg)
    return parse_template(folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8"), origin=f"{name}.yaml")
