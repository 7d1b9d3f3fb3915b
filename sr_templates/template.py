"""The per-task YAML: codes, wording, risk bands, language. Text from outside, so it is checked before it is used."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sr_templates.codings import CodeText, CodingScheme, Line
from sr_templates.errors import ReportError, TemplateError
from sr_templates.risk_levels import contradictions
from sr_templates.words import Words

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from inference.results import Result


class _Strict(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Band(_Strict):
    """A risk band: `lower` <= probability < `upper`, the last one including 1."""

    lower: Annotated[float, Field(ge=0, le=1)]
    upper: Annotated[float, Field(ge=0, le=1)]
    label: Line
    code: CodeText


class OutputTemplate(_Strict):
    """How one output of the model is named, coded and put into bands."""

    label: Line
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

    @model_validator(mode="after")
    def _bands_agree_with_their_codes(self) -> OutputTemplate:
        found = list(contradictions([(band.label, band.code) for band in self.bands]))
        if found:
            raise ValueError("; ".join(found))
        return self

    @property
    def edges(self) -> tuple[float, ...]:
        """Return where one band ends and the next begins."""
        return tuple(band.lower for band in self.bands[1:])

    def band(self, probability: float) -> Band:
        """Return the band of a probability in 0..1."""
        return next(band for band in self.bands if probability < band.upper or band.upper == 1.0)


class SeriesDescriptions(_Strict):
    """Series Description per kind of object; it begins with RUO because viewers cut the end off."""

    report: Annotated[Line, Field(pattern=r"^RUO ")]
    saliency: Annotated[Line, Field(pattern=r"^RUO ", max_length=40)]
    summary: Annotated[Line, Field(pattern=r"^RUO ")]


class ReportTemplate(_Strict):
    """Everything about a task's report that is not in the result."""

    name: str
    language: CodeText
    coding_schemes: tuple[CodingScheme, ...]
    procedure: CodeText
    target_region: CodeText
    finding_site: CodeText
    series_descriptions: SeriesDescriptions
    tracking_identifier: Line
    primary: str
    saliency_threshold: Annotated[float, Field(gt=0, lt=1)]
    outputs: dict[str, OutputTemplate]
    wording: Words

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ReportTemplate:
        problems = [*self._primary_problems(), *self._scheme_problems(), *self._concept_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _primary_problems(self) -> list[str]:
        if self.primary in self.outputs:
            return []
        return [f"primary: expected one of {sorted(self.outputs)}, found {self.primary!r}"]

    def _scheme_problems(self) -> list[str]:
        declared = {each.designator for each in self.coding_schemes}
        used = {code.scheme for code in self.codes if code.scheme.startswith("99")}
        return [f"coding_schemes: expected {each} among them, for a code is of it" for each in sorted(used - declared)]

    def _concept_problems(self) -> list[str]:
        """A number is known by the name of its concept: no two outputs share one, and no standard code is lent to it.

        A standard code would assert what was not found: SCT 25173007 (Recurrent tumor) with 12 % is a tumour.
        """
        names = [
            (code.value, code.scheme)
            for each in self.outputs.values()
            for code in (each.probability, each.prefix_probability, each.category)
        ]
        twice = sorted({value for value, scheme in names if names.count((value, scheme)) > 1})
        lent = sorted({f"{value} of {scheme}" for value, scheme in names if not scheme.startswith("99")})
        return [
            *(
                f"outputs: expected a code of its own for each number and category, found {each} twice"
                for each in twice
            ),
            *(
                f"outputs: expected a private scheme (99...) for each number and category, found {each}"
                for each in lent
            ),
        ]

    @property
    def codes(self) -> tuple[CodeText, ...]:
        """Return every code of the template."""
        named = (self.language, self.procedure, self.target_region, self.finding_site)
        of_outputs = (
            code
            for each in self.outputs.values()
            for code in (each.probability, each.prefix_probability, each.category, *(band.code for band in each.bands))
        )
        return (*named, *of_outputs)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of everything the template says: other words are another object."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

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
        TemplateError: naming every wrong key, its value and the rule.
    """
    try:
        return ReportTemplate.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise TemplateError((f"report template {origin}: not valid YAML: {' '.join(str(error).split())}",)) from error
    except ValidationError as error:
        raise TemplateError(tuple(f"report template {origin}: {_problem(each)}" for each in error.errors())) from error


def _problem(fault: ErrorDetails) -> str:
    place = ".".join(str(part) for part in fault["loc"]) or "(top)"
    rule = fault["msg"].removeprefix("Value error, ")
    found = fault["input"]
    shown = "" if isinstance(found, dict | list) else f", found {str(found)[:80]!r}"
    return f"{place}: {rule}{shown}"


def shipped_templates() -> list[str]:
    """Return the names of the templates that ship with this package."""
    names = [each.name for each in resources.files("sr_templates").iterdir()]
    return sorted(each.removesuffix(".yaml") for each in names if each.endswith(".yaml"))


def load_template(name: str) -> ReportTemplate:
    """Read a template that ships with this package, for example `glioma_recurrence` or `glioma_recurrence.de`.

    Raises:
        TemplateError: if there is none of this name, or it is not valid.
    """
    known = shipped_templates()
    if name not in known:
        raise TemplateError((f"report template: expected a path to a file .yaml or one of {known}, found {name!r}",))
    text = resources.files("sr_templates").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse_template(text, origin=f"{name}.yaml")
