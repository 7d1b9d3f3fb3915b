"""Which texts are legal UIDs."""

from __future__ import annotations

import re
from typing import Final

UID_PATTERN: Final = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)  # PS3.5 9.1


def is_uid(text: str) -> bool:
    """Say whether a text is a legal UID (PS3.5 9.1)."""
    return len(text) <= 64 and UID_PATTERN.fullmatch(text) is not None
