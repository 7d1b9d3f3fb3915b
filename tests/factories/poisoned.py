"""A node of processes whose runs crash, hang or eat memory: `python -m tests.factories.poisoned ROLE FOLDER SECONDS`.

The real supervisor, engine, ledger and limits; only what a run does is ours. A run's task says what that is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from dicom_node.ledger import runs
from dicom_node.ledger.database import Database
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging
from dicom_node.supervisor import Child, Supervisor, stop_with_supervisor
from dicom_node.timeline.model import RunState
from dicom_node.work.engine import Engine, JobKind, Steps
from dicom_node.work.limits import CAUSE_VARIABLE, Limits, WorkMark, count_death

MEMORY_BYTES: Final = 6e8


def databases(folder: Path) -> tuple[Database, str]:
    """Return the ledger, and the URL of the engine's database."""
    return Database(f"sqlite:///{folder / 'ledger.sqlite'}"), f"sqlite:///{folder / 'engine.sqlite'}"


def supervise(folder: Path, limits: Limits) -> int:
    """Keep one worker alive."""
    command = [sys.executable, "-m", "tests.factories.poisoned", "worker", str(folder), str(limits.seconds)]
    log = open_log(Logging(level="info", format="json"), b"key", (folder / "log.jsonl").open("a"))
    return Supervisor([Child("worker", command, limits)], log).run()


def work(folder: Path, limits: Limits) -> None:
    """Be the worker, as `dicom_node.app` puts one together."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop_with_supervisor(stop.set)
    ledger, engine_url = databases(folder)
    mark = WorkMark(folder / "worker.run")
    count_death(ledger, mark, os.environ.get(CAUSE_VARIABLE))
    step = mark.limited(lambda key: run(ledger, folder, key), limits)
    engine = Engine(
        engine_url,
        executor_id="poisoned:worker:0",
        listen=(JobKind.RUN,),
        steps=Steps(infer=step, encode=lambda _key: None),
        locks=folder,
    )
    engine.start()
    stop.wait()
    engine.stop()
    mark.clear()


def run(ledger: Database, folder: Path, key: str) -> None:
    """Do what the run's task says, unless it was parked; note every begin."""
    with ledger.write() as connection:
        found = runs.get(connection, key)
        assert found is not None
        if found.state not in runs.OPEN_STATES:
            return
        runs.set_state(connection, key, RunState.RUNNING)
    with (folder / f"{found.task}.begun").open("a") as file:
        file.write("x")
    if found.task == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    while found.task == "hangs":
        time.sleep(0.01)
    hoard: list[bytes] = []
    while found.task == "hoards":
        hoard += [b"x" * 100_000_000] if len(hoard) < 15 else []
        time.sleep(0.02)
    with ledger.write() as connection:
        runs.set_state(connection, key, RunState.REPORTED)


if __name__ == "__main__":
    {"supervisor": supervise, "worker": work}[sys.argv[1]](
        Path(sys.argv[2]), Limits(seconds=float(sys.argv[3]), memory_bytes=MEMORY_BYTES)
    )
