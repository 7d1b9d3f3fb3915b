"""What a person writes of a patient into the cohort, as text: one field per kind of fact, the same in CSV and CLI.

Dates are ISO 8601 (2025-03-14, a surgery also 2025-03-14T13:40); several are separated by `;` or `|`; an event may
name its kind after a colon (2025-09-01:death). A date in another form is refused, never guessed: 03.04.2025 is in
March or in April.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeVar

from dicom_node.timeline.model import CohortFacts, Event, Surgery

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS: Final = ("diagnosis", "birth_date", "surgeries", "radiotherapy", "events")
DEFAULT_EVENT: Final = "recurrence"
FIRST_YEAR: Final = 1900  # an earlier one is a slip of the hand
LONGEST_TEXT: Final = 128  # characters the ledger keeps
_FOREIGN: Final = (
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{2,4}"), "one with dots"),
    (re.compile(r"\d{1,4}/\d{1,2}/\d{1,4}"), "one with slashes"),
    (re.compile(r"\d{5}(\.\d+)?"), "a spreadsheet's day number; format the column as text"),
)
_ISO_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")
_PARTS: Final = re.compile("[;|]")

FactT = TypeVar("FactT")


def read_facts(text: Mapping[str, str], *, today: date | None = None) -> CohortFacts:
    """Read the fields of one patient; one that is absent or empty says nothing.

    Args:
        text: field -> what is written there.
        today: what is later has not happened, and is refused; None: any day is taken.

    Raises:
        ValueError: with one argument per problem: field and rule, never a value that could name a patient.
    """
    problems: list[str] = []
    facts = CohortFacts(
        diagnosis=_diagnosis(text.get("diagnosis", ""), problems),
        birth_date=next(iter(_several(text, "birth_date", _day, problems)), None),
        surgeries=_several(text, "surgeries", _surgery, problems),
        radiotherapy=_several(text, "radiotherapy", _day, problems),
        events=_several(text, "events", _event, problems),
    )
    problems.extend(_implausible(facts, today))
    if len(_PARTS.split(text.get("birth_date", ""))) > 1:
        problems.append("birth_date: expected one date")
    if problems:
        raise ValueError(*problems)
    return facts


def write_facts(facts: CohortFacts) -> dict[str, str]:
    """Return the fields of one patient as text; `read_facts` undoes it."""
    return {
        "diagnosis": facts.diagnosis,
        "birth_date": facts.birth_date.isoformat() if facts.birth_date else "",
        "surgeries": ";".join(
            f"{each.on.isoformat()}T{each.at.isoformat()}" if each.at else each.on.isoformat()
            for each in facts.surgeries
        ),
        "radiotherapy": ";".join(day.isoformat() for day in facts.radiotherapy),
        "events": ";".join(f"{each.on.isoformat()}:{each.kind}" for each in facts.events),
    }


def _several(
    text: Mapping[str, str], field: str, read: Callable[[str], FactT], problems: list[str]
) -> tuple[FactT, ...]:
    """Read the parts of a field in order of their days; what is wrong goes to `problems`."""
    found: list[FactT] = []
    for part in _PARTS.split(text.get(field, "")):
        if part.strip():
            try:
                found.append(read(part.strip()))
            except ValueError as error:
                problems.append(f"{field}: {error}")
    if len(set(found)) < len(found):
        problems.append(f"{field}: the same stands twice")
    return tuple(sorted(found, key=_order))


def _order(fact: object) -> str:
    if isinstance(fact, Surgery):
        return f"{fact.on.isoformat()} {fact.at or ''}"
    return f"{fact.on.isoformat()} {fact.kind}" if isinstance(fact, Event) else str(fact)


def _diagnosis(text: str, problems: list[str]) -> str:
    if len(text.strip()) > LONGEST_TEXT:
        problems.append(f"diagnosis: expected at most {LONGEST_TEXT} characters, found {len(text.strip())}")
    return " ".join(text.split())


def _day(text: str) -> date:
    try:
        if _ISO_DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError as error:
        msg = "expected a date like 2025-03-14, found a day that does not exist"
        raise ValueError(msg) from error
    first = text.partition(" ")[0]
    form = next((f", found {name}" for pattern, name in _FOREIGN if pattern.fullmatch(first)), "")
    msg = f"expected a date like 2025-03-14{form}"
    raise ValueError(msg)


def _surgery(text: str) -> Surgery:
    day, _, clock = text.replace("T", " ", 1).partition(" ")
    on = _day(day)
    if not clock:
        return Surgery(on=on)
    try:
        moment = datetime.fromisoformat(f"{on.isoformat()}T{clock.strip()}")
    except ValueError as error:
        msg = "expected 2025-03-14 or 2025-03-14T13:40, found another form of time"
        raise ValueError(msg) from error
    if moment.tzinfo is not None:
        msg = "expected the hospital's local time such as 2025-03-14T13:40, found a time with a zone"
        raise ValueError(msg)
    return Surgery(on=on, at=moment.time().replace(microsecond=0))


def _event(text: str) -> Event:
    day, _, kind = text.partition(":")
    kind = " ".join(kind.split()) or DEFAULT_EVENT
    if len(kind) > LONGEST_TEXT:
        msg = f"expected a kind of at most {LONGEST_TEXT} characters, found {len(kind)}"
        raise ValueError(msg)
    return Event(on=_day(day.strip()), kind=kind)


def _implausible(facts: CohortFacts, today: date | None) -> list[str]:
    """Compare the days with today and with the birth date."""
    days = {
        "birth_date": [facts.birth_date] if facts.birth_date else [],
        "surgeries": [each.on for each in facts.surgeries],
        "radiotherapy": list(facts.radiotherapy),
        "events": [each.on for each in facts.events],
    }
    problems = []
    for field, found in days.items():
        if today is not None and any(day > today for day in found):
            problems.append(f"{field}: a day in the future; expected what has happened")
        if any(day.year < FIRST_YEAR for day in found):
            problems.append(f"{field}: a year before {FIRST_YEAR}")
    first = min(chain(days["surgeries"], days["radiotherapy"], days["events"]), default=None)
    if facts.birth_date and first and facts.birth_date > first:
        problems.append("birth_date: later than a surgery, radiotherapy or event; expected an earlier day")
    return problems
