"""A disk that is full, read-only or slow: the sender is told, nothing half is left, and no restart is needed."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from dicom_node.backup.make import make_backup
from dicom_node.demo_pacs import free_port
from dicom_node.ledger import runs
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import arrival
from dicom_node.observe.logs import open_log
from dicom_node.receive import statuses
from dicom_node.receive.files import InstanceFiles, write_durably
from dicom_node.receive.listener import Listener
from dicom_node.receive.stock import compare
from dicom_node.settings import Logging, Settings
from dicom_node.work.engine import Engine, JobKind, JobStatus, Steps
from dicom_node.work.patience import patiently
from tests.factories.bench import NOW, Bench
from tests.factories.mr import classic_series
from tests.factories.peers import wait_until
from tests.factories.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom import Dataset
    from pynetdicom.association import Association

SIDE = 256  # pixels: an image of 128 KiB


class Idle:
    """An engine that leaves everything to the test."""

    def submit(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def status(self, keys: Any) -> dict[str, JobStatus]:
        """Say that all is waiting."""
        return dict.fromkeys(keys, JobStatus.WAITING)

    def rescue(self, executor_id: str) -> list[str]:
        """Nobody dies here."""
        return []

    def retry(self, key: str) -> None:
        """Do nothing."""


class Door:
    """A listener in this process, each of its parts on a disk of the test's choice."""

    def __init__(self, data: Path, *, ledger: Path | None = None, log: Path | None = None, **receive: Any) -> None:
        data.mkdir(exist_ok=True)
        self.settings = Settings.model_validate(
            {
                "node": {"ae_title": "NODE", "port": free_port(), "data_dir": data},
                "database": {"url": f"sqlite:///{(ledger or data) / 'ledger.sqlite'}"},
                "receive": {"allow_unknown_peers": True, "min_free_disk_gb": 0, "idle_timeout_s": 300} | receive,
                "tasks": ["glioma-recurrence"],
            }
        )
        self.outbox = data / "outbox"
        self.outbox.mkdir(exist_ok=True)
        self.log = (log or data.parent).joinpath("log.jsonl").open("w", encoding="utf-8")
        self.database = Database(self.settings.ledger_url)
        self.database.migrate()
        self.files = InstanceFiles(data / "instances")
        self.files.prepare()
        written = open_log(Logging(format="json"), b"key", self.log)
        self.listener = Listener(self.settings, self.database, self.files, written)
        self.listener.start()

    def close(self) -> None:
        """Stop listening and give everything back."""
        self.listener.stop()
        self.database.close()
        with contextlib.suppress(OSError):  # on a full disk
            self.log.close()

    def call(self) -> Association:
        """Ask for an association."""
        ae = AE(ae_title="SCANNER")
        ae.dimse_timeout = ae.acse_timeout = ae.network_timeout = 300  # a busy machine is no fault of the node
        ae.add_requested_context(Verification)
        ae.add_requested_context(MRImageStorage)
        return ae.associate("127.0.0.1", self.settings.node.port, ae_title="NODE")

    def store(self, *images: Dataset) -> list[int]:
        """Send images over one association; return the answers."""
        association = self.call()
        answers = [int(association.send_c_store(each).Status) for each in images]
        association.release()
        return answers

    def held(self) -> set[str]:
        """Return what the ledger promises, after making sure that files and rows agree in every way."""
        found = compare(self.database, self.files, self.outbox)
        assert found.lost == ()
        with self.database.read() as ledger:
            rows = {row.path: row.sop_instance_uid for row in ledger.execute(select(arrival))}
        on_disk = {path.relative_to(self.files.folder).as_posix() for path in self.files.folder.glob("??/*")}
        assert on_disk == set(rows)
        assert list((self.files.folder / "incoming").iterdir()) == []
        return set(rows.values())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 16 MB."""
    found = SmallDisk(tmp_path / "disk")
    found.mount(16)
    yield found
    found.unmount()


@pytest.fixture
def door(tmp_path: Path, disk: SmallDisk) -> Iterator[Callable[..., Door]]:
    """Make listeners; every one is stopped before the disk goes."""
    made: list[Door] = []

    def make(data: Path, **options: Any) -> Door:
        made.append(Door(data, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def images() -> list[Dataset]:
    """A series of some megabytes."""
    noise = np.random.default_rng(7).integers(0, 4000, (40, SIDE, SIDE), dtype=np.uint16)
    return classic_series(noise, np.diag([1.0, 1.0, 3.0, 1.0]))


def test_what_does_not_fit_is_refused_and_taken_once_there_is_room(
    disk: SmallDisk, door: Callable[..., Door], images: list[Dataset]
) -> None:
    """Images are sent until the disk is full, and again when it is not: every success is whole, nothing is half."""
    node = door(disk.folder / "data")
    disk.fill(leave_kb=2000)
    answers = node.store(*images)
    assert set(answers) == {statuses.SUCCESS, statuses.OUT_OF_RESOURCES}
    taken = {str(ds.SOPInstanceUID) for ds, answer in zip(images, answers, strict=True) if answer == statuses.SUCCESS}
    assert taken <= node.held()
    disk.free()
    refused = [ds for ds, answer in zip(images, answers, strict=True) if answer != statuses.SUCCESS]
    assert set(node.store(*refused)) == {statuses.SUCCESS}
    assert node.held() == {str(ds.SOPInstanceUID) for ds in images}


def test_one_association_lives_through_a_full_disk(
    disk: SmallDisk, door: Callable[..., Door], images: list[Dataset]
) -> None:
    """The refusal is an answer, not an end: the same sender goes on over the same association."""
    node = door(disk.folder / "data")
    association = node.call()
    assert association.send_c_store(images[0]).Status == statuses.SUCCESS
    disk.fill()
    assert association.send_c_store(images[1]).Status == statuses.OUT_OF_RESOURCES
    assert association.send_c_echo().Status == statuses.SUCCESS
    disk.free()
    assert association.send_c_store(images[1]).Status == statuses.SUCCESS
    association.release()
    assert len(node.held()) == 2


def test_a_full_disk_under_the_ledger_alone_leaves_no_file(
    disk: SmallDisk, door: Callable[..., Door], images: list[Dataset], tmp_path: Path
) -> None:
    """Bytes whose row cannot be committed are not kept, and were not promised."""
    node = door(tmp_path / "data", ledger=disk.folder)
    assert node.store(images[0]) == [statuses.SUCCESS]
    disk.fill()
    answers = node.store(*images[1:4] * 20)  # SQLite has a page or two of room in files it made before
    assert answers[-1] == statuses.OUT_OF_RESOURCES
    disk.free()
    assert node.store(images[5]) == [statuses.SUCCESS]
    assert str(images[5].SOPInstanceUID) in node.held()


def test_a_read_only_disk_refuses_and_recovers(
    disk: SmallDisk, door: Callable[..., Door], images: list[Dataset], tmp_path: Path
) -> None:
    """As a kernel makes one that has errors: the sender keeps what it has until somebody mended it."""
    node = door(disk.folder / "data", ledger=tmp_path, log=tmp_path)  # whoever writes keeps it writable
    assert node.store(images[0]) == [statuses.SUCCESS]
    disk.make(read_only=True)
    assert node.store(images[1]) == [statuses.OUT_OF_RESOURCES]
    disk.make(read_only=False)
    assert node.store(images[1]) == [statuses.SUCCESS]
    assert len(node.held()) == 2


def test_below_the_watermark_nobody_is_let_in_and_above_it_everybody(
    disk: SmallDisk, door: Callable[..., Door], images: list[Dataset]
) -> None:
    """The watermark keeps room for what is under way; no restart is needed once there is room."""
    node = door(disk.folder / "data", min_free_disk_gb=0.006)
    assert node.store(images[0]) == [statuses.SUCCESS]
    disk.fill(leave_kb=3000)
    assert node.call().is_rejected
    disk.free()
    assert node.store(images[1]) == [statuses.SUCCESS]


def test_a_full_disk_under_the_log_stops_nothing(
    disk: SmallDisk, door: Callable[..., Door], images: list[Dataset], tmp_path: Path
) -> None:
    """What cannot be logged is stored all the same."""
    node = door(tmp_path / "data", log=disk.folder)
    disk.fill()
    assert node.store(*images[:3]) == [statuses.SUCCESS] * 3
    assert len(node.held()) == 3


def test_a_slow_disk_delays_answers_and_nobody_else(
    door: Callable[..., Door], images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one sender waits for the disk, another is answered."""
    node = door(tmp_path / "data")
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(0.3)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    association = node.call()
    begun = time.monotonic()
    assert association.send_c_store(images[0]).Status == statuses.SUCCESS
    assert time.monotonic() - begun >= 0.3
    other = node.call()
    assert other.send_c_echo().Status == statuses.SUCCESS
    association.release()
    other.release()
    assert len(node.held()) == 1


def test_a_report_that_does_not_fit_leaves_no_part_of_it(disk: SmallDisk) -> None:
    """The outbox holds whole objects under their names, or nothing."""
    disk.fill(leave_kb=100)
    with pytest.raises(OSError, match="No space left"):
        write_durably(disk.folder / "report.dcm", (bytes(1 << 20),))
    assert [path.name for path in disk.folder.iterdir()] == ["filler"]


def test_a_report_is_made_once_there_is_room_for_it(disk: SmallDisk, studies: list[Path]) -> None:
    """Ledger, results and outbox on a full disk: the run waits, is done when there is room, and nobody had to ask."""
    bench = Bench(disk.folder / "node", Idle())
    bench.receive(*studies)
    bench.now = NOW + timedelta(minutes=5)
    bench.tick()
    with bench.database.read() as ledger:
        (run,) = runs.of_patient(ledger, 1)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            disk.free()

    log = open_log(Logging(level="error", format="json"), b"key")
    disk.fill()
    for step in (bench.steps.infer, bench.steps.encode):
        patiently(step, log, wait=wait)(run.run_key)
    assert waited == [1, 2, 4]
    assert all(bench.outcome()[2])
    assert not list(bench.folders.outbox.glob(".*"))
    bench.database.close()


def test_jobs_that_the_engine_could_not_note_the_end_of_are_done_again(disk: SmallDisk, tmp_path: Path) -> None:
    """Its own database is on the full disk: what stands as being worked on, and is not, is taken up again."""
    url = f"sqlite:///{disk.folder / 'engine.sqlite'}"
    begun: list[str] = []

    def deliver(key: str) -> None:
        begun.append(key)
        if len(begun) == 1:
            disk.fill()

    Engine.prepare(url)
    engine = Engine(
        url, executor_id="test:node:0", listen=(JobKind.DELIVER,), steps=Steps(deliver=deliver), locks=tmp_path
    )
    engine.start()
    keys = [f"{number:064x}/main/1" for number in range(12)]
    for key in keys:
        with contextlib.suppress(OperationalError):  # it may be full by now
            engine.submit(JobKind.DELIVER, key)
    wait_until("the disk to be full", lambda: begun, timeout_s=60)
    time.sleep(3)
    disk.free()

    def all_done() -> bool:
        engine.take_up_stranded()
        statuses_now = engine.status(keys)
        for key in keys:
            if statuses_now[key] is JobStatus.FAILED:
                engine.retry(key)  # as the tick does
            elif statuses_now[key] is JobStatus.UNKNOWN:
                engine.submit(JobKind.DELIVER, key)
        return set(statuses_now.values()) == {JobStatus.DONE}

    try:
        wait_until("all jobs to be done", all_done, timeout_s=300, every_s=2)
    finally:
        engine.stop()
    assert set(begun) == set(keys)


def test_what_is_wrong_with_a_run_is_not_waited_for() -> None:
    """Patience is for the ground under a run, not for its inputs."""

    def broken(_key: str) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    log = open_log(Logging(level="error", format="json"), b"key")
    with pytest.raises(FileNotFoundError):
        patiently(broken, log, wait=pytest.fail)("run")


def test_a_backup_that_does_not_fit_is_not_there(
    disk: SmallDisk, door: Callable[..., Door], images: list[Dataset], tmp_path: Path
) -> None:
    """Under no name: half a backup cannot be taken for a whole one; with room the next is made."""
    node = door(tmp_path / "data")
    assert set(node.store(*images[:20])) == {statuses.SUCCESS}
    disk.fill(leave_kb=1000)
    now = datetime.now(UTC)
    with pytest.raises(OSError, match="No space left"):
        make_backup(node.settings, disk.folder / "backup", now)
    assert [path.name for path in disk.folder.iterdir()] == ["filler"]
    disk.free()
    assert make_backup(node.settings, disk.folder / "backup", now).rows["arrival"] == 20
