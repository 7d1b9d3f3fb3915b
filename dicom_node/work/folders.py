"""The folders under the data folder, readable by us alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where things lie: received instances, saliency maps of frozen results, encoded objects, the cache, locks."""

    instances: Path
    results: Path
    outbox: Path
    cache: Path
    locks: Path

    @classmethod
    def under(cls, data_dir: Path) -> Folders:
        """Name the folders of a node."""
        return cls(
            instances=data_dir / "instances",
            results=data_dir / "results",
            outbox=data_dir / "outbox",
            cache=data_dir / "cache",
            locks=data_dir / "locks",
        )

    def prepare(self) -> None:
        """Make them.

        Raises:
            OSError: if the disk says no.
        """
        for folder in (self.results, self.outbox, self.cache, self.locks):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
