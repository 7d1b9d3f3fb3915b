"""Is the node well? What it knows of itself and last saw of others, judged; nobody is called for it.

Nothing here names a patient, so that probes may have the verdicts without a login.
"""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from dicom_node.ledger import arrivals, runs, survey
from dicom_node.ledger.tables import ArrivalState, CaseState, DeliveryState
from dicom_node.observe import audit_spool
from dicom_node.timeline.model import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.settings import Settings

SILENT_AFTER: Final = timedelta(seconds=60)  # a process says four times as often that it is there
LATE_AFTER: Final = timedelta(minutes=10)  # a report that could not be sent for so long wants looking at
LONG_WAIT: Final = 100  # audit messages; they leave every few seconds
BYTES_PER_GB: Final = 1e9
MOST_REASONS: Final = 12


class Verdict(StrEnum):
    """How something is."""

    GOOD = "good"
    ATTENTION = "attention"  # works, and somebody should look
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at, and what was found."""

    what: str
    verdict: Verdict
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """How it went with one archive lately."""

    name: str
    check: Check
    dealings: survey.Dealings


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """Everything that an admin sees at a glance, and Prometheus as figures."""

    at: datetime
    disk: Check
    free_bytes: int
    database: Check
    processes: Sequence[Check] = ()
    seen: Mapping[str, datetime] = field(default_factory=dict)  # executor -> last heard of
    archives: Sequence[Archive] = ()
    queue: Check | None = None
    audit: Sequence[Check] = ()  # each way out of the audit trail
    cases: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (task, state) -> how many
    files: Mapping[str, int] = field(default_factory=dict)
    set_aside: Sequence[Mapping[str, object]] = ()  # the commonest reasons why files are not used
    runs: Mapping[str, int] = field(default_factory=dict)
    receptions: Sequence[survey.Reception] = ()
    refused: int = 0

    @property
    def checks(self) -> list[Check]:
        """Everything that was judged."""
        queue = [self.queue] if self.queue else []
        archives = (each.check for each in self.archives)
        return [*self.processes, self.disk, self.database, *archives, *queue, *self.audit]

    @property
    def of_the_node(self) -> list[Check]:
        """What concerns the node alone, and names nobody that it talks to."""
        return [*self.processes, self.disk, self.database]

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        found = {each.verdict for each in self.checks}
        return next(each for each in (Verdict.BAD, Verdict.ATTENTION, Verdict.GOOD) if each in found)

    @property
    def is_ready(self) -> bool:
        """Whether images can be taken in: the ledger answers, the disk has room, and the node decides."""
        node = [each for each in self.processes if each.what == NODE]
        return all(each.verdict is not Verdict.BAD for each in (self.disk, self.database, *node))


NODE: Final = "node process"


def examine(settings: Settings, database: Database, now: datetime) -> Vitals:
    """Look at everything; a database that does not answer is a finding too."""
    disk, free_bytes = _disk(settings)
    try:
        with database.read() as ledger:
            return _with_ledger(settings, ledger, now, disk, free_bytes)
    except SQLAlchemyError as error:
        bad = Check(what="database", verdict=Verdict.BAD, found=f"does not answer: {type(error).__name__}")
        return Vitals(at=now, disk=disk, free_bytes=free_bytes, database=bad)


def _with_ledger(settings: Settings, ledger: Connection, now: datetime, disk: Check, free_bytes: int) -> Vitals:
    seen = survey.executors(ledger)
    cases, files, ran = survey.case_counts(ledger), arrivals.counts_by_state(ledger), runs.counts_by_state(ledger)
    return Vitals(
        at=now,
        disk=disk,
        free_bytes=free_bytes,
        database=Check(what="database", verdict=Verdict.GOOD, found="answers"),
        processes=_processes(settings, seen, now),
        seen=seen,
        archives=[_archive(ledger, each.name, now) for each in settings.pacs],
        queue=_queue(cases, files, ran),
        audit=_audit(settings),
        cases=cases,
        files=files,
        set_aside=arrivals.set_aside_reasons(ledger)[:MOST_REASONS],
        runs=ran,
        receptions=survey.receptions(ledger),
        refused=survey.refused_in_all(ledger),
    )


def _disk(settings: Settings) -> tuple[Check, int]:
    wanted_gb = settings.receive.min_free_disk_gb
    try:
        free = shutil.disk_usage(settings.node.data_dir).free
    except OSError as error:
        return Check(what="disk", verdict=Verdict.BAD, found=f"cannot be read: {type(error).__name__}"), 0
    free_gb = free / BYTES_PER_GB
    verdict = Verdict.GOOD
    if free_gb < wanted_gb:
        verdict = Verdict.BAD
    elif free_gb < 2 * wanted_gb:
        verdict = Verdict.ATTENTION
    found = f"{free_gb:.1f} GB free; below {wanted_gb:g} GB nothing is received"
    return Check(what="disk", verdict=verdict, found=found), free


def _processes(settings: Settings, seen: Mapping[str, datetime], now: datetime) -> list[Check]:
    """Judge the processes by when they were last heard of; their names end in :role:slot."""
    alive = [name for name, at in seen.items() if now - at <= SILENT_AFTER]
    roles = [name.rsplit(":", 2)[-2] for name in alive if name.count(":") >= 2]
    deciding = sum(role in {"node", "listener"} for role in roles)
    workers, wanted = roles.count("worker"), settings.inference.workers
    enough = Verdict.GOOD if workers >= wanted else Verdict.ATTENTION if workers else Verdict.BAD
    return [
        Check(
            what=NODE,
            verdict=Verdict.GOOD if deciding else Verdict.BAD,
            found="alive" if deciding else f"no sign of life for {SILENT_AFTER.total_seconds():.0f} s",
        ),
        Check(what="workers", verdict=enough, found=f"{workers} alive, {wanted} wanted"),
    ]


def _archive(ledger: Connection, name: str, now: datetime) -> Archive:
    found = survey.dealings(ledger, name)
    dead = found.counts.get(DeliveryState.DEAD, 0)
    waiting = sum(found.counts.get(state, 0) for state in (DeliveryState.PENDING, DeliveryState.RETRYING))
    verdict, told = Verdict.GOOD, f"reports waiting: {waiting}"
    if found.counts.get(DeliveryState.RETRYING, 0):
        late = found.oldest_open_at is not None and now - found.oldest_open_at > LATE_AFTER
        verdict, told = Verdict.BAD if late else Verdict.ATTENTION, f"{told}, a try failed"
    if dead:
        verdict, told = Verdict.BAD, f"{told}, given up: {dead}"
    return Archive(name=name, check=Check(what=f"archive {name}", verdict=verdict, found=told), dealings=found)


def _queue(cases: Mapping[tuple[str, str], int], files: Mapping[str, int], ran: Mapping[str, int]) -> Check:
    """Say what waits for us, and judge by what waits for a person."""
    by_state: dict[str, int] = {}
    for (_, state), count in cases.items():
        by_state[state] = by_state.get(state, 0) + count
    failed, held = by_state.get(CaseState.FAILED, 0), by_state.get(CaseState.HELD, 0)
    waits = [
        f"files to read: {files.get(ArrivalState.RECEIVED, 0)}",
        f"runs queued: {ran.get(RunState.QUEUED, 0)}, running: {ran.get(RunState.RUNNING, 0)}",
    ]
    asks = [f"cases {word}: {count}" for count, word in ((failed, "failed"), (held, "held")) if count]
    verdict = Verdict.ATTENTION if asks else Verdict.GOOD
    return Check(what="work", verdict=verdict, found=", ".join([*waits, *asks]))


def _audit(settings: Settings) -> list[Check]:
    """Judge each way out of the audit trail by what waits for it, and by what had to be dropped."""
    ways = [name for name in ("syslog", "file") if getattr(settings.audit, name) is not None]
    spool = audit_spool.Spool(settings.node.data_dir / "audit" / audit_spool.NAME, ways, settings.audit.most_waiting)
    return [_audit_way(spool, each) for each in ways]


def _audit_way(spool: audit_spool.Spool, name: str) -> Check:
    try:
        waiting, dropped = spool.counts(name) if spool.exists() else (0, 0)
    except sqlite3.Error as error:
        found = f"cannot be read: {type(error).__name__}"
        return Check(what=f"audit {name}", verdict=Verdict.BAD, found=found)
    verdict = Verdict.BAD if dropped else Verdict.ATTENTION if waiting >= LONG_WAIT else Verdict.GOOD
    told = f"messages waiting: {waiting}" + (f", dropped: {dropped}" if dropped else "")
    return Check(what=f"audit {name}", verdict=verdict, found=told)
