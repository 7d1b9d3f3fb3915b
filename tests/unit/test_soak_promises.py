"""The checks after a soak see what they are for: each promise is broken on purpose on a node's data folder."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest
from pydicom import dcmread
from sqlalchemy import delete, insert, select, update

from dicom_node.ledger import tables
from tests.soak import promises
from tests.soak.sampling import Held, Sample
from tests.soak.site import open_ledger
from tests.soak.steady import growths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.soak.site import Site


@pytest.fixture
def data(reported: Path, tmp_path: Path) -> Path:
    """A copy of the data folder of a node that reported."""
    return shutil.copytree(reported, tmp_path / "data")


@pytest.fixture
def sent(studies: list[Path]) -> dict[str, str]:
    """Every instance that was sent, with its file."""
    from tests.soak.patients import sop_instance_uid  # noqa: PLC0415 - beside what is made of it

    return {sop_instance_uid(path): str(path) for path in studies}


def found(data: Path, sent: dict[str, str]) -> dict[str, list[str]]:
    """Return what is broken."""
    database = open_ledger(data)
    try:
        with database.read() as ledger:
            return {
                "databases": promises.databases(data),
                "acknowledged": promises.acknowledged(data, ledger, sent),
                "files": promises.files_and_rows(data, ledger),
                "half": promises.half_files(data),
            }
    finally:
        database.close()


def change(data: Path, *statements: object) -> None:
    """Change rows."""
    database = open_ledger(data)
    with database.write() as ledger:
        for each in statements:
            ledger.execute(each)  # type: ignore[call-overload]
    database.close()


def an_instance(data: Path) -> Path:
    """Return one received file."""
    return next((data / "instances").glob("[0-9a-f][0-9a-f]/*.dcm"))


def test_a_sound_node_breaks_nothing(data: Path, sent: dict[str, str]) -> None:
    """What a node left that nobody killed."""
    assert not any(found(data, sent).values())


def test_a_lost_file_is_seen(data: Path, sent: dict[str, str]) -> None:
    """The row is there, the bytes are not."""
    an_instance(data).unlink()
    broken = found(data, sent)
    assert len(broken["acknowledged"]) == len(broken["files"]) == 1


def test_other_bytes_of_the_same_length_are_seen(data: Path, sent: dict[str, str]) -> None:
    """A bit that flipped in the pixels."""
    path = an_instance(data)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(found(data, sent)["acknowledged"]) == 1


def test_a_lost_row_is_seen(data: Path, sent: dict[str, str]) -> None:
    """The bytes are there, the row is not."""
    uid = next(iter(sent))
    of_uid = tables.arrival.c.sop_instance_uid == uid
    change(data, delete(tables.instance).where(tables.instance.c.sop_instance_uid == uid))
    change(data, delete(tables.arrival).where(of_uid))
    assert found(data, sent)["acknowledged"] == [f"{uid}: no row"]


def test_half_and_unknown_files_are_seen(data: Path, sent: dict[str, str]) -> None:
    """A temporary name in the outbox, an object that no row names, an instance cut short."""
    (data / "outbox" / ".x.dcm.part").touch()
    (data / "outbox" / "x.dcm").touch()
    path = an_instance(data)
    path.write_bytes(path.read_bytes()[:100])
    assert len(found(data, sent)["half"]) == 3


def test_changed_objects_and_lost_maps_are_seen(data: Path, sent: dict[str, str]) -> None:
    """The outbox has other bytes than were encoded; the maps of a result are gone."""
    change(data, update(tables.outbox_object).values(sha256="0" * 64))
    for path in (data / "results").glob("*.npz"):
        path.unlink()
    broken = found(data, sent)["files"]
    assert sum(each.startswith("outbox/") for each in broken) == objects(data)
    assert sum(each.startswith("results") for each in broken) == 1


def objects(data: Path) -> int:
    """Count what lies in the outbox."""
    return len(list((data / "outbox").glob("*.dcm")))


def test_a_case_that_is_not_reported_is_seen(data: Path) -> None:
    """A run that failed, and nobody heard."""

    def issued(ledger: Connection) -> list[str]:
        (run_key,) = ledger.scalars(select(tables.run.c.run_key))
        return [each for each in promises.reports_issued(ledger, ()) if run_key[:12] in each]

    database = open_ledger(data)
    with database.read() as ledger:
        assert issued(ledger) == []
    change(data, update(tables.run).values(state="failed", error="because"))
    with database.read() as ledger:
        assert issued(ledger)[0].endswith("failed: because")
    database.close()


@dataclass
class OneArchive:
    """A site whose only archive holds a run's report and images, as a node left it that was never killed."""

    folder: Path
    data: Path
    archives: tuple[str, ...] = ("main",)

    def __post_init__(self) -> None:
        """Have what the outbox holds in the archive, the report in one SOP class, and a receipt for it."""
        self.archive_folder("main").mkdir()
        with self.ledger() as ledger:
            objects = ledger.execute(select(tables.outbox_object)).all()
            (key,) = {each.run_key for each in objects}
            reports = [each for each in objects if each.kind.startswith(promises.REPORT)]
            self.sent = [each for each in objects if each not in reports[1:]]
            for each in self.sent:
                shutil.copy(self.data / "outbox" / each.path, self.held(each.sop_instance_uid))
            ledger.execute(delete(tables.delivery))
            self.row = {"run_key": key, "destination": "main"}
            now = datetime(2026, 1, 1, tzinfo=UTC)
            ledger.execute(insert(tables.delivery).values(**self.row, state="sent", attempts=1, next_attempt_at=now))
            for each in self.sent:
                ledger.execute(insert(tables.handed_over).values(**self.row, sop_instance_uid=each.sop_instance_uid))

    @contextmanager
    def ledger(self) -> Iterator[Connection]:
        """Give a transaction."""
        database = open_ledger(self.data)
        with database.write() as ledger:
            yield ledger
        database.close()

    def archive_folder(self, name: str) -> Path:
        """Return where an archive keeps what it took."""
        return self.folder / f"archive-{name}"

    def held(self, uid: str) -> Path:
        """Return where the archive has an object."""
        return self.archive_folder("main") / f"{uid}.dcm"

    def broken(self) -> dict[str, list[str]]:
        """Return what is broken at the archive."""
        site = cast("Site", self)
        with self.ledger() as ledger:
            return {
                "one UID": promises.one_uid(site, ledger),
                "same bytes": promises.same_bytes(site, ledger),
                "arrived": promises.reports_arrived(site, ledger),
            }


@pytest.fixture
def site(data: Path, tmp_path: Path) -> OneArchive:
    """A site that keeps every promise."""
    return OneArchive(tmp_path, data)


def test_an_archive_that_holds_what_was_sent_breaks_nothing(site: OneArchive) -> None:
    """Three objects, as the outbox has them."""
    assert not any(site.broken().values())


def test_a_run_under_a_second_uid_is_seen(site: OneArchive) -> None:
    """The archive has its report twice, the second time under a UID that no row knows."""
    report = next(each for each in site.sent if each.kind.startswith(promises.REPORT))
    ds = dcmread(site.held(report.sop_instance_uid))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
    ds.save_as(site.held("2.25.4711"))
    found = site.broken()["one UID"]
    assert "2.25.4711 is in no row" in found[0]
    assert found[1].endswith("has 2 SR")


def test_other_bytes_under_the_same_uid_are_seen(site: OneArchive) -> None:
    """What the archive got is not what lies in the outbox."""
    path = site.held(site.sent[0].sop_instance_uid)
    ds = dcmread(path)
    ds.SeriesDescription = "ANOTHER"
    ds.save_as(path)
    assert site.broken()["same bytes"][0].endswith("is not what lies in the outbox")


def test_a_report_that_did_not_arrive_is_seen(site: OneArchive) -> None:
    """Whatever the receipt says; and a run without a delivery."""
    site.held(site.sent[0].sop_instance_uid).unlink()
    assert site.broken()["arrived"][0].endswith("main holds 2 of 3 objects")
    with site.ledger() as ledger:
        ledger.execute(delete(tables.delivery))
    assert site.broken()["arrived"][0].endswith("no delivery to main")


def samples(*, leak_mb: float = 0.0, handles: int = 0, restarts: bool = False) -> list[Sample]:
    """An hour of looks at a node that holds this much more at its end."""
    return [
        Sample(
            at_s=60.0 * minute,
            processes={
                "node": Held(
                    pid=1 + (restarts and minute > 40),
                    memory_mb=150 + 5 * (minute % 3) + leak_mb * minute / 60,
                    handles=40 + handles * minute // 60 + (minute % 2),
                    threads=20,
                )
            },
            sizes_mb={"ledger.sqlite": 1 + 0.1 * minute, "ledger.sqlite-wal": 4.0},
            instances=100 * minute,
            encoded=minute,
        )
        for minute in range(60)
    ]


def growing(found: list[Sample]) -> list[str]:
    """Return what grows."""
    return [each["what"] for each in growths(found) if each["grows"]]


def test_a_node_that_breathes_is_flat_and_one_that_leaks_is_not() -> None:
    """Peaks do not count, slopes do; so does a process that was replaced."""
    assert growing(samples()) == []
    assert growing(samples(leak_mb=60)) == ["node memory_mb"]
    assert growing(samples(handles=20)) == ["node handles"]
    assert growing(samples(restarts=True)) == ["node processes"]
