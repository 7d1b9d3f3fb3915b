"""What the processes of a node hold, as the kernel says, and how large its databases are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scipy.stats import theilslopes
from sqlalchemy import func, select

from dicom_node.ledger.tables import arrival, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.soak.site import Site

DATABASES: Final = ("ledger.sqlite", "ledger.sqlite-wal", "engine.sqlite", "engine.sqlite-wal")
HOUR_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one process holds."""

    pid: int
    memory_mb: float  # resident, without what it shares
    handles: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at everything."""

    at_s: float  # since the load began
    processes: dict[str, Held]  # by role
    sizes_mb: dict[str, float]
    instances: int
    encoded: int  # runs


def sample(site: Site, at_s: float) -> Sample:
    """Look at a site."""
    held = {}
    for role in ("supervisor", "node", "worker", "reader"):
        for pid in site.pids(role):
            with contextlib.suppress(OSError):  # it is gone
                held[role] = _held(pid)
    sizes = {name: (site.data / name).stat().st_size / 1e6 for name in DATABASES if (site.data / name).exists()}
    database = site.database()
    try:
        with database.read() as ledger:
            instances = ledger.scalar(select(func.count()).select_from(arrival)) or 0
            encoded = ledger.scalar(select(func.count()).where(run.c.encoded_at.is_not(None))) or 0
    finally:
        database.close()
    return Sample(at_s=at_s, processes=held, sizes_mb=sizes, instances=instances, encoded=encoded)


def slope_per_hour(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Return how much is added in an hour: the median slope between all pairs, which a few peaks do not move."""
    if len(times_s) < 3:
        return 0.0
    return float(theilslopes(values, times_s).slope) * HOUR_S


def _held(pid: int) -> Held:
    folder = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return Held(
        pid=pid,
        memory_mb=int(status["RssAnon"].split()[0]) / 1024,
        handles=len(list((folder / "fd").iterdir())),
        threads=int(status["Threads"]),
    )
