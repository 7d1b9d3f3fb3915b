"""The risk levels that SNOMED CT has codes for, and whether the bands of a template contradict them.

A label may say anything in any language. What can be told without reading it: that label or meaning name another level
than the code does, and that the levels of the bands do not go one way while the probability rises.

Source: PS3.16 CID 3118.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sr_templates.codings import CodeText

RISING: Final = {
    "427986001": "Normal risk",
    "75976002": "Low risk",
    "429551001": "Low to moderate risk",
    "25594002": "Moderate risk",
    "429557002": "Moderate to high risk",
    "15508007": "High risk",
}
LEVELS: Final = {**RISING, "64957009": "Uncertain risk"}


def contradictions(bands: Sequence[tuple[str, CodeText]]) -> Iterator[str]:
    """Yield how the bands of an output, each (label, code) from the lowest probability up, contradict their codes."""
    for label, code in bands:
        if code.scheme == "SCT" and code.value in LEVELS:
            wrong = [each for each in (label, code.meaning) if _level(each) not in {None, code.value}]
            yield from (
                f"bands: {code.value} of SCT is {LEVELS[code.value]!r}, which {each!r} contradicts" for each in wrong
            )
    order = list(RISING)
    found = [order.index(code.value) for _, code in bands if code.scheme == "SCT" and code.value in RISING]
    if not (_rises(found) or _rises(found[::-1])):
        said = ", ".join(RISING[order[each]] for each in found)
        yield f"bands: expected codes whose risk goes one way from band to band, found {said}"


def _level(text: str) -> str | None:
    """Return the code of the level that a text names in the words of the Standard, with or without "risk"."""
    named = {meaning.casefold().removesuffix(" risk"): code for code, meaning in LEVELS.items()}
    return named.get(text.casefold().removesuffix(" risk"))


def _rises(numbers: Sequence[int]) -> bool:
    return all(lower < higher for lower, higher in pairwise(numbers))
