"""Whether the node stays as fast when its ledger grows: reception, the tick and `status` with ever more instances.

Each size has a node of its own, all of them started once. Only the one that is measured runs, the others are stopped
(SIGSTOP), so that the sizes are measured in turn, round by round, and what drifts meets all alike. The tick and
`status` are timed afterwards, on ledgers that nobody else uses.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from dicom_node import app, settings
from dicom_node.benchmark.figures import ratio, spread, there_and_back, told
from dicom_node.benchmark.images import ISSUER, Amount, write_images
from dicom_node.benchmark.node_state import ledger_of, wait_until_decided, wait_until_read
from dicom_node.benchmark.plans import Scan, scans, statements
from dicom_node.benchmark.processes import processor_s
from dicom_node.benchmark.rows import fill
from dicom_node.benchmark.senders import storescu
from dicom_node.benchmark.servers import SENDER_AE, node, serving, write_config
from dicom_node.ledger import arrivals
from dicom_node.observe import overview
from dicom_node.observe.logs import open_log
from dicom_node.receive.facts import read_facts
from dicom_node.receive.files import InstanceFiles
from dicom_node.resources import selection_file
from dicom_node.settings import Logging
from dicom_node.timeline.selection import load_selection
from dicom_node.work.engine import ROUTINE, JobKind, JobStatus
from dicom_node.work.folders import Folders
from dicom_node.work.judge import Rules
from dicom_node.work.reconcile import Reconciler
from dicom_node.work.tasks import load_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.benchmark.servers import Running
    from dicom_node.ledger.database import Database

IDLE_S: Final = 3.0
WARM_UP: Final = Amount(series=1, slices=8)
LOOKS: Final = 5  # ticks and statuses of a round
QUANTITIES: Final = ("rate", "idle_processor_ms_per_s", "tick_ms", "status_ms", "settled_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value; `what` is one of QUANTITIES."""

    rows: int
    what: str
    round: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything measured, and the queries that read whole tables of the largest ledger."""

    samples: Sequence[Sample]
    scans: Sequence[Scan]


class NoJobs:
    """An engine at rest: nothing is due in these ledgers, so nothing is ever asked of it."""

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Take no job."""

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Know of no job."""
        return dict.fromkeys(keys, JobStatus.UNKNOWN)

    def rescue(self, executor_id: str) -> list[str]:  # noqa: ARG002 - the engine's signature
        """Have nothing to rescue."""
        return []

    def retry(self, key: str) -> None:
        """Have nothing to do again."""


def run(
    sizes: Sequence[int], rounds: int, amount: Amount, folder: Path, *, engine: str, say: Callable[[str], None]
) -> Found:
    """Measure every size.

    Raises:
        UpstreamError: if a node does not start.
        NodeError: if one does not come to rest.
    """
    image = next(write_images(folder / "image", "row", Amount(series=1, slices=1))[0].iterdir())
    for size in sizes:
        say(f"filling a ledger with {size} instances")
        _prepare(folder / str(size), size, image, engine)
    samples: list[Sample] = []
    with ExitStack() as stack:
        nodes: dict[int, Running] = {}
        for size in sizes:
            say(f"starting the node of {size} instances")
            began = time.monotonic()
            nodes[size] = stack.enter_context(serving(node(engine), folder / str(size)))
            wait_until_decided(nodes[size])
            samples.append(Sample(rows=size, what="settled_s", round=0, value=time.monotonic() - began))
            stack.enter_context(_stopped(nodes[size]))
        for number in range(rounds):
            images = folder / f"round-{number}"
            warm_up = write_images(images / "warm-up", f"warm-up {number}", WARM_UP)
            series = write_images(images / "timed", f"round {number}", amount)
            for size in there_and_back(list(sizes), number):
                with _running(nodes[size]):
                    samples += _receive(nodes[size], size, number, warm_up, series)
                say(f"round {number + 1}, {size} instances: {samples[-2].value:.0f} instances/s")
    samples += _looks(sizes, rounds, folder, say)
    return Found(samples=samples, scans=_plans(folder / str(max(sizes)), image))


def _prepare(folder: Path, size: int, image: Path, engine: str) -> None:
    """Make the data folder of a node with so many instances."""
    folder.mkdir()
    found = settings.load(write_config(folder, 104, engine, {}))  # the port is written again at the start
    app.prepare(found)
    with closing(ledger_of(folder)) as database:
        fill(database, InstanceFiles(Folders.under(found.node.data_dir).instances), image, size)


def _receive(running: Running, size: int, number: int, warm_up: Sequence[Path], series: Sequence[Path]) -> list[Sample]:
    """Time the reception of some images, and what the node uses when nothing comes."""
    storescu(running, warm_up)
    wait_until_read(running)
    seconds = storescu(running, series)
    count = sum(len(list(each.iterdir())) for each in series)
    wait_until_read(running)
    wait_until_decided(running)
    before_s = processor_s(running.pid)
    time.sleep(IDLE_S)
    idle = 1000 * (processor_s(running.pid) - before_s) / IDLE_S
    return [
        Sample(rows=size, what="rate", round=number, value=count / seconds),
        Sample(rows=size, what="idle_processor_ms_per_s", round=number, value=idle),
    ]


@contextmanager
def _stopped(running: Running) -> Iterator[None]:
    """Stop a node until it is let run, and in any case let it run at the end."""
    os.kill(running.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(running.pid, signal.SIGCONT)


@contextmanager
def _running(running: Running) -> Iterator[None]:
    """Let a stopped node run for as long as the block lasts."""
    os.kill(running.pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(running.pid, signal.SIGSTOP)


def _looks(sizes: Sequence[int], rounds: int, folder: Path, say: Callable[[str], None]) -> list[Sample]:
    """Time the tick and `status`, in turn, in this process."""
    samples = []
    for number in range(rounds):
        for size in there_and_back(list(sizes), number):
            with closing(ledger_of(folder / str(size))) as database:
                reconciler = _reconciler(folder / str(size), database)
                reconciler.tick()  # the first one opens connections
                for _ in range(LOOKS):
                    samples.append(_timed(reconciler.tick, size, "tick_ms", number))
                    samples.append(_timed(lambda: _status(database), size, "status_ms", number))
            say(f"round {number + 1}, {size} instances: tick {samples[-2].value:.1f} ms")
    return samples


def _timed(work: Callable[[], object], size: int, what: str, number: int) -> Sample:
    began = time.monotonic()
    work()
    return Sample(rows=size, what=what, round=number, value=1000 * (time.monotonic() - began))


def _status(database: Database) -> None:
    with database.read() as ledger:
        overview.status(ledger)


def _reconciler(folder: Path, database: Database) -> Reconciler:
    found = settings.load(folder / "node.yaml")
    return Reconciler(
        rules=Rules(settings=found, selection=load_selection(selection_file(found.selection))),
        database=database,
        engine=NoJobs(),
        tasks=load_tasks(found.tasks),
        executor_id="benchmark",
        clock=app.now,
        log=open_log(Logging(level="error"), b"benchmark"),
    )


def _plans(folder: Path, image: Path) -> list[Scan]:
    """Return the queries on the ways of an image, of the tick and of `status` that read a whole table."""
    found = []
    with closing(ledger_of(folder)) as database:
        reconciler = _reconciler(folder, database)
        works: dict[str, Callable[[], object]] = {
            "reception": lambda: _enter(database, image),
            "tick": reconciler.tick,
            "status": lambda: _status(database),
        }
        for name, work in works.items():
            with statements() as seen:
                work()
            found += scans(database, name, seen)
    return found


def _enter(database: Database, image: Path) -> None:
    """Enter and index one more image, as the listener and the indexer do."""
    facts = read_facts(image, default_issuer=ISSUER)
    new = arrivals.Arrival(
        sop_instance_uid=facts.sop_instance_uid,
        sop_class_uid=facts.sop_class_uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path="benchmark",
        size_bytes=image.stat().st_size,
        calling_ae_title=SENDER_AE,
        default_issuer=ISSUER,
        stat=False,
        received_at=app.now(),
    )
    with database.write() as ledger:
        arrivals.record(ledger, new)
        (pending,) = arrivals.pending(ledger, 2)
        arrivals.count_try(ledger, pending.arrival_id)
        arrivals.index(ledger, pending.arrival_id, facts)


def summarize(found: Found) -> dict[str, Any]:
    """Return medians by size, and each size over the smallest: `ratio` of rates, `slower` of times."""
    sizes = sorted({each.rows for each in found.samples})

    def values(what: str, rows: int) -> list[float]:
        return [each.value for each in found.samples if (each.what, each.rows) == (what, rows)]

    return {
        "tables": {what: {str(rows): spread(values(what, rows)) for rows in sizes} for what in QUANTITIES},
        "ratio": {
            what: {str(rows): ratio(values(what, rows), values(what, sizes[0])) for rows in sizes[1:]}
            for what in QUANTITIES
        },
        "scans": [asdict(each) for each in found.scans],
        "rounds": [asdict(each) for each in found.samples],
    }


def lines(summary: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return the tables as titles and rows of cells."""
    sizes = list(summary["tables"]["rate"])
    rows = [["", *(f"{size} instances" for size in sizes)]]
    for what, cells in summary["tables"].items():
        ratios = summary["ratio"][what]
        rows.append([what, *(told(cells[size], 1) + _over(ratios.get(size)) for size in sizes)])
    scanned = [["work", "table", "rows", "statement"]]
    scanned += [[each["work"], each["table"], str(each["rows"]), each["statement"]] for each in summary["scans"]]
    return [("as the ledger grows (over the smallest)", rows), ("queries that read a whole table", scanned)]


def _over(found: float | None) -> str:
    return "" if found is None else f" ({found:.2f}x)"
