"""A small door to DBOS Transact: submit, status, rescue, retry. Nothing else of the node knows the engine.

The engine remembers progress and nothing more: what is due is derived from the ledger at every tick, under the same
keys, so its tables may be lost. The kinds of job: a *run* (infer, then encode, each checkpointed) on the workers; a
*deliver*, a *lookup* of older studies and a *fetch* of one series on the node. Settings that matter: a constant
application version (jobs queued under one version never run under another), one executor id per process, always a
priority (none means highest), an end to recoveries, JSON instead of pickle, and a call log that never quotes an
argument.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from dbos import DBOS, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID
from sqlalchemy.engine import make_url

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import IO

APPLICATION_VERSION: Final = "workflows-1"
MOST_RECOVERIES: Final = 20  # the last resort: what takes its worker down is counted in the ledger (`work.limits`)
STAT, ROUTINE = 1, 200  # DBOS: lower first; a task takes up to 100 off the routine one
AT_ONCE: Final = {"run": 1, "deliver": 8, "lookup": 2, "fetch": 16}  # per process; archives set their own limits
POLLING_S: Final = 0.25


class JobKind(StrEnum):
    """What there is to do; also the name of the queue it waits in."""

    RUN = "run"
    DELIVER = "deliver"
    LOOKUP = "lookup"
    FETCH = "fetch"

    @classmethod
    def of(cls, key: str) -> JobKind:
        """Return the kind of a job by its key: a run's is a digest, a delivery's begins with one."""
        first, _, rest = key.partition("/")
        if not rest:
            return cls.RUN
        return cls(first) if first in {cls.LOOKUP, cls.FETCH} else cls.DELIVER


class JobStatus(StrEnum):
    """How far the engine is with a job."""

    UNKNOWN = "unknown"
    WAITING = "waiting"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    CRASHED = "crashed"  # took its worker down more often than is tried
    CANCELLED = "cancelled"


STATUSES: Final = {
    "ENQUEUED": JobStatus.WAITING,
    "DELAYED": JobStatus.WAITING,
    "PENDING": JobStatus.WORKING,
    "SUCCESS": JobStatus.DONE,
    "ERROR": JobStatus.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": JobStatus.CRASHED,
    "CANCELLED": JobStatus.CANCELLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What the jobs call, each with the job's key; a process that never works on a kind leaves it out."""

    infer: Callable[[str], None] | None = None
    encode: Callable[[str], None] | None = None
    deliver: Callable[[str], None] | None = None
    lookup: Callable[[str], None] | None = None
    fetch: Callable[[str], None] | None = None


class Engine:
    """The engine of one process. `start()` returns when jobs can be submitted and are being worked on."""

    def __init__(self, url: str, *, executor_id: str, listen: Iterable[JobKind], steps: Steps, locks: Path) -> None:
        self._url = url
        self._executor_id = executor_id
        self._listen = tuple(listen)
        self._steps = steps
        self._lock_path = locks / f"{executor_id.replace(':', '-')}.lock"
        self._lock: IO[str] | None = None
        self._workflows: Mapping[JobKind, Callable[[str], None]] = {}
        self._at_work: set[str] = set()
        self._idle: set[str] = set()  # jobs that stood as being worked on at the last look, and nobody was

    @staticmethod
    def prepare(url: str) -> None:
        """Make the engine's tables, once, before several processes open them at the same moment."""
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            with contextlib.closing(sqlite3.connect(parsed.database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # stays in the file; submits are 5 times faster
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        DBOS.migrate(url)

    def start(self) -> None:
        """Connect, take up what this executor left unfinished, and listen.

        Raises:
            NodeError: if another live process has this executor id.
        """
        self._lock = _lock(self._lock_path)
        DBOS(
            config={
                "name": "dicom-node",
                "system_database_url": self._url,
                "application_version": APPLICATION_VERSION,
                "executor_id": self._executor_id,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "CRITICAL",
            }
        )
        logging.getLogger("dbos").handlers.clear()  # its text may quote what a step raised; ours carries the type
        self._workflows = _register(self._steps, self._at_work)
        DBOS.listen_queues([kind.value for kind in self._listen])
        DBOS.launch()
        for kind in JobKind:
            DBOS.register_queue(kind, worker_concurrency=AT_ONCE[kind], polling_interval_sec=POLLING_S)

    def stop(self, *, drain_s: int = 0) -> None:
        """Take no new jobs and wait that long for those at work; the rest is taken up at the next start."""
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=drain_s)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Ask for a job to be done, once per key however often it is asked."""
        with SetWorkflowID(key), SetEnqueueOptions(priority=priority):
            DBOS.enqueue_workflow(kind.value, self._workflows[kind], key)

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Return how far each job is."""
        wanted = list(keys)
        if not wanted:
            return {}
        found = DBOS.list_workflows(workflow_ids=wanted, load_input=False, load_output=False)
        known = {each.workflow_id: STATUSES[each.status] for each in found}
        return {key: known.get(key, JobStatus.UNKNOWN) for key in wanted}

    def rescue(self, executor_id: str) -> list[str]:
        """Hand the unfinished jobs of a dead executor to the living; return their keys."""
        orphans = DBOS.list_workflows(status="PENDING", executor_id=executor_id, load_input=False, load_output=False)
        for each in orphans:
            DBOS.resume_workflow(each.workflow_id, queue_name=each.queue_name)
        return [each.workflow_id for each in orphans]

    def take_up_stranded(self) -> list[str]:
        """Hand jobs of this process that nobody is at to the queue again; return their keys.

        Where the engine's own database said no, as on a full disk, a job ends without a word and would stand as being
        worked on until the next start. Seen twice, some seconds apart, it is not one that just begins or ends.
        """
        found = DBOS.list_workflows(
            status="PENDING", executor_id=self._executor_id, load_input=False, load_output=False
        )
        idle = {each.workflow_id: each.queue_name for each in found if each.workflow_id not in self._at_work}
        stranded = sorted(self._idle & set(idle))
        for key in stranded:
            DBOS.resume_workflow(key, queue_name=idle[key])
        self._idle = set(idle) - set(stranded)
        return stranded

    def retry(self, key: str) -> None:
        """Do an ended job again from its first step, under the same key."""
        DBOS.rewind_workflow(key, queue_name=JobKind.of(key).value)


def _register(steps: Steps, at_work: set[str]) -> dict[JobKind, Callable[[str], None]]:
    """Give the steps to DBOS under stable names; called once per process, before launch."""

    @DBOS.step(name="infer")
    def infer(key: str) -> None:
        _required(steps.infer, "infer")(key)

    @DBOS.step(name="encode")
    def encode(key: str) -> None:
        _required(steps.encode, "encode")(key)

    @DBOS.step(name="deliver-once")
    def deliver_once(key: str) -> None:
        _required(steps.deliver, "deliver")(key)

    @DBOS.step(name="look-up-once")
    def look_up_once(key: str) -> None:
        _required(steps.lookup, "lookup")(key)

    @DBOS.step(name="fetch-once")
    def fetch_once(key: str) -> None:
        _required(steps.fetch, "fetch")(key)

    @DBOS.workflow(name="run", max_recovery_attempts=MOST_RECOVERIES)
    def run(key: str) -> None:
        with _noted(at_work, key):
            infer(key)
            encode(key)

    @DBOS.workflow(name="deliver", max_recovery_attempts=MOST_RECOVERIES)
    def deliver(key: str) -> None:
        with _noted(at_work, key):
            deliver_once(key)

    @DBOS.workflow(name="lookup", max_recovery_attempts=MOST_RECOVERIES)
    def lookup(key: str) -> None:
        with _noted(at_work, key):
            look_up_once(key)

    @DBOS.workflow(name="fetch", max_recovery_attempts=MOST_RECOVERIES)
    def fetch(key: str) -> None:
        with _noted(at_work, key):
            fetch_once(key)

    return {JobKind.RUN: run, JobKind.DELIVER: deliver, JobKind.LOOKUP: lookup, JobKind.FETCH: fetch}


@contextlib.contextmanager
def _noted(at_work: set[str], key: str) -> Iterator[None]:
    at_work.add(key)
    try:
        yield
    finally:
        at_work.discard(key)


def _required(step: Callable[[str], None] | None, name: str) -> Callable[[str], None]:
    if step is None:
        msg = f"work engine: this process listens to a queue whose step {name!r} it was not given"
        raise NodeError(msg)
    return step


def _lock(path: Path) -> IO[str]:
    """Hold a file lock until the process ends; two processes under one executor id would do all work twice."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        msg = f"work engine: another process of this node is running under {path.stem}"
        raise NodeError(msg) from error
    return file
