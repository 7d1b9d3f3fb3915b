"""The audit trail: what the ledger tells (`audit_facts`) waits in a file (`audit_spool`) and leaves by syslog or file.

It is the one output of the node that names patients, by ID and issuer; who may read where it goes is for the site to
say. It runs beside everything else: what fails here is logged, waits and is tried again, and nothing else notices.
Where several hosts share one ledger, `audit` is configured on one of them, or facts are told more than once.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node import events
from dicom_node.errors import NodeError, UpstreamError
from dicom_node.observe import audit_messages, audit_spool
from dicom_node.observe.audit_facts import collect
from dicom_node.observe.audit_messages import EventType
from dicom_node.observe.audit_spool import Entry, Spool
from dicom_node.observe.audit_syslog import FileSink, Sink, TlsSyslog, UdpSyslog, syslog_line
from dicom_node.observe.audit_teller import Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from dicom_node.ledger.database import Database
    from dicom_node.observe.audit_messages import Message
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Settings

BATCH: Final = 200
LONGEST_PAUSE_S: Final = 60.0
ROLES_THAT_LOOK: Final = frozenset({"node", "listener"})


class AuditTrail:
    """Tells what happened, in the background."""

    def __init__(
        self, settings: Settings, database: Database, log: Log, *, role: str, clock: Callable[[], datetime]
    ) -> None:
        folder = settings.node.data_dir / "audit"
        self._settings = settings
        self._database = database
        self._log = log
        self._role = role
        self._clock = clock
        self._host = socket.getfqdn()
        self._teller = Teller(settings, self._host)
        self._sinks = _sinks(settings, folder)
        self._spool = Spool(folder / audit_spool.NAME, list(self._sinks), settings.audit.most_waiting)
        self._lock = folder / "sending.lock"
        self._failures: dict[str, int] = dict.fromkeys(self._sinks, 0)
        self._not_before: dict[str, float] = dict.fromkeys(self._sinks, 0.0)

    def start(self) -> None:
        """Tell that this process began. Never raises: without a trail the node serves all the same, and says so."""
        try:
            self._spool.prepare()
            self._tell(self._teller.activity(self._role, EventType.APPLICATION_START, self._clock()))
        except (OSError, sqlite3.Error) as error:
            self._log.failure(events.AUDIT_DELAYED, error)

    def stop(self) -> None:
        """Tell that this process ends, and send what can be sent; the rest waits for the next start. Never raises."""
        try:
            self._collect()
            self._tell(self._teller.activity(self._role, EventType.APPLICATION_STOP, self._clock()))
            self._not_before = dict.fromkeys(self._sinks, 0.0)
            self._send()
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the node must be able to stop
            self._log.failure(events.AUDIT_DELAYED, error)

    def run_once(self) -> None:
        """Tell what is new, and send what waits.

        Raises:
            sqlite3.Error: if the waiting messages cannot be written; the ledger's facts are told at the next look.
            SQLAlchemyError: if the ledger cannot be read.
        """
        self._spool.prepare()
        self._collect()
        self._send()

    def standing(self) -> dict[str, dict[str, int]]:
        """Return how many messages wait and how many were dropped, for each way out."""
        found = {}
        for name in self._sinks:
            waiting, dropped = self._spool.counts(name)
            found[name] = {"waiting": waiting, "dropped": dropped}
        return found

    def _collect(self) -> None:
        if self._role not in ROLES_THAT_LOOK:
            return
        now = self._clock()
        with self._database.read() as ledger:
            found = collect(self._teller, ledger, self._spool.positions(), now)
        entries = [Entry(key=fact.key, line=self._line(fact.message)) for fact in found.facts]
        self._add(entries, found.positions, now)

    def _tell(self, message: Message) -> None:
        self._add([Entry(key="", line=self._line(message))], {}, self._clock())

    def _add(self, entries: list[Entry], positions: Mapping[str, float], now: datetime) -> None:
        dropped = self._spool.add(entries, positions=positions, now_s=now.timestamp())
        if dropped:
            self._log.error(events.AUDIT_DROPPED, count=dropped, reason="too many messages wait to be sent")

    def _line(self, message: Message) -> bytes:
        xml = audit_messages.to_xml(message, source=self._settings.node.ae_title, site=self._settings.audit.site)
        return syslog_line(xml, at=self._clock(), host=self._host, pid=os.getpid(), warning=message.is_warning)

    def _send(self) -> None:
        with _alone(self._lock) as alone:
            for name, sink in self._sinks.items() if alone else ():
                if time.monotonic() >= self._not_before[name]:
                    self._empty(name, sink)

    def _empty(self, name: str, sink: Sink) -> None:
        """Hand over what waits for one way out; what fails waits on, ever longer between two tries."""
        try:
            while waiting := self._spool.next(name, BATCH):
                _, dropped = self._spool.counts(name)
                lost = [self._line(self._lost(dropped))] if dropped else []
                sink.send([*lost, *(each.line for each in waiting)])
                self._spool.sent(name, waiting, told_dropped=dropped)
        except (UpstreamError, NodeError, OSError) as error:
            self._failures[name] += 1
            self._not_before[name] = time.monotonic() + min(2.0 ** self._failures[name], LONGEST_PAUSE_S)
            reason = str(error) if isinstance(error, UpstreamError | NodeError) else f"file: {error.strerror}"
            self._log.warning(
                events.AUDIT_DELAYED,
                destination=name,
                attempts=self._failures[name],
                count=self._spool.counts(name)[0],
                reason=reason,
            )
        else:
            self._failures[name] = 0

    def _lost(self, count: int) -> Message:
        text = f"{count} audit messages were dropped: too many waited to be sent"
        return self._teller.alert(EventType.AUDIT_RECORDING_STOPPED, text, self._clock())


def open_trail(
    settings: Settings, database: Database, log: Log, *, role: str, clock: Callable[[], datetime]
) -> AuditTrail | None:
    """Return the trail of a process, None where the configuration wants none."""
    wanted = settings.audit
    if wanted.syslog is None and wanted.file is None:
        return None
    return AuditTrail(settings, database, log, role=role, clock=clock)


def _sinks(settings: Settings, folder: Path) -> dict[str, Sink]:
    found: dict[str, Sink] = {}
    syslog, file = settings.audit.syslog, settings.audit.file
    if syslog is not None:
        found["syslog"] = TlsSyslog(syslog) if syslog.protocol == "tls" else UdpSyslog(syslog)
    if file is not None:
        path = file.path or folder / "audit.log"
        found["file"] = FileSink(path=path, max_bytes=int(file.max_mb * 1e6), keep=file.keep)
    return found


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Say whether nobody else sends at this moment: of several processes on one data folder one is enough."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
