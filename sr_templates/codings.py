"""Codes as a template gives them, held to the lengths and schemes that the Standard allows."""

from __future__ import annotations

from typing import Annotated, Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sr_templates.words import plain

# PS3.16 section 8, those that name what a brain report may say; private ones begin with 99 and are declared.
STANDARD_SCHEMES: Final = ("DCM", "LN", "NCIt", "RADLEX", "RFC5646", "SCT", "UCUM", "UMLS")


def _legal(text: str) -> str:
    """Refuse what SH and LO cannot hold (PS3.5 6.2): a backslash, a control character, spaces at an end."""
    if "\\" in text or plain(text) != text:
        msg = "expected text without backslash, control character or spaces at its ends"
        raise ValueError(msg)
    return text


_Short = Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_legal)]
Line = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_legal)]


def _known(designator: str) -> str:
    if designator not in STANDARD_SCHEMES and not designator.startswith("99"):
        msg = f"expected one of {', '.join(STANDARD_SCHEMES)}, or a private scheme that begins with 99"
        raise ValueError(msg)
    return designator


class CodeText(BaseModel):
    """A coded concept as YAML; lengths as PS3.5 allows for SH and LO."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: _Short
    scheme: Annotated[_Short, AfterValidator(_known)]
    meaning: Line

    def concept(self) -> CodedConcept:
        """Return the code as highdicom writes it."""
        return CodedConcept(self.value, self.scheme, self.meaning)


class CodingScheme(BaseModel):
    """Who answers for a private scheme (PS3.3 C.12.1.1.1, Coding Scheme Identification Sequence)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    designator: Annotated[_Short, Field(pattern="^99")]
    name: Line
    organization: Line

    def identification(self) -> CodingSchemeIdentificationItem:
        """Return the item of the Coding Scheme Identification Sequence."""
        return CodingSchemeIdentificationItem(
            designator=self.designator, name=self.name, responsible_organization=self.organization
        )
