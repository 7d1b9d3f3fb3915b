"""A file that breaks the reader costs itself: what came with it and after it is read first; no clock waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import select

from dicom_node.ledger import arrivals
from dicom_node.ledger.tables import ArrivalState, arrival
from dicom_node.observe import overview
from dicom_node.observe.logs import open_log
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.reader import Reader, Unread
from dicom_node.settings import Logging
from dicom_node.timeline.model import InstanceFacts
from tests.factories.bench import Bench
from tests.factories.flair import flair_studies
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A node that received three files and read none of them; opening the first never ends."""
    found = Bench(tmp_path / "node")
    found.receive(*flair_studies(tmp_path / "studies")[:3])
    with found.database.write() as ledger:
        first = found.instances.path(ledger.scalar(select(arrival.c.path).where(arrival.c.id == 1)) or "")
        ledger.exec_driver_sql("DELETE FROM instance")
        ledger.execute(arrival.update().values(state=ArrivalState.RECEIVED, patient=None, study_instance_uid=None))
    first.unlink()
    os.mkfifo(first)
    yield found
    found.database.close()


def test_the_others_are_read_first_and_it_is_set_aside_after_three_tries(bench: Bench) -> None:
    """With the reason, which everybody can see."""
    log = open_log(Logging(level="error", format="json"), b"key")
    with bench.database.read() as ledger:
        good = bench.instances.path(ledger.scalar(select(arrival.c.path).where(arrival.c.id == 2)) or "")
    begun = time.monotonic()
    with Reader() as reader:
        assert isinstance(reader.read(good, "HOSPITAL"), InstanceFacts)
    timeout_s = 2 + 4 * (time.monotonic() - begun)  # however busy this machine is
    with Reader(timeout_s=timeout_s) as reader:
        indexer = Indexer(bench.database, bench.instances, reader, log)
        indexer.run_once()
        with bench.database.read() as ledger:
            assert [each.tries for each in arrivals.pending(ledger, 9)] == [0, 0, 1]
        indexer.run_once()
        with bench.database.read() as ledger:
            assert arrivals.counts_by_state(ledger) == {"indexed": 2, "received": 1}
            assert arrivals.oldest_pending(ledger) is None
        assert indexer.run_once() == 1
        assert indexer.run_once() == 0
    with bench.database.read() as ledger:
        (told,) = overview.status(ledger)["set_aside"]
    assert (told["state"], told["count"]) == ("set-aside", 1)
    assert "the reader died or took over" in str(told["reason"])


def test_a_limit_of_the_system_below_ours_is_kept_to(tmp_path: Path) -> None:
    """A reader that may not have what the configuration allows reads with what there is."""
    path = write(classic_series(np.ones((1, 8, 8), dtype=np.uint16), np.eye(4)), tmp_path / "series")[0]
    program = (
        "import resource, sys; from pathlib import Path; from dicom_node.receive.reader import Reader\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "with Reader(memory_bytes=8 << 30) as reader: print(type(reader.read(Path(sys.argv[1]), 'HOSPITAL')).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "InstanceFacts"


def test_an_address_space_too_small_for_a_file_is_a_reason(tmp_path: Path) -> None:
    """The limit holds for the process that reads, and the next file gets a new one."""
    path = write(classic_series(np.zeros((2, 2048, 2048), dtype=np.uint16), np.eye(4)), tmp_path / "series")[0]
    with Reader(memory_bytes=30e6) as reader:
        answers = [reader.read(path, "HOSPITAL") for _ in range(2)]
    assert all(isinstance(each, Unread) for each in answers)
    with Reader() as reader:
        assert isinstance(reader.read(path, "HOSPITAL"), InstanceFacts)
