"""The work engine through its door: once per key, urgent first, repeatable, and never two under one name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from dicom_node.errors import NodeError
from dicom_node.work.engine import STAT, Engine, JobKind, JobStatus, Steps
from tests.factories.peers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Calls:
    """Steps that note what they were asked, and break for keys that say so until they are mended."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.mended = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def infer(self, key: str) -> None:
        """Wait for the gate, then note the key."""
        self.gate.wait(30)
        self.done.append(("infer", key))

    def encode(self, key: str) -> None:
        """Break for a poisoned key."""
        if key.startswith("bad") and not self.mended.is_set():
            msg = "poisoned"
            raise ValueError(msg)
        self.done.append(("encode", key))

    def deliver(self, key: str) -> None:
        """Note the key."""
        self.done.append(("deliver", key))


@pytest.fixture
def calls() -> Calls:
    """Steps without work."""
    return Calls()


@pytest.fixture
def make_engine(tmp_path: Path, calls: Calls) -> Iterator[Callable[..., Engine]]:
    """Return a maker of engines over one SQLite file."""
    url = f"sqlite:///{tmp_path / 'engine.sqlite'}"
    Engine.prepare(url)
    made: list[Engine] = []

    def make(executor_id: str = "host:worker:0") -> Engine:
        steps = Steps(infer=calls.infer, encode=calls.encode, deliver=calls.deliver)
        listen = (JobKind.RUN, JobKind.DELIVER)
        engine = Engine(url, executor_id=executor_id, listen=listen, steps=steps, locks=tmp_path / "locks")
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.stop()


def finished(engine: Engine, key: str) -> bool:
    """Say whether a job has ended."""
    return engine.status([key])[key] in {JobStatus.DONE, JobStatus.FAILED}


def test_a_job_is_done_once_however_often_it_is_submitted(make_engine: Callable[..., Engine], calls: Calls) -> None:
    """The key is the job: infer, then encode, once."""
    engine = make_engine()
    engine.start()
    assert engine.status(["k"]) == {"k": JobStatus.UNKNOWN}
    for _ in range(3):
        engine.submit(JobKind.RUN, "k")
    wait_until("the job", lambda: finished(engine, "k"))
    engine.submit(JobKind.RUN, "k")
    assert engine.status(["k"]) == {"k": JobStatus.DONE}
    assert calls.done == [("infer", "k"), ("encode", "k")]


def test_an_urgent_job_overtakes_the_waiting(make_engine: Callable[..., Engine], calls: Calls) -> None:
    """STAT first: only what is already at work goes before it."""
    engine = make_engine()
    engine.start()
    calls.gate.clear()
    engine.submit(JobKind.RUN, "first")
    wait_until("the first to be at work", lambda: engine.status(["first"])["first"] is JobStatus.WORKING)
    engine.submit(JobKind.RUN, "routine")
    engine.submit(JobKind.RUN, "urgent", priority=STAT)
    calls.gate.set()
    wait_until("all", lambda: finished(engine, "routine"))
    assert [key for step, key in calls.done if step == "infer"] == ["first", "urgent", "routine"]


def test_a_failed_job_is_done_again_from_its_first_step(make_engine: Callable[..., Engine], calls: Calls) -> None:
    """`retry` works under the same key, and the next job is not held up."""
    engine = make_engine()
    engine.start()
    engine.submit(JobKind.RUN, "bad")
    engine.submit(JobKind.RUN, "good")
    wait_until("both", lambda: finished(engine, "bad") and finished(engine, "good"))
    assert engine.status(["bad", "good"]) == {"bad": JobStatus.FAILED, "good": JobStatus.DONE}
    calls.mended.set()
    engine.retry("bad")
    wait_until("the retry", lambda: engine.status(["bad"])["bad"] is JobStatus.DONE)
    assert calls.done.count(("infer", "bad")) == 2


def test_two_processes_under_one_name_are_refused(make_engine: Callable[..., Engine]) -> None:
    """The second would do the first one's work again."""
    first, second = make_engine(), make_engine()
    first.start()
    with pytest.raises(NodeError, match="another process of this node"):
        second.start()


def test_deliveries_have_a_queue_of_their_own(make_engine: Callable[..., Engine], calls: Calls) -> None:
    """A worker that is busy inferring never blocks a delivery."""
    engine = make_engine()
    engine.start()
    calls.gate.clear()
    engine.submit(JobKind.RUN, "slow")
    engine.submit(JobKind.DELIVER, "k/main/1")
    wait_until("the delivery", lambda: finished(engine, "k/main/1"))
    assert calls.done == [("deliver", "k/main/1")]
    calls.gate.set()
