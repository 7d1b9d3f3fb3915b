"""The sentences of a report as a template gives them: text with named places, each of which stands there once.

What no site may word away is a rule here: the warnings stand whole and in English first, a translation behind them.
"""

from __future__ import annotations

from string import Formatter
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterable

RESEARCH_ONLY = "RESEARCH USE ONLY"
RESEARCH_SENTENCE = f"{RESEARCH_ONLY} - NOT FOR CLINICAL DIAGNOSIS - AI result, not verified by a physician"
SYNTHETIC_SHORT = "SYNTHETIC PHANTOM"
SYNTHETIC_MODEL = "SYNTHETIC PHANTOM MODEL"
SYNTHETIC_SENTENCE = f"{SYNTHETIC_MODEL} - trained on simulated images; its number says nothing about a human"
SYNTHETIC_CATEGORY = "SYNTHETIC MODEL - NOT FOR CLINICAL USE"
PHANTOM_PATIENT = "SYNTHETIC PHANTOM DATA - simulated images, not a human patient"
NOT_A_LESION = "AI saliency: not a lesion outline"
NO_ANSWER = "NO ANSWER"
_TRANSLATED = " / "
_LONGEST = 300


def plain(text: object) -> str:
    """Return text from elsewhere on one line: no line break that could pass for a sentence of the report.

    Control characters and those that turn the direction of writing become spaces.
    """
    return " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())


def _places(names: Iterable[str]) -> AfterValidator:
    """Return the rule that a sentence names exactly these places, each once and bare."""
    expected = sorted(names)

    def check(text: str) -> str:
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            msg = f"braces: {error}; a brace as such is written twice"
            raise ValueError(msg) from error
        found = sorted(name for _, name, _, _ in parts if name is not None)
        if found != expected:
            msg = f"places: expected {_shown(expected)}, found {_shown(found)}"
            raise ValueError(msg)
        if any(conversion or form for _, _, form, conversion in parts):
            msg = "places: expected bare names, found a format or conversion"
            raise ValueError(msg)
        if plain(text) != text.strip():
            msg = "expected one line of printable text, found a line break, tab or control character"
            raise ValueError(msg)
        return text

    return AfterValidator(check)


def _shown(names: list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names) or "none"


def _fixed(words: str, *, then: tuple[str, ...] = ()) -> AfterValidator:
    """Return the rule that a warning is these words, its translation behind " / ", or goes on with one of `then`."""

    def check(text: str) -> str:
        if text != words and not text.startswith(tuple(words + each for each in (_TRANSLATED, *then))):
            msg = f"expected {words!r} as it is, or with its translation behind {_TRANSLATED!r}"
            raise ValueError(msg)
        return text

    return AfterValidator(check)


_Length = Field(min_length=1, max_length=_LONGEST)
_Text = Annotated[str, _Length, _places(())]


class _Strict(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TimePointKinds(_Strict):
    """What the kinds of time points are called."""

    pre_op: Annotated[_Text, Field(alias="pre-op")]
    early_post_op: Annotated[_Text, Field(alias="early-post-op")]
    follow_up: Annotated[_Text, Field(alias="follow-up")]
    unknown: _Text


class AbstentionCauses(_Strict):
    """Why there is no answer, in the meanings of PS3.16 CID 42."""

    not_attempted: _Text
    indeterminate: _Text
    failure: _Text


class SummaryPageWords(_Strict):
    """What only the summary page says."""

    no_answer: Annotated[_Text, _fixed("No answer"), Field(max_length=40)]
    trajectory: _Text
    synthetic: Annotated[_Text, _fixed(SYNTHETIC_MODEL)]
    no_saliency: _Text
    views: Annotated[str, _Length, _places(("warning", "date", "threshold"))]
    method: Annotated[str, _Length, _places(("method",))]
    more: Annotated[str, _Length, _places(("count",))]


class Words(_Strict):
    """Every sentence of a report. The names in braces are filled in when it is written."""

    research_only: Annotated[_Text, _fixed(RESEARCH_SENTENCE)]
    research_only_short: Annotated[_Text, _fixed(RESEARCH_ONLY), Field(max_length=40)]
    synthetic_model: Annotated[_Text, _fixed(SYNTHETIC_SENTENCE)]
    synthetic_short: Annotated[_Text, _fixed(SYNTHETIC_SHORT), Field(max_length=40)]
    synthetic_category: Annotated[_Text, _fixed(SYNTHETIC_CATEGORY)]
    phantom_patient: Annotated[_Text, _fixed(PHANTOM_PATIENT)]
    not_a_lesion: Annotated[_Text, _fixed(NOT_A_LESION), Field(max_length=60)]  # a Content Description holds 64
    peak: Annotated[str, _places(("image", "count")), Field(max_length=40)]

    answer: Annotated[str, _Length, _places(("label", "horizon", "probability", "interval", "category"))]
    horizon: Annotated[str, _Length, _places(("days", "scan", "end"))]
    interval: Annotated[str, _Length, _places(("lower", "upper"))]
    no_answer: Annotated[
        str, _Length, _places(("label", "horizon", "cause", "reason")), _fixed(NO_ANSWER, then=(": ",))
    ]
    causes: AbstentionCauses

    scans: Annotated[str, _Length, _places(("count",))]
    scans_with_probability: Annotated[str, _Length, _places(("count",))]
    scan: Annotated[str, _Length, _places(("number", "date", "kind", "since", "roles"))]
    scan_probability: Annotated[str, _Length, _places(("probability",))]
    kinds: TimePointKinds
    after_surgery: Annotated[str, _Length, _places(("days",))]
    before_surgery: Annotated[str, _Length, _places(("days",))]
    tracked_scan: Annotated[str, _Length, _places(("date",)), Field(max_length=54)]

    caution: Annotated[str, _Length, _places(("place", "message"))]
    caution_place: Annotated[str, _Length, _places(("number",))]
    cautions: dict[str, Annotated[str, _Length, _places(("message",))]] = {}
    note: Annotated[str, _Length, _places(("message",))]

    captures: Annotated[str, _Length, _places(("images",))]
    capture: Annotated[str, _Length, _places(("number", "description"))]
    replaces: Annotated[str, _Length, _places(("date",))]
    updates: Annotated[str, _Length, _places(("date",))]
    taken_back: Annotated[str, _Length, _places(("date",))]
    model: Annotated[str, _Length, _places(("name", "version", "digest"))]
    training: Annotated[str, _Length, _places(("data",))]

    page: SummaryPageWords
