r"""Selection rules: what a series is, as ordered conditions over DICOM attributes, read from `config/selection.yaml`.

A condition asks one question of one attribute. Its keyword is a DICOM keyword that the reader keeps, or `Text`: the
Series Description and Protocol Name with `_` read as a space, since `\b` would otherwise see one word in `t2_tse_tra`.
Where a series has several values, a text question asks whether any of them matches and a number question whether all
do, so that a dual-echo series is neither its first echo nor its second; a rule may then split it (`split_by`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dicom_node.documents import Document, Regex, load_document
from dicom_node.timeline import keywords
from dicom_node.timeline.model import Role
from dicom_node.timeline.surgery_date import DateRule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dicom_node.timeline.model import Value

TEXT = "Text"
TEXT_KEYWORDS = ("SeriesDescription", "ProtocolName")
LONGEST_SHOWN = 60  # characters of a question in an explanation; the whole pattern stands in the file
NUMBER_QUESTIONS = ("lt", "gt", "between", "reaches")
QUESTIONS = ("equals", "contains", "regex", "lt", "gt", "between", "reaches", "several", "present", "absent")


def _known_keyword(keyword: str) -> str:
    """Refuse what no instance can ever answer: the reader keeps some attributes only."""
    if keyword not in {TEXT, *keywords.NUMBERS, *keywords.TEXTS, *keywords.CONTEXT}:
        asked = ", ".join(sorted((TEXT, *keywords.NUMBERS, *keywords.TEXTS, *keywords.CONTEXT)))
        msg = f"expected an attribute that is read from the images, one of: {asked}"
        raise ValueError(msg)
    return keyword


def _number_keyword(keyword: str) -> str:
    if keyword not in keywords.NUMBERS:
        msg = f"expected a number that is read from the images, one of: {', '.join(sorted(keywords.NUMBERS))}"
        raise ValueError(msg)
    return keyword


class Condition(Document):
    """One question about one attribute; exactly one of the questions is asked."""

    tag: Annotated[str, AfterValidator(_known_keyword)]
    equals: str | None = None  # any value is this one, case ignored
    contains: tuple[str, ...] | None = None  # any value is one of these, case ignored
    regex: Regex | None = None  # found anywhere in any value, case ignored
    lt: float | None = None  # all values are numbers and below
    gt: float | None = None  # all values are numbers and above
    between: tuple[float, float] | None = None  # all values are numbers and within, ends included
    reaches: float | None = None  # the largest value is this or more
    several: bool | None = None  # there is more than one distinct value
    present: bool | None = None
    absent: bool | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = [name for name in QUESTIONS if getattr(self, name) is not None]
        if len(asked) != 1:
            msg = f"expected exactly one of {', '.join(QUESTIONS)}, found {', '.join(asked) or 'none'}"
            raise ValueError(msg)
        if self.between and self.between[0] > self.between[1]:
            msg = f"between: expected [low, high], found {list(self.between)}"
            raise ValueError(msg)
        if asked[0] in NUMBER_QUESTIONS and self.tag not in keywords.NUMBERS:
            msg = f"{asked[0]}: {self.tag} is text; ask equals, contains, regex, several, present or absent"
            raise ValueError(msg)
        return self

    def holds(self, attributes: Mapping[str, Value]) -> bool:
        """Answer the question for a series."""
        values = _values(attributes, self.tag)
        if self.present is not None or self.absent is not None:
            return bool(values) is (self.present if self.present is not None else not self.absent)
        if self.several is not None:
            return (len(set(values)) > 1) is self.several
        if self.equals is not None or self.contains is not None or self.regex is not None:
            return any(self._text_holds(str(value)) for value in values)
        numbers = [float(value) for value in values if not isinstance(value, str)]
        return bool(numbers) and self._numbers_hold(numbers)

    def _text_holds(self, value: str) -> bool:
        if self.regex is not None:
            return re.search(self.regex, value, re.IGNORECASE) is not None
        wanted = self.contains if self.contains is not None else (str(self.equals),)
        return value.casefold() in {each.casefold() for each in wanted}

    def _numbers_hold(self, numbers: list[float]) -> bool:
        if self.reaches is not None:
            return max(numbers) >= self.reaches
        if self.between is not None:
            return self.between[0] <= min(numbers) and max(numbers) <= self.between[1]
        return max(numbers) < self.lt if self.lt is not None else min(numbers) > (self.gt or 0.0)

    def describe(self) -> str:
        """Say the question in words, for an explanation."""
        name = next(each for each in QUESTIONS if getattr(self, each) is not None)
        asked = getattr(self, name)
        if isinstance(asked, bool):
            return f"{self.tag} {'' if asked else 'not '}{name}"
        shown = str(list(asked) if isinstance(asked, tuple) else asked)
        return f"{self.tag} {name} {shown if len(shown) <= LONGEST_SHOWN else f'{shown[: LONGEST_SHOWN - 3]}...'}"

    def found(self, attributes: Mapping[str, Value]) -> str:
        """Say what the series holds there."""
        values = _values(attributes, self.tag)
        return ", ".join(f"{value:g}" if isinstance(value, float | int) else value for value in values) or "nothing"


class Rule(Document):
    """If all of `all`, one of `any` and none of `none` hold, the series is `series_is`: a role, or a name.

    With `split_by` instead, the series is parted by the values of an attribute, and each part is asked by itself.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    series_is: Annotated[str, Field(min_length=1, alias="is")] = ""
    split_by: Annotated[str, AfterValidator(_number_keyword)] | None = None
    all: tuple[Condition, ...] = ()
    any: tuple[Condition, ...] = ()
    none: tuple[Condition, ...] = ()

    @model_validator(mode="after")
    def _asks_and_answers(self) -> Self:
        if not (self.all or self.any):
            msg = "expected at least one condition in all or any, found none"
            raise ValueError(msg)
        if bool(self.series_is) is (self.split_by is not None):
            msg = "expected exactly one of is (a role or a name) and split_by (an attribute)"
            raise ValueError(msg)
        if self.series_is not in set(Role) and self.series_is.casefold() in {role.casefold() for role in Role}:
            msg = f"is: expected one of {', '.join(Role)} in this spelling, found {self.series_is!r}"
            raise ValueError(msg)
        return self

    @property
    def role(self) -> Role | None:
        """The role, or None where the rule names something that is not used."""
        return Role(self.series_is) if self.series_is in set(Role) else None


class Selection(Document):
    """Ordered rules, of which the first match wins, and where a surgery date may be read from the images."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    surgery_date: tuple[DateRule, ...] = ()

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"rules: every name may stand once, found twice: {', '.join(twice)}"
            raise ValueError(msg)
        return self


def load_selection(path: Path) -> Selection:
    """Read the rules.

    Raises:
        ConfigError: with one line per problem: file, key, value, rule.
    """
    return load_document(path, Selection)


def _values(attributes: Mapping[str, Value], keyword: str) -> tuple[str | float, ...]:
    if keyword == TEXT:
        return tuple(str(value).replace("_", " ") for each in _texts(attributes) for value in _values(attributes, each))
    value = attributes.get(keyword)
    if value is None or value == "":
        return ()
    return value if isinstance(value, tuple) else (value,)


def _texts(attributes: Mapping[str, Value]) -> tuple[str, ...]:
    """Return where a series is named.

    GE writes the protocol of the whole exam into Protocol Name ("BRAIN W WO CONTRAST", "STROKE PERFUSION"), so that
    there it says nothing of one series; the other makers write the name of the scan.
    """
    makers = _values(attributes, "Manufacturer")
    if attributes.get(TEXT_KEYWORDS[0]) and any(str(each).casefold().split()[:1] == ["ge"] for each in makers):
        return TEXT_KEYWORDS[:1]
    return TEXT_KEYWORDS
