"""A run that crashes, hangs or eats memory is parked after three tries, with the reason; the next patient is served."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from dicom_node.ledger import runs
from dicom_node.ledger.tables import patient
from dicom_node.timeline.model import RunState
from dicom_node.work.engine import ROUTINE, Engine, JobKind, Steps
from dicom_node.work.limits import WorkMark, count_death
from tests.factories.ledger import NOW, a_proposal
from tests.factories.peers import wait_until
from tests.factories.poisoned import databases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.ledger.database import Database

REASONS = {
    "crashes": "took its worker down 3 times; the last time it died of SIGSEGV",
    "hangs": "took its worker down 3 times; the last time it did not end within 0.05 minutes",
    "hoards": "took its worker down 3 times; the last time it used ",
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Database]:
    """A ledger in which each task has a patient and a run of its own."""
    database, engine_url = databases(tmp_path)
    database.migrate()
    Engine.prepare(engine_url)
    with database.write() as connection:
        for number, task in enumerate([*REASONS, "harmless"], start=1):
            values = {"issuer": "HOSPITAL", "patient_id": task, "revision": 0, "decided_revision": 0}
            connection.execute(insert(patient).values(id=number, **values))
            runs.propose(connection, a_run(task, number), NOW)
    yield database
    database.close()


@pytest.mark.parametrize("task", REASONS)
def test_it_is_parked_with_its_reason_and_the_next_patient_is_served(
    ledger: Database, tmp_path: Path, task: str
) -> None:
    """Three tries, one worker after the other, and the harmless run behind it is done."""
    _, engine_url = databases(tmp_path)
    steps = Steps(infer=lambda _key: None, encode=lambda _key: None)
    engine = Engine(engine_url, executor_id="poisoned:node:0", listen=(), steps=steps, locks=tmp_path)
    engine.start()
    for number, each in enumerate([task, "harmless"]):
        engine.submit(JobKind.RUN, key_of(each), priority=ROUTINE + number)
    seconds = "3" if task == "hangs" else "300"
    command = [sys.executable, "-m", "tests.factories.poisoned", "supervisor", str(tmp_path), seconds]
    supervisor = subprocess.Popen(command)
    try:
        wait_until("the harmless run", lambda: state(ledger, "harmless") is RunState.REPORTED, timeout_s=400)
    finally:
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(timeout=120) == 0
        engine.stop()
    with ledger.read() as connection:
        found = runs.get(connection, key_of(task))
    assert found is not None
    assert found.state is RunState.FAILED
    assert (found.error or "").startswith(REASONS[task])
    assert (tmp_path / f"{task}.begun").read_text() == "xxx"
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "process.exited" for line in lines) == 3
    assert not (tmp_path / "worker.run").exists()


def test_a_death_that_took_the_supervisor_along_is_not_the_runs_fault(ledger: Database, tmp_path: Path) -> None:
    """A power failure counts for nothing, however often it comes."""
    mark = WorkMark(tmp_path / "worker.run")
    for _ in range(5):
        mark.path.write_text(key_of("harmless"))
        assert count_death(ledger, mark, None) is None
    assert state(ledger, "harmless") is RunState.QUEUED


def state(ledger: Database, task: str) -> RunState | None:
    """Return where a run stands."""
    with ledger.read() as connection:
        found = runs.get(connection, key_of(task))
    return None if found is None else found.state


def key_of(task: str) -> str:
    """Return the key of a task's run."""
    return f"{task.encode().hex():0<64}"


def a_run(task: str, patient_row: int) -> runs.Proposal:
    """Return a run of no inputs."""
    return replace(a_proposal(key_of(task), patient_row=patient_row), task=task, inputs_key=task)
