r"""A surgery date from the images: rules that read a day out of an attribute, where the cohort has none.

A rule in `config/selection.yaml`:

    surgery_date:
      - {tag: StudyDescription, regex: '(?i)\b(?:op|resection) (?P<date>\d{2}\.\d{2}\.\d{4})', format: '%d.%m.%Y'}

What is found is a guess. It is shown with its source, and decides nothing until a person has confirmed it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator

from dicom_node.documents import Document, Regex
from dicom_node.timeline import keywords
from dicom_node.timeline.model import Reason, Surgery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dicom_node.timeline.model import CohortFacts, InstanceFacts

CONTRADICTORY: Final = "surgery-dates-contradict"
_SAMPLE: Final = date(2001, 2, 3)


def _text_keyword(keyword: str) -> str:
    if keyword not in {*keywords.TEXTS, *keywords.CONTEXT}:
        msg = f"expected a text attribute read from the images: {', '.join((*keywords.TEXTS, *keywords.CONTEXT))}"
        raise ValueError(msg)
    return keyword


def _names_the_date(pattern: str) -> str:
    if "date" not in re.compile(pattern).groupindex:
        msg = "expected a group (?P<date>...)"
        raise ValueError(msg)
    return pattern


def _tells_a_day(form: str) -> str:
    try:
        read_back = datetime.strptime(_SAMPLE.strftime(form), form).date()  # noqa: DTZ007 - a day has no zone
    except ValueError as error:
        msg = "expected a date format such as %d.%m.%Y"
        raise ValueError(msg) from error
    if read_back != _SAMPLE:
        msg = "expected a date format with day, month and year, such as %d.%m.%Y"
        raise ValueError(msg)
    return form


class DateRule(Document):
    """Where a surgery date may stand: an attribute, how its text is written, and how the date in it is."""

    tag: Annotated[str, AfterValidator(_text_keyword)]
    regex: Annotated[Regex, AfterValidator(_names_the_date)]
    format: Annotated[str, AfterValidator(_tells_a_day)]

    def dates(self, text: str) -> Iterator[date]:
        """Yield every day that the text names; what is written as a date and is none is passed over."""
        for match in re.finditer(self.regex, text):
            try:
                yield datetime.strptime(match["date"], self.format).date()  # noqa: DTZ007 - a day has no zone
            except (TypeError, ValueError):  # the group took no part in the match, or 31.02.2025
                continue


@dataclass(frozen=True, slots=True, kw_only=True)
class SurgeryFromImages:
    """The one day that the images name, and where; `contradiction` instead where they name several."""

    surgery: Surgery | None = None
    source: str = ""
    contradiction: Reason | None = None


def surgery_from_images(facts: Iterable[InstanceFacts], rules: Sequence[DateRule]) -> SurgeryFromImages:
    """Apply all rules to all instances. A day later than the scan that names it is a plan, and does not count."""
    sources: dict[date, set[str]] = defaultdict(set)
    said = {
        (number, each.text(rule.tag), each.acquired_on)
        for each in facts
        for number, rule in enumerate(rules, start=1)
        if rule.tag in each.attributes
    }
    for number, text, acquired_on in said:
        rule = rules[number - 1]
        for day in rule.dates(text):
            if acquired_on is None or day <= acquired_on:
                sources[day].add(f"{rule.tag} (rule {number} of surgery_date)")
    if len(sources) > 1:
        text = "; ".join(f"{day.isoformat()} in {', '.join(sorted(sources[day]))}" for day in sorted(sources))
        reason = Reason(code=CONTRADICTORY, text=f"the images name several surgery dates: {text}")
        return SurgeryFromImages(contradiction=reason)
    for day, names in sources.items():
        return SurgeryFromImages(surgery=Surgery(on=day), source=", ".join(sorted(names)))
    return SurgeryFromImages()


def with_surgery_from_images(
    cohort: CohortFacts, facts: Iterable[InstanceFacts], rules: Sequence[DateRule]
) -> CohortFacts:
    """Return the cohort's facts, with the surgery date of the images, not confirmed, where the cohort has none."""
    if cohort.surgeries or not rules:
        return cohort
    found = surgery_from_images(facts, rules)
    if found.contradiction is not None:
        return replace(cohort, conflicts=(*cohort.conflicts, found.contradiction))
    if found.surgery is None:
        return cohort
    return replace(cohort, surgeries=(found.surgery,), surgery_source=found.source, surgery_confirmed=False)
