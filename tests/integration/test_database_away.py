"""A database that is locked, or a server that is restarted: senders are told, and all goes on by itself afterwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import AE
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from dicom_node.backup.make import make_backup
from dicom_node.backup.restore import restore
from dicom_node.backup.verify import verify
from dicom_node.demo_pacs import free_port
from dicom_node.ledger import database, runs
from dicom_node.ledger.tables import ArrivalState, arrival
from dicom_node.observe.logs import open_log
from dicom_node.receive import statuses
from dicom_node.receive.listener import Listener
from dicom_node.settings import Logging
from dicom_node.timeline.model import RunState
from dicom_node.work.engine import Engine, JobKind, JobStatus, Steps
from tests.factories.bench import NOW, Bench
from tests.factories.mr import classic_series
from tests.factories.peers import wait_until
from tests.factories.postgresql import Cluster, a_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from dicom_node.settings import Settings


cluster = pytest.fixture(a_cluster)


@pytest.fixture(scope="module")
def images() -> list[Dataset]:
    """A small MR series."""
    return classic_series(np.zeros((6, 8, 8), dtype=np.uint16), np.diag([1.0, 1.0, 3.0, 1.0]))


class Served:
    """A bench with a listener in front."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.bench = Bench(folder, database_url=url)
        node = self.bench.settings.node.model_copy(update={"port": free_port()})
        receive = self.bench.settings.receive.model_copy(update={"min_free_disk_gb": 0})
        self.settings: Settings = self.bench.settings.model_copy(update={"node": node, "receive": receive})
        log = open_log(Logging(level="error", format="json"), b"key")
        self.listener = Listener(self.settings, self.bench.database, self.bench.instances, log)
        self.listener.start()

    def store(self, image: Dataset) -> int:
        """Send one image; return the answer."""
        ae = AE(ae_title="SCANNER")
        ae.dimse_timeout = ae.acse_timeout = ae.network_timeout = 300  # a busy machine is no fault of the node
        ae.add_requested_context(MRImageStorage)
        association = ae.associate("127.0.0.1", self.settings.node.port, ae_title="NODE")
        answer = int(association.send_c_store(image).Status)
        association.release()
        return answer

    def stored(self) -> tuple[int, int]:
        """Return how many rows there are, and how many files."""
        with self.bench.database.read() as ledger:
            rows = ledger.scalar(select(func.count()).select_from(arrival)) or 0
        return rows, len(list(self.bench.instances.folder.glob("??/*.dcm")))

    def close(self) -> None:
        """Stop."""
        self.listener.stop()
        self.bench.database.close()


def test_a_locked_database_is_waited_for_and_then_refused(
    tmp_path: Path, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of resources, no file left behind, and success over the same listener when the lock is gone."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 500)
    node = Served(tmp_path / "node")
    with closing(sqlite3.connect(tmp_path / "node" / "ledger.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert node.store(images[0]) == statuses.OUT_OF_RESOURCES
        with pytest.raises(OperationalError):
            node.bench.tick()
        other.execute("ROLLBACK")
    assert node.store(images[0]) == statuses.SUCCESS
    node.bench.tick()
    assert node.stored() == (1, 1)
    node.close()


@pytest.mark.peer
def test_a_server_that_is_restarted_is_found_again_by_everything(
    cluster: Cluster, tmp_path: Path, images: list[Dataset], studies: list[Path]
) -> None:
    """Listener, tick and engine go on with the connections and threads that they had."""
    url = cluster.new_database()
    node = Served(tmp_path / "node", url)
    done: list[str] = []
    Engine.prepare(url)
    steps = Steps(deliver=done.append)
    engine = Engine(url, executor_id="test:node:0", listen=(JobKind.DELIVER,), steps=steps, locks=tmp_path)
    engine.start()
    try:
        assert node.store(images[0]) == statuses.SUCCESS
        node.bench.tick()
        for number in (1, 2):
            cluster.halt()
            assert node.store(images[number]) == statuses.OUT_OF_RESOURCES
            with pytest.raises(OperationalError):
                node.bench.tick()
            cluster.resume()
            assert node.store(images[number]) == statuses.SUCCESS
            node.bench.tick()
            key = f"{'0' * 64}/main/{number}"
            engine.submit(JobKind.DELIVER, key)
            wait_until("the job to be done", lambda key=key: engine.status([key])[key] is JobStatus.DONE, timeout_s=120)
        assert len(done) == 2
        assert node.stored() == (3, 3)
    finally:
        engine.stop()
    with node.bench.database.write() as ledger:
        ledger.execute(arrival.update().values(state=ArrivalState.SET_ASIDE, reason="of another patient"))
    node.bench.receive(*studies)
    node.bench.now = NOW + timedelta(minutes=5)
    for _ in range(3):
        node.bench.tick()
    with node.bench.database.read() as ledger:
        states = {each.state for each in runs.of_patient(ledger, 1)}
    assert states == {RunState.REPORTED}
    node.close()


@pytest.mark.peer
@pytest.mark.parametrize("into", ["postgresql", "sqlite"])
def test_a_ledger_on_a_server_is_backed_up_and_restored_into_either_kind(
    cluster: Cluster, tmp_path: Path, studies: list[Path], into: str
) -> None:
    """Every row and every file; what goes on there is numbered after what was restored."""
    bench = Bench(tmp_path / "node", database_url=cluster.new_database())
    bench.receive(*studies)
    bench.now = NOW + timedelta(minutes=5)
    for _ in range(3):
        bench.tick()
    sheet = make_backup(bench.settings, tmp_path / "backup", NOW)
    assert sheet.rows["arrival"] == len(studies)
    assert verify(tmp_path / "backup") == []
    url = cluster.new_database() if into == "postgresql" else None
    again = settings_at(bench.settings, tmp_path / "again", url)
    restore(tmp_path / "backup", again, NOW, actor="admin")
    restored = Bench(tmp_path / "again", database_url=url, cohort_known=False)
    restored.receive(studies[0])
    restored.now = NOW + timedelta(days=1)
    restored.tick()
    assert restored.outcome() == bench.outcome()
    for each in (bench, restored):
        each.database.close()


def settings_at(settings: Settings, data: Path, url: str | None) -> Settings:
    """Return a configuration with another data folder and ledger."""
    return settings.model_copy(
        update={
            "node": settings.node.model_copy(update={"data_dir": data}),
            "database": settings.database.model_copy(update={"url": url}),
        }
    )
