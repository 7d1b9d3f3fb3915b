"""Whom a network has seen, without their names: keyed hashes that lie beside its weights and in its bundle.

A test counts only with patients that were never used before. `pretrain` and `finetune` write whom they learnt from or
chose by, and whom the weights they started from had seen; `export` adds the calibration patients, and `evaluate` looks
for the test's patients among them. The key lies beside the hashes: whoever guesses an ID can check the guess, so a
bundle that leaves the hospital goes without the file. No digest covers it.
"""

from __future__ import annotations

import hmac
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

IN_BUNDLE: Final = Path("docs/patients.sha256")
_HEAD = (
    "# Keyed hashes (HMAC-SHA-256) of the IDs of all patients that were used to make this: a line each, key and hash.\n"
    "# Whoever guesses an ID can check it here. Delete this file before it leaves the hospital.\n"
)
_LINE = re.compile(r"(?P<key>[0-9a-f]{32}) (?P<hash>[0-9a-f]{64})")

Known = dict[str, frozenset[str]]  # key -> hashes under it


def beside(weights: Path) -> Path:
    """Return where whom a network has seen is written."""
    return weights.with_name(f"{weights.name}.patients.sha256")


def hashed(patients: Iterable[str]) -> Known:
    """Return patients under a new key."""
    key = secrets.token_hex(16)
    return {key: frozenset(_hash(key, str(each)) for each in patients)}


def read_known(path: Path) -> Known | None:
    """Return whom a file knows; None where there is no file.

    Raises:
        ValueError: if a line is no key and hash.
    """
    if not path.is_file():
        return None
    known: dict[str, set[str]] = {}
    for number, line in enumerate(path.read_text("ascii", errors="replace").splitlines(), start=1):
        if line.startswith("#"):
            continue
        if (found := _LINE.fullmatch(line)) is None:
            raise ValueError(f"{path}: expected a key and a hash a line, found something else in line {number}")
        known.setdefault(found["key"], set()).add(found["hash"])
    return {key: frozenset(hashes) for key, hashes in known.items()}


def write_known(path: Path, known: Iterable[Known]) -> None:
    """Write all patients that any of these know.

    Raises:
        OSError: if the disk says no.
    """
    lines = sorted({f"{key} {each}\n" for part in known for key, hashes in part.items() for each in hashes})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_HEAD + "".join(lines), encoding="ascii")


def shared(known: Known, patients: Iterable[str]) -> int:
    """Return how many of these patients are known."""
    return sum(any(_hash(key, str(each)) in hashes for key, hashes in known.items()) for each in patients)


def _hash(key: str, patient: str) -> str:
    return hmac.digest(bytes.fromhex(key), patient.encode(), "sha256").hex()
