"""The folders under the data folder, readable by us alone."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OURS: Final = ("instances", "results", "outbox", "cache", "locks", "audit", "ledger.sqlite*", "engine.sqlite*", "*.key")
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


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


def close_to_others(data_dir: Path) -> None:
    """Take from everybody else what an older version, a copy or a careless hand may have left open in a data folder.

    The folder itself is left as it is, for it may be more than ours; `doctor` tells where others may enter it.

    Raises:
        OSError: if the disk says no.
    """
    for path in (path for name in OURS for path in data_dir.glob(name)):
        found = path.lstat()
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & OTHERS and found.st_uid == os.geteuid():
            path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
