"""A report names the one before it as that one stands, whatever becomes of it while the new one is being encoded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from dicom_node.ledger import deliveries, encodings, runs, withdrawals
from dicom_node.ledger.encodings import Demographics, Encoding
from dicom_node.ledger.withdrawals import Note, Withdrawal
from dicom_node.timeline.model import RunState
from dicom_node.work.engine import JobStatus
from tests.factories.bench import Bench
from tests.factories.flair import ISSUER
from tests.unit.test_taken_back import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pydicom import Dataset

    from dicom_node.ledger.runs import OutboxObject, Run

CORRECTED = Encoding(demographics=Demographics(issuer=ISSUER, patient_id="PHANTOM-1", name="CORRECTED^NAME"))


@pytest.fixture
def jobs() -> Waiting:
    """An engine in which everything waits."""
    return Waiting()


@pytest.fixture
def bench(tmp_path: Path, studies: list[Path], jobs: Waiting) -> Iterator[Bench]:
    """A node that has issued version 1."""
    found = Bench(tmp_path / "data", jobs)
    receive(found, [path for path in studies if path.parent.name != "3"])
    make(found)
    yield found
    found.database.close()


def receive(bench: Bench, paths: Sequence[Path]) -> None:
    """Take studies in, and let their run be proposed."""
    bench.receive(*paths)
    bench.tick()
    bench.now += timedelta(minutes=5)
    bench.tick()


def newest(bench: Bench) -> Run:
    """Return the run that was proposed last."""
    with bench.database.read() as ledger:
        return runs.of_patient(ledger, 1)[-1]


def make(bench: Bench) -> Run:
    """Infer and encode the newest run."""
    bench.steps.infer(newest(bench).run_key)
    bench.steps.encode(newest(bench).run_key)
    return newest(bench)


def withdraw(bench: Bench, run_key: str) -> None:
    """Take back a report that nobody was sent."""

    def no_note(held: Sequence[OutboxObject]) -> Note:
        raise AssertionError(held)

    with bench.database.write() as ledger:
        found = runs.get(ledger, run_key)
        assert found is not None
        what = Withdrawal(title="113001", reason="", actor="admin", withdrawn_at=bench.now)
        withdrawals.enter(ledger, found, what, no_note)


def encode_while(bench: Bench, key: str, happens: Callable[[], None]) -> None:
    """Encode on a worker during whose work something happens, once it has read what the ledger says."""
    waiting = [happens]

    def clock() -> datetime:
        if waiting:
            waiting.pop()()
        return bench.now

    replace(bench.steps, clock=clock).encode(key)


def report(bench: Bench, key: str) -> Dataset:
    """Return the newest report of a run."""
    with bench.database.read() as ledger:
        (found,) = [each for each in runs.objects_of(ledger, key) if each.kind == "report"]
    return dcmread(bench.folders.outbox / found.path)


def named(bench: Bench, key: str) -> list[str]:
    """Return the SOP Instance UIDs of the reports before a run's that its own names."""
    return [
        item.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in report(bench, key).get("PredecessorDocumentsSequence", [])
    ]


def test_a_report_whose_predecessor_is_withdrawn_meanwhile_is_encoded_again(
    bench: Bench, studies: list[Path], jobs: Waiting
) -> None:
    """The withdrawal reaches neither ledger nor archive as the one before."""
    first = newest(bench).run_key
    receive(bench, [path for path in studies if path.parent.name == "3"])
    second = newest(bench).run_key
    bench.steps.infer(second)
    encode_while(bench, second, lambda: withdraw(bench, first))
    assert newest(bench).state is RunState.RUNNING
    with bench.database.read() as ledger:
        assert runs.objects_of(ledger, second) == []
    jobs.answer = JobStatus.DONE
    bench.tick()
    assert jobs.retried == [second]
    bench.steps.encode(second)
    assert (newest(bench).state, newest(bench).version, newest(bench).predecessor) == (RunState.REPORTED, 2, None)
    assert named(bench, second) == []


def test_a_report_that_is_encoded_anew_names_no_withdrawn_one(bench: Bench, studies: list[Path]) -> None:
    """Issued and sent before the withdrawal, corrected after it for an archive that has nothing yet."""
    first = newest(bench).run_key
    receive(bench, [path for path in studies if path.parent.name == "3"])
    second = make(bench).run_key
    assert len(named(bench, second)) == 1
    with bench.database.write() as ledger:
        deliveries.create(ledger, second, ["main", "second"], bench.now)
        main = deliveries.of_run(ledger, second)[0]
        deliveries.begin(ledger, main, [report(bench, second).SOPInstanceUID])
    withdraw(bench, first)
    assert newest(bench).state is RunState.REPORTED
    with bench.database.write() as ledger:
        assert encodings.renew(ledger, second, "second", CORRECTED, bench.now)
    bench.steps.encode(second)
    assert (newest(bench).state, newest(bench).encoding) == (RunState.REPORTED, 2)
    assert named(bench, second) == []


def test_a_worker_that_wakes_up_late_overwrites_nothing(bench: Bench, studies: list[Path]) -> None:
    """Another one took its job over meanwhile, and has issued other bytes."""
    first = newest(bench).run_key
    receive(bench, [path for path in studies if path.parent.name == "3"])
    second = newest(bench).run_key
    bench.steps.infer(second)

    def taken_over() -> None:
        withdraw(bench, first)
        bench.steps.encode(second)

    encode_while(bench, second, taken_over)
    assert newest(bench).state is RunState.REPORTED
    with bench.database.read() as ledger:
        objects = runs.objects_of(ledger, second)
    for each in objects:
        assert hashlib.sha256((bench.folders.outbox / each.path).read_bytes()).hexdigest() == each.sha256


def test_of_two_encodings_the_next_report_names_the_one_that_is_there(bench: Bench, studies: list[Path]) -> None:
    """Encoded anew for an archive that has nothing yet: the others hold the first."""
    first = newest(bench)
    reports = [report(bench, first.run_key).SOPInstanceUID]
    with bench.database.write() as ledger:
        deliveries.create(ledger, first.run_key, ["main", "second"], bench.now)
        main = next(each for each in deliveries.of_run(ledger, first.run_key) if each.destination == "main")
        deliveries.begin(ledger, main, reports)
        deliveries.settle(ledger, main, reports)
        deliveries.sent(ledger, main, bench.now)
        encodings.renew(ledger, first.run_key, "second", CORRECTED, bench.now)
    bench.steps.encode(first.run_key)
    assert report(bench, first.run_key).SOPInstanceUID not in reports
    receive(bench, [path for path in studies if path.parent.name == "3"])
    assert named(bench, make(bench).run_key) == reports
