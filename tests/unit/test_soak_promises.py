"""The checks after a soak see what they are for: each promise is broken on purpose on a node's data folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select, update

from dicom_node.ledger import tables
from tests.soak import promises
from tests.soak.sampling import Held, Sample
from tests.soak.site import open_ledger
from tests.soak.steady import growths

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection


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
