"""What sentinel patients are called, in every coding that could carry it, and the search for it in an output."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WORDS = (
    "ZQXNAME", "ZQXGIVEN", "ZQXID", "ZQXPHYSICIAN", "ZQXSTREET", "ZQXSTUDY", "ZQXSERIES", "ZQXACC", "ZQXHOSPITAL",
    "ZQXCOMMENT", "ZQXPHONE", "19370914", "1937-09-14", "1937/09/14", "14.09.1937", "Ümläutßen", "山田", "太郎",
    "やまだ", "ŁĄŻÓŁĆ", "김희중", "2.25.987654321", "Иванов",
)  # fmt: skip
CODINGS = ("utf-8", "latin-1", "iso2022_jp", "euc_kr", "gb18030", "iso8859_5", "iso8859_2", "shift_jis", "utf-16-le")


def needles() -> dict[bytes, str]:
    """Return everything to look for: each word in each coding, as JSON and as base64 would write it."""
    found: dict[bytes, str] = {}
    for word in WORDS:
        for coding in CODINGS:
            try:
                found[word.encode(coding)] = word
            except UnicodeEncodeError:
                continue
        found[json.dumps(word)[1:-1].encode()] = word
        found[repr(word.encode()).encode()[2:-1]] = word
        found[base64.b64encode(word.encode())[:-4]] = word
    return {needle: word for needle, word in found.items() if len(needle) >= 4}


NEEDLES = needles()


def shown_of(pids: Iterable[int]) -> list[bytes]:
    """Return what everybody on the machine may read of processes."""
    found = []
    for pid in pids:
        for name in ("cmdline", "comm", "status", "environ"):
            try:
                found.append(Path(f"/proc/{pid}/{name}").read_bytes())
            except OSError:
                continue
    return found


def sentinels_in(content: bytes) -> set[str]:
    """Return which words stand in some bytes."""
    return {word for needle, word in NEEDLES.items() if needle in content}
