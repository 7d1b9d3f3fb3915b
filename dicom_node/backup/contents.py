"""What a backup is made of: a folder that the tools of any system can check.

    backup.json     when and of what it was made, rows per table, the digest of SHA256SUMS
    SHA256SUMS      a line per file, as sha256sum writes it: `sha256sum --check SHA256SUMS` works without the node
    ledger.sqlite   every row, of one moment
    pseudonym.key   the key of the names in logs
    instances/      received files
    outbox/         encoded objects: what was issued, byte for byte
    results/        saliency maps of frozen results

Not in it: the configuration, certificates and bundles, which are the site's own files; the cache, which is computed
anew; and the engine's progress, for what is due is derived from the ledger, under the same keys.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FORMAT: Final = 1
SHEET: Final = "backup.json"
SUMS: Final = "SHA256SUMS"
LEDGER: Final = "ledger.sqlite"
KEY: Final = "pseudonym.key"
INSTANCES: Final = "instances"
OUTBOX: Final = "outbox"
RESULTS: Final = "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What a backup says of itself. `missing` are files that rows promise and the node had not, as POSIX paths."""

    made_at: str  # ISO 8601, with zone
    ae_title: str
    schema: str
    rows: dict[str, int]
    files: int
    size_bytes: int
    missing: tuple[str, ...]
    sums_sha256: str
    format: int = FORMAT

    def to_json(self) -> str:
        """Return it as a person and a program can read it."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def read_sheet(folder: Path) -> Sheet:
    """Read what a backup says of itself.

    Raises:
        NodeError: if it is no backup, or one of another format.
    """
    try:
        content: dict[str, Any] = json.loads((folder / SHEET).read_text(encoding="utf-8"))
        sheet = Sheet(**(content | {"missing": tuple(content["missing"])}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        msg = f"{folder}: expected a backup with {SHEET}, found none that can be read ({type(error).__name__})"
        raise NodeError(msg) from error
    if sheet.format != FORMAT:
        msg = f"{folder / SHEET}: expected format {FORMAT}, found {sheet.format}"
        raise NodeError(msg)
    return sheet


def write_sums(sums: Iterable[tuple[str, str]]) -> bytes:
    """Return path -> SHA-256 as sha256sum writes it, in order of path."""
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(sums)).encode()


def read_sums(folder: Path, sheet: Sheet) -> dict[str, str]:
    """Return path -> SHA-256.

    Raises:
        NodeError: if the list is not the one that was written.
        OSError: if it cannot be read.
    """
    content = (folder / SUMS).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sheet.sums_sha256:
        msg = f"{folder / SUMS}: expected sha256 {sheet.sums_sha256}, found {found}"
        raise NodeError(msg)
    lines = (line.split("  ", 1) for line in content.decode().splitlines())
    return {path: sha256 for sha256, path in lines}


def files_in(folder: Path) -> Iterator[str]:
    """Yield every file of a backup but the two that list the others, as POSIX paths."""
    for path in folder.rglob("*"):
        if path.is_file() or path.is_symlink():
            relative = path.relative_to(folder).as_posix()
            if relative not in {SHEET, SUMS}:
                yield relative
