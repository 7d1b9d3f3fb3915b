"""Odd values for the attributes that the series rules ask about, as JSON holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dicom_node.timeline.keywords import CONTEXT, NUMBERS, TEXTS

if TYPE_CHECKING:
    from random import Random

KEYWORDS: Final = (*NUMBERS, *TEXTS, *CONTEXT)
ODD_NUMBERS: Final = (0.0, -1.0, 1e-300, 1e300, -1e300, 0.004999, 0.005, 2.675, 1e16, 90.0, 2500.0)
ODD_TEXTS: Final = (
    "", " ", "A" * 10_000, "(" * 500, "a" * 30 + "!", "t1 t2 flair dwi adc swi gd km", "FLAIR\n+C",
    "\u0130\u00df\u017f", "\u202eRIALF", "\U0001f9e0", "MOSAIC", "T1\0", "post contrast " * 200, "LOCALIZER", "SE",
    "\\",
)  # fmt: skip


def odd_attributes(attributes: dict[str, Any], chance: Random) -> dict[str, Any]:
    """Return attributes of which some are odd, missing, or of another kind than usual."""
    changed = dict(attributes)
    for keyword in chance.sample(KEYWORDS, chance.randint(1, 6)):
        kind = chance.randrange(6)
        if kind == 0:
            changed.pop(keyword, None)
        elif kind == 1:
            changed[keyword] = chance.choice(ODD_NUMBERS)
        elif kind == 2:
            changed[keyword] = chance.choice(ODD_TEXTS)
        elif kind == 3:
            changed[keyword] = chance.choices(ODD_TEXTS, k=chance.randint(2, 6))
        elif kind == 4:
            changed[keyword] = chance.choices(ODD_NUMBERS, k=chance.randint(2, 40))
        else:
            changed[keyword] = []
    return changed
