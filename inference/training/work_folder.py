"""What the files of an experiment's folder were made with: written down when new, refused when not the same.

A network or a cohort is known by its name alone, and another preset, or a changed generator, gives the same names.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from inference.phantom.real_head import PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD = "experiment.json"
_MADE = ("cohorts", "networks", "predictions", "checkpoints")


class WorkFolderError(ValueError):
    """A folder holds another experiment; the message says what differs."""


def bind(work: Path, **facts: Any) -> None:
    """Write down facts that a folder's files depend on; those that are on record already must be the same.

    Raises:
        WorkFolderError: if the folder was made with something else, or nobody wrote down with what.
        OSError: if the record cannot be read or written.
    """
    path = work / RECORD
    if not path.is_file() and any((work / name).exists() for name in _MADE):
        raise WorkFolderError(f"{work}: expected {RECORD} beside what was made there, found none; take a new folder")
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    told = json.loads(json.dumps(facts))
    apart = [line for name in told if name in known for line in _differences(name, known[name], told[name])]
    if apart:
        raise WorkFolderError(f"{path}: made with something else, take a new folder: {'; '.join(apart)}")
    if told.keys() - known.keys():
        work.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(known | told, indent=1) + "\n", encoding="utf-8")
        part.replace(path)


def real_head_digest(folder: Path) -> str:
    """Return the SHA-256 over the name and the bytes of the head's images in a folder."""
    content = hashlib.sha256()
    for path in sorted(folder.glob(PATTERN)):
        content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()


def _differences(name: str, known: Any, told: Any) -> Iterator[str]:
    """Yield "name: made with ..., asked for ..." for every value that differs."""
    if isinstance(known, dict) and isinstance(told, dict):
        for key in sorted(known.keys() | told.keys()):
            yield from _differences(f"{name}.{key}", known.get(key), told.get(key))
    elif known != told:
        yield f"{name}: made with {known}, asked for {told}"
