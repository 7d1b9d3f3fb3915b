"""What is read together is entered together; one that cannot be entered costs only itself; reception goes first."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dicom_node.ledger import arrivals
from dicom_node.ledger.database import Database
from dicom_node.observe.logs import open_log
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.intake import Intake, Origin
from dicom_node.receive.lull import Lull
from dicom_node.receive.reader import Reader
from dicom_node.settings import Logging
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.tables import ArrivalState
    from dicom_node.timeline.model import InstanceFacts

COUNT = 5


class Received:
    """A node that took in a series and read none of it."""

    def __init__(self, folder: Path, reader: Reader) -> None:
        self.database = Database(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.database.migrate()
        files = InstanceFiles(folder / "instances")
        files.prepare()
        self.lull = Lull()
        self.log = StringIO()
        log = open_log(Logging(level="debug", format="json"), b"key", self.log)
        self.indexer = Indexer(self.database, files, reader, log, lull=self.lull)
        origin = Origin(name="SCANNER1", default_issuer="HOSPITAL")
        intake = Intake(self.database, files, origin, lambda: datetime.now(UTC))
        series = classic_series(np.ones((COUNT, 8, 8), dtype=np.uint16), np.eye(4))
        self.uids = [intake.take(path.read_bytes()) for path in write(series, folder / "series")]

    def states(self) -> dict[str, int]:
        """Return how many files are in each state."""
        with self.database.read() as ledger:
            return arrivals.counts_by_state(ledger)


@pytest.fixture
def received(tmp_path: Path) -> Iterator[Received]:
    """Five files of one series."""
    with Reader() as reader:
        found = Received(tmp_path, reader)
        yield found
        found.database.close()


def test_a_series_is_entered_in_one_transaction(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write for all of it, and a line in the log for each only when it is committed."""
    writes: list[str] = []
    write_once = Database.write
    monkeypatch.setattr(Database, "write", lambda self: writes.append("write") or write_once(self))
    assert received.indexer.run_once() == COUNT
    assert writes == ["write"]
    assert received.states() == {"indexed": COUNT}
    assert received.log.getvalue().count("instance.indexed") == COUNT


def test_one_that_cannot_be_entered_costs_only_itself(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are entered at once; it is tried three times and then set aside with the reason."""
    index = arrivals.index

    def index_but_one(connection: Connection, arrival_id: int, facts: InstanceFacts) -> ArrivalState:
        if facts.sop_instance_uid == received.uids[2]:
            raise ArithmeticError
        return index(connection, arrival_id, facts)

    monkeypatch.setattr(arrivals, "index", index_but_one)
    assert received.indexer.run_once() == COUNT
    assert received.states() == {"indexed": COUNT - 1, "received": 1}
    while received.indexer.run_once():
        pass
    assert received.states() == {"indexed": COUNT - 1, "set-aside": 1}
    with received.database.read() as ledger:
        (told,) = arrivals.set_aside_reasons(ledger)
    assert told["reason"] == "cannot be entered: ArithmeticError"


def test_nothing_is_read_while_files_come_in(received: Received) -> None:
    """Whoever sends gets the disk, the ledger and the interpreter."""
    received.lull.came()
    assert received.indexer.run_once() == 0
    assert received.states() == {"received": COUNT}
