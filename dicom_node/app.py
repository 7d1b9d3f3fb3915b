"""The composition root: which parts a process is made of, in which order they start and stop. Nothing else wires."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node import events
from dicom_node.deliver.postman import Postman
from dicom_node.ledger import cohort, patients, presence
from dicom_node.ledger.database import Database
from dicom_node.observe.audit import open_trail
from dicom_node.observe.logs import Log, load_key, open_log
from dicom_node.priors.archives import open_archive
from dicom_node.priors.librarian import Librarian
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.hl7 import Hl7Listener
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.listener import Listener
from dicom_node.receive.lull import Lull
from dicom_node.receive.reader import Reader
from dicom_node.receive.recovery import Recovery
from dicom_node.receive.stock import take_stock
from dicom_node.resources import selection_file
from dicom_node.ticker import Ticker
from dicom_node.timeline.selection import load_selection
from dicom_node.web.open import open_web
from dicom_node.work.engine import Engine, JobKind, Steps
from dicom_node.work.folders import Folders, close_to_others
from dicom_node.work.judge import Rules
from dicom_node.work.limits import CAUSE_VARIABLE, GB, Limits, WorkMark, count_death
from dicom_node.work.patience import patiently
from dicom_node.work.reconcile import Reconciler
from dicom_node.work.retention import ImageSweep
from dicom_node.work.steady_clock import SteadyClock
from dicom_node.work.tasks import load_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from dicom_node.priors.archive import Archive
    from dicom_node.settings import Pacs, Settings
    from dicom_node.work.steps import Predicts
    from dicom_node.work.tasks import ServedTask

TICK_S: Final = 1.0
INDEX_S: Final = 0.1
BEAT_S: Final = 15.0
AUDIT_S: Final = 5.0
SWEEP_S: Final = 3600.0
IMAGE_SWEEP_S: Final = 86400.0  # looks at every patient anew; the first time when all have been decided
DRAIN_S: Final = 30
LOOK_S: Final = 1.0
ROLES: Final = ("node", "listener", "worker", "deliver")


def now() -> datetime:
    """Return the time on the site's clock, tz-aware: scanners and calendars around the node keep local days."""
    return datetime.now(UTC).astimezone()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every process of a node has."""

    settings: Settings
    database: Database
    folders: Folders
    files: InstanceFiles
    tasks: dict[str, ServedTask]
    log: Log


def prepare(settings: Settings) -> None:
    """Make folders, schema and the engine's tables, before any process needs them.

    Raises:
        OSError: if the disk says no.
    """
    folders = Folders.under(settings.node.data_dir)
    settings.node.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    folders.prepare()
    close_to_others(settings.node.data_dir)
    InstanceFiles(folders.instances).prepare()
    database = Database(settings.ledger_url)
    database.migrate()
    database.close()
    Engine.prepare(settings.engine_url)


def parts(settings: Settings) -> Parts:
    """Open what every process has.

    Raises:
        ConfigError: if a task or bundle is wrong.
        NodeError: if the schema is of another version.
    """
    folders = Folders.under(settings.node.data_dir)
    database = Database(settings.ledger_url)
    database.require_newest_schema()
    return Parts(
        settings=settings,
        database=database,
        folders=folders,
        files=InstanceFiles(folders.instances),
        tasks=load_tasks(settings.tasks),
        log=open_log(settings.logging, load_key(settings.node.data_dir)),
    )


def executor_id(role: str, slot: int = 0) -> str:
    """Name the executor of this process: host, role and slot, the same after every restart."""
    return f"{socket.gethostname()}:{role}:{slot}"


def serve(settings: Settings, role: str, slot: int, stop: threading.Event) -> None:
    """Be one process of a node until told to stop.

    Raises:
        NodeError: if another process already has this role and slot.
    """
    found = parts(settings)
    with ExitStack() as stack:
        stack.callback(found.database.close)
        if role == "worker":
            _start_worker(found, slot, stack)
        else:
            _start_node(found, role, stack)
        found.log.info(events.PROCESS_STARTED, role=role)
        while not stop.wait(LOOK_S):  # a signal that another thread took is acted upon when this one wakes up
            pass
    found.log.info(events.NODE_STOPPED, role=role)


def _start_node(found: Parts, role: str, stack: ExitStack) -> None:
    """Start listener, indexer, reconciler and what talks to archives, as far as the role asks for them."""
    me = executor_id(role)
    engine = _node_engine(found, role, me)
    engine.start()
    stack.callback(engine.stop, drain_s=DRAIN_S)
    _every(_scheduler(stack), BEAT_S, engine.take_up_stranded, found.log)
    _start_audit(found, role, stack)
    if role == "deliver":
        _every(_scheduler(stack), BEAT_S, _beat(found, me), found.log)
        return
    _sweep_instances(found)
    with found.database.write() as ledger:
        patients.touch_all(ledger)  # configuration or models may have changed: decide everything anew
        _audit_openings(found, ledger)
    lull = Lull()
    _start_ticks(found, engine, me, lull, stack)
    _start_listeners(found, lull, stack)


def _start_audit(found: Parts, role: str, stack: ExitStack) -> None:
    """Have the audit trail follow the ledger, where the site wants one."""
    trail = open_trail(found.settings, found.database, found.log, role=role, clock=now)
    if trail is not None:
        trail.start()
        stack.callback(trail.stop)
        _every(_scheduler(stack), AUDIT_S, trail.run_once, found.log)


def _node_engine(found: Parts, role: str, me: str) -> Engine:
    """Return the engine of a node: it submits everything, and does what needs archives unless it only listens."""
    settings, database, log = found.settings, found.database, found.log
    archive_for = _archive_for(settings)
    postman = Postman(settings, database, found.folders.outbox, log, clock=now, archive_for=archive_for)
    librarian = Librarian(settings, database, found.files, log, now)
    with_archives = (JobKind.DELIVER, JobKind.LOOKUP, JobKind.FETCH) if role in {"node", "deliver"} else ()
    return Engine(
        settings.engine_url,
        executor_id=me,
        listen=with_archives,
        steps=Steps(deliver=postman.deliver, lookup=librarian.look_up, fetch=librarian.fetch),
        locks=found.folders.locks,
    )


def _start_ticks(found: Parts, engine: Engine, me: str, lull: Lull, stack: ExitStack) -> None:
    """Have files indexed, cases decided and what is old swept away, each at its interval."""
    rules = Rules(settings=found.settings, selection=load_selection(selection_file(found.settings.selection)))
    clock = SteadyClock(found.database, me, found.settings.receive, found.log, wall=now)
    reconciler = Reconciler(
        rules=rules,
        database=found.database,
        engine=engine,
        tasks=found.tasks,
        executor_id=me,
        clock=clock.now,
        log=found.log,
    )
    recovery = Recovery(
        ae_title=found.settings.node.ae_title,
        outbox=found.folders.outbox,
        database=found.database,
        clock=now,
        log=found.log,
    )
    receive = found.settings.receive
    reader = stack.enter_context(
        Reader(
            timeout_s=receive.max_read_s,
            memory_bytes=receive.max_read_memory_gb * GB,
            issuer_aliases=receive.issuer_aliases,
        )
    )
    indexer = Indexer(found.database, found.files, reader, found.log, recovery, lull=lull)
    images = ImageSweep(rules=rules, database=found.database, files=found.files, tasks=found.tasks, log=found.log)

    def tick() -> None:
        clock.look()
        reconciler.tick()

    scheduler = _scheduler(stack)  # after the reader, so that it stops before the reader is closed
    _every(scheduler, INDEX_S, indexer.run_once, found.log)
    _every(scheduler, TICK_S, tick, found.log)
    _every(scheduler, SWEEP_S, lambda: sweep_cache(found, now()), found.log)
    _every(scheduler, IMAGE_SWEEP_S, lambda: images.run_once(now()), found.log, first_after_s=SWEEP_S)


def _start_listeners(found: Parts, lull: Lull, stack: ExitStack) -> None:
    """Listen for images and, where the site wants it, for what its registry says of patients."""
    listener = Listener(found.settings, found.database, found.files, found.log, lull=lull)
    listener.start()
    stack.callback(listener.stop)
    if found.settings.receive.hl7.port is not None:
        registry = Hl7Listener(found.settings, found.database, found.log)
        registry.start()
        stack.callback(registry.stop)
    if found.settings.web.enabled:
        rules = load_selection(selection_file(found.settings.selection))
        open_web(found.settings, found.tasks, rules, found.log, stack, clock=now)


def _start_worker(found: Parts, slot: int, stack: ExitStack) -> None:
    """Start the engine on the run queue, with a predictor made for each bundle when it is first needed."""
    from dicom_node.work.steps import RunSteps  # noqa: PLC0415 - brings torch, which only a worker needs

    os.nice(found.settings.inference.nice)
    me = executor_id("worker", slot)
    steps = RunSteps(
        settings=found.settings,
        database=found.database,
        folders=found.folders,
        files=found.files,
        tasks=found.tasks,
        predictor_for=predictors(found),
        archive_for=_archive_for(found.settings),
        clock=now,
        log=found.log,
    )
    mark, allowed = WorkMark(found.folders.locks / f"worker-{slot}.run"), Limits.of(found.settings.inference)
    count_death(found.database, mark, os.environ.get(CAUSE_VARIABLE))
    engine = Engine(
        found.settings.engine_url,
        executor_id=me,
        listen=(JobKind.RUN,),
        steps=Steps(
            infer=patiently(mark.limited(steps.infer, allowed), found.log),
            encode=patiently(mark.limited(steps.encode, allowed), found.log),
        ),
        locks=found.folders.locks,
    )
    engine.start()
    stack.callback(mark.clear)
    stack.callback(engine.stop, drain_s=DRAIN_S)
    _every(_scheduler(stack), BEAT_S, engine.take_up_stranded, found.log)
    _every(_scheduler(stack), BEAT_S, _beat(found, me), found.log)


def _archive_for(settings: Settings) -> Callable[[Pacs], Archive]:
    """Return a function that opens an archive for questions."""
    return lambda pacs: open_archive(pacs, settings.node.ae_title)


def predictors(found: Parts) -> Callable[[ServedTask], Predicts]:
    """Return a function that gives the predictor of a task, loaded once per bundle."""
    from inference.bundle import load  # noqa: PLC0415 - brings torch, which only a worker needs
    from inference.predictor import Predictor  # noqa: PLC0415 - brings torch, which only a worker needs

    loaded: dict[str, Predictor] = {}
    wanted = found.settings.inference

    def predictor_for(served: ServedTask) -> Predicts:
        if served.bundle_digest not in loaded:
            loaded[served.bundle_digest] = Predictor(
                load(served.bundle_folder, expected_digest=served.bundle_digest),
                device=wanted.device,
                precision=wanted.precision,
                cache=found.folders.cache,
                template=wanted.template,
            )
        return loaded[served.bundle_digest]

    return predictor_for


def sweep_cache(found: Parts, at: datetime) -> int:
    """Delete cached volumes and features that were not used for long; return how many."""
    oldest = at - timedelta(days=found.settings.retention.cache_days)
    stale = [
        path for path in found.folders.cache.rglob("*") if path.is_file() and path.stat().st_mtime < oldest.timestamp()
    ]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _sweep_instances(found: Parts) -> None:
    """Hold files and rows against each other before anything is decided on them, and say what was done."""
    issuers = found.settings.default_issuers
    taken = take_stock(found.database, found.files, found.folders.outbox, now(), issuers=issuers)
    tell = found.log.error if taken.lost or taken.outbox else found.log.info
    tell(
        events.STORAGE_RECONCILED,
        count=taken.promised,
        entered=taken.entered,
        removed=taken.removed,
        lost=taken.lost,
        back=taken.back,
        outbox_lost=taken.outbox,
    )


def _audit_openings(found: Parts, ledger: Connection) -> None:
    """Keep in the audit that a destination is open to results of phantom-trained models (invariant 10)."""
    for pacs in found.settings.pacs:
        if pacs.allow_unvalidated:
            cohort.write_audit(
                ledger, at=now(), actor="configuration", action="allow_unvalidated", subject=pacs.name, details={}
            )


def _beat(found: Parts, me: str) -> Callable[[], None]:
    def beat() -> None:
        with found.database.write() as ledger:
            presence.beat(ledger, me, now())

    return beat


def _scheduler(stack: ExitStack) -> Ticker:
    ticker = Ticker()
    stack.callback(ticker.stop)
    return ticker


def _every(ticker: Ticker, seconds: float, work: Callable[[], object], log: Log, *, first_after_s: float = 0.0) -> None:
    """Do something at an interval, never twice at a time; what it raises is logged, and the next time is a new try."""

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the edge: a tick must not end the ticking
            log.failure(events.TICK_FAILED, error)

    ticker.every(seconds, guarded, first_after_s=first_after_s)
