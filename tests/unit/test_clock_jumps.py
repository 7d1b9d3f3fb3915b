"""A clock that is put forward or back, or changes to daylight-saving time, closes no study early and stops nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from dicom_node.ledger import cases, deliveries, presence, runs
from dicom_node.ledger.tables import CaseState, delivery
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging
from dicom_node.ticker import Ticker
from dicom_node.timeline.model import RunState
from dicom_node.work.engine import JobStatus
from dicom_node.work.steady_clock import SteadyClock
from tests.factories.bench import Bench
from tests.factories.flair import flair_studies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3600.0


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies of one patient, oldest first, a file per slice."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@dataclass
class Nobody:
    """An engine that does nothing and remembers whose work it was told to hand on."""

    rescued: list[str] = field(default_factory=list)

    def submit(self, *_: Any, **__: Any) -> None:
        """Leave it lying."""

    def status(self, keys: Any) -> dict[str, JobStatus]:
        """Know nothing."""
        return dict.fromkeys(keys, JobStatus.UNKNOWN)

    def rescue(self, executor_id: str) -> list[str]:
        """Remember who was thought dead."""
        self.rescued.append(executor_id)
        return []

    def retry(self, key: str) -> None:
        """Leave it lying."""


class Site:
    """A node whose clock can be put forward and back; time passes only when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.engine = Nobody()
        self.bench = Bench(folder, self.engine)
        self.passed_s = 1000.0
        self.start()

    def start(self) -> None:
        """Begin a process anew: it knows only the ledger."""
        self.clock = SteadyClock(
            self.bench.database,
            "bench",
            self.bench.settings.receive,
            open_log(Logging(level="error", format="json"), b"key"),
            wall=lambda: self.bench.now,
            monotonic=lambda: self.passed_s,
        )
        self.reconciler = replace(self.bench.reconciler, clock=self.clock.now)

    def wait(self, seconds: float) -> None:
        """Let time pass, in ticks of ten seconds."""
        for _ in range(round(seconds / 10)):
            self.passed_s += 10
            self.bench.now += timedelta(seconds=10)
            self.tick()

    def jump(self, seconds: float) -> None:
        """Put the clock forward or back."""
        self.bench.now += timedelta(seconds=seconds)

    def away(self, seconds: float) -> None:
        """Be killed, and started again after a while."""
        self.passed_s += 7
        self.bench.now += timedelta(seconds=seconds)
        self.start()

    def tick(self) -> None:
        """Do what the node does every second."""
        self.clock.look()
        self.reconciler.tick()

    @property
    def case(self) -> cases.Case:
        """The only case."""
        with self.bench.database.read() as ledger:
            (found,) = cases.of_patient(ledger, 1)
        return found

    @property
    def used(self) -> set[int]:
        """How many instances each run takes that was ever made."""
        with self.bench.database.read() as ledger:
            found = runs.of_patient(ledger, 1)
        series = [[each for point in run.inputs.time_points for each in point.series] for run in found]
        return {sum(len(each.instances) for each in run) for run in series}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A node at work."""
    found = Site(tmp_path / "node")
    found.tick()
    yield found
    found.bench.database.close()


@pytest.mark.parametrize("moved", ["forward", "far forward", "back", "restart", "restart after days"])
def test_a_study_is_closed_only_when_it_was_quiet_for_long_enough(site: Site, studies: list[Path], moved: str) -> None:
    """Half of the images, then a jump, then the rest: one run, of all of them, one quiet period after the last."""
    half = len(studies) - 3
    site.bench.receive(*studies[:half])
    site.wait(20)
    {
        "forward": lambda: site.jump(2 * HOUR),
        "far forward": lambda: site.jump(400 * HOUR),
        "back": lambda: site.jump(-2 * HOUR),
        "restart": lambda: site.away(0.5 * HOUR),
        "restart after days": lambda: site.away(100 * HOUR),
    }[moved]()
    site.tick()
    assert site.case.state is CaseState.WAITING
    site.wait(20)
    site.bench.receive(*studies[half:])
    site.wait(50)
    assert site.case.state is CaseState.WAITING
    assert site.used == set()
    site.wait(20)
    assert site.case.run_key
    assert site.used == {len(studies)}


def test_images_that_come_before_the_jump_is_seen_are_waited_for_too(site: Site, studies: list[Path]) -> None:
    """What was noted by the new clock is not moved once more: neither closed early nor waited for for hours."""
    for seconds in (2 * HOUR, -5 * HOUR):
        site.jump(seconds)
        site.bench.receive(*studies[:2] if seconds > 0 else studies[2:])
        site.wait(50)
        assert site.case.state is CaseState.WAITING
    site.wait(20)
    assert site.used == {len(studies)}


def test_time_in_which_another_listener_was_there_counts(site: Site, studies: list[Path]) -> None:
    """Of several hosts one was away; senders reached the others, so the study has been quiet for long."""
    site.bench.receive(*studies)
    site.wait(20)
    site.jump(HOUR)
    with site.bench.database.write() as ledger:
        presence.beat(ledger, "other:node:0", site.bench.now)
    site.start()
    site.tick()
    assert site.used == {len(studies)}


def test_many_small_steps_are_one_jump(site: Site, studies: list[Path]) -> None:
    """A clock put forward by four seconds again and again comes to the same."""
    site.bench.receive(*studies)
    for _ in range(5):
        site.jump(4)
        site.wait(10)
    assert site.used == set()
    site.wait(20)
    assert site.used == {len(studies)}


def test_a_living_worker_is_not_taken_for_dead(site: Site) -> None:
    """Only real silence hands work on, and it does so although the clock was put back meanwhile."""
    with site.bench.database.write() as ledger:
        presence.beat(ledger, "worker", site.bench.now)
    site.jump(3 * HOUR)
    site.wait(60)
    assert site.engine.rescued == []
    site.jump(-3 * HOUR)
    site.wait(110)
    assert site.engine.rescued == ["worker"]


def test_a_delivery_is_neither_given_up_early_nor_forgotten(site: Site, studies: list[Path], tmp_path: Path) -> None:
    """Days that never passed do not count as tries; hours that the clock lost do not delay the next."""
    site.bench.receive(*studies)
    site.wait(70)
    with site.bench.database.write() as ledger:
        (run,) = runs.of_patient(ledger, 1)
        deliveries.create(ledger, run.run_key, ["main"], site.bench.now)
        (found,) = deliveries.of_run(ledger, run.run_key)
        again = site.bench.now + timedelta(seconds=30)
        deliveries.retry(ledger, found, error="away", now=site.bench.now, next_attempt_at=again)
    tried_for = site.bench.now
    site.jump(100 * HOUR)
    site.tick()
    with site.bench.database.read() as ledger:
        assert ledger.scalar(select(delivery.c.first_attempt_at)) == tried_for + timedelta(hours=100)
    site.jump(-200 * HOUR)
    site.tick()
    with site.bench.database.read() as ledger:
        assert len(deliveries.due(ledger, site.bench.now)) == 1


@pytest.mark.parametrize("change", ["2026-03-29T00:59:30+00:00", "2026-10-25T00:59:30+00:00"])
def test_daylight_saving_time_changes_no_wait(
    site: Site, studies: list[Path], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour that a night in spring skips, and the one that autumn repeats, are none to a quiet period."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        site.bench.now = datetime.fromisoformat(change).astimezone()
        site.start()
        site.tick()
        site.bench.receive(*studies)
        before = site.bench.now.utcoffset()
        site.wait(50)
        assert site.clock.now().utcoffset() != before
        assert site.case.state is CaseState.WAITING
        site.wait(20)
        assert site.used == {len(studies)}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_run_is_made_once_whatever_the_clock_does(site: Site, studies: list[Path]) -> None:
    """Moving the clock makes no second run and no second version."""
    site.bench.receive(*studies)
    site.wait(70)
    for seconds in (HOUR, -3 * HOUR, 30 * HOUR):
        site.jump(seconds)
        site.wait(10)
    with site.bench.database.read() as ledger:
        (run,) = runs.of_patient(ledger, 1)
    assert run.state is RunState.QUEUED


def test_a_ticker_calls_until_it_is_stopped_and_never_twice_at_a_time() -> None:
    """A call that takes longer than its interval delays the next; stopping waits for the one at work."""
    at_work, calls, overlaps = threading.Lock(), [], []

    def work() -> None:
        if not at_work.acquire(blocking=False):
            overlaps.append(1)
            return
        time.sleep(0.02)
        calls.append(datetime.now(UTC))
        at_work.release()

    ticker = Ticker()
    ticker.every(0.001, work)
    deadline = time.monotonic() + 30
    while len(calls) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    ticker.stop()
    made = len(calls)
    time.sleep(0.05)
    assert made >= 3
    assert len(calls) == made
    assert overlaps == []
