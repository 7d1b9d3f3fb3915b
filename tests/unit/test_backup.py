"""A backup of a node at work is whole, proves itself, and what is restored from it goes on under the same keys."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import select

from dicom_node.backup.contents import LEDGER, SHEET, SUMS
from dicom_node.backup.make import make_backup
from dicom_node.backup.restore import restore
from dicom_node.backup.verify import verify
from dicom_node.cli import main
from dicom_node.errors import NodeError
from dicom_node.ledger import runs
from dicom_node.ledger.tables import ArrivalState, arrival, audit, outbox_object
from dicom_node.receive.stock import compare
from tests.factories.bench import NOW, Bench
from tests.factories.flair import flair_studies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.settings import Settings


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies of one patient, oldest first, a file per slice."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A node."""
    found = Bench(tmp_path / "node")
    (tmp_path / "node" / "pseudonym.key").write_bytes(b"key")
    yield found
    found.database.close()


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, studies: list[Path]) -> Path:
    """The backup of a node that reported, to be read or copied, never changed."""
    folder = tmp_path_factory.mktemp("reported")
    bench = Bench(folder / "node")
    bench.receive(*studies)
    report(bench)
    make_backup(bench.settings, folder / "backup", NOW)
    bench.database.close()
    return folder / "backup"


def report(bench: Bench) -> None:
    """Let everything become quiet, and be decided, run and encoded."""
    bench.now = NOW + timedelta(minutes=5)
    for _ in range(3):
        bench.tick()


def at(settings: Settings, data: Path) -> Settings:
    """Return a configuration with another data folder."""
    return settings.model_copy(update={"node": settings.node.model_copy(update={"data_dir": data})})


def acknowledged(bench: Bench) -> set[str]:
    """Return every instance that a sender was told is safe."""
    with bench.database.read() as ledger:
        return set(ledger.scalars(select(arrival.c.sop_instance_uid)))


def test_what_was_acknowledged_before_is_in_a_backup_made_while_more_arrives(
    bench: Bench, studies: list[Path], tmp_path: Path
) -> None:
    """The node receives and decides without pause; the restored one has all that was promised, and reports the same."""
    begun, stop = threading.Event(), threading.Event()

    def receive() -> None:
        for count, path in enumerate(studies):
            bench.receive(path)
            bench.tick()
            if count == 10:
                begun.set()
        stop.set()

    receiver = threading.Thread(target=receive)
    receiver.start()
    assert begun.wait(300)
    before = acknowledged(bench)
    sheet = make_backup(bench.settings, tmp_path / "backup", NOW)
    receiver.join()
    assert stop.is_set()
    report(bench)
    assert verify(tmp_path / "backup") == []
    restore(tmp_path / "backup", at(bench.settings, tmp_path / "restored"), NOW, actor="admin")
    again = Bench(tmp_path / "restored", cohort_known=False)
    assert before <= acknowledged(again)
    assert len(acknowledged(again)) == sheet.rows["arrival"]
    assert compare(again.database, again.instances, again.folders.outbox).lost == ()
    again.receive(*[path for path in studies if bench.uid(path) not in acknowledged(again)])
    report(again)
    assert again.outcome() == bench.outcome()
    again.database.close()


def test_a_report_that_was_issued_is_restored_as_it_was_and_made_once(
    reported: Path, studies: list[Path], tmp_path: Path
) -> None:
    """Same keys, same UIDs, same bytes; images sent once more are duplicates and no new run."""
    first = Bench(tmp_path / "first")
    restore(reported, at(first.settings, tmp_path / "node"), NOW, actor="admin")
    again = Bench(tmp_path / "node", cohort_known=False)
    inputs, result, objects = again.outcome()
    again.receive(*studies)
    again.now = NOW + timedelta(days=1)
    for _ in range(3):
        again.tick()
    assert again.outcome() == (inputs, result, objects)
    with again.database.read() as ledger:
        assert len(runs.of_patient(ledger, 1)) == 1
        assert {row.encoding for row in ledger.execute(select(outbox_object.c.encoding))} == {1}
        states = set(ledger.scalars(select(arrival.c.state)))
        assert "restore" in set(ledger.scalars(select(audit.c.action)))
    assert states == {ArrivalState.INDEXED, ArrivalState.DUPLICATE}
    again.database.close()
    first.database.close()


def test_a_run_under_way_is_made_again_under_the_same_uids(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """Backed up when it was queued, finished here, restored there: both issue the same objects."""
    bench.receive(*studies)
    bench.now = NOW + timedelta(minutes=5)
    bench.reconciler._decide()
    make_backup(bench.settings, tmp_path / "backup", NOW)
    bench.tick()
    restore(tmp_path / "backup", at(bench.settings, tmp_path / "restored"), NOW, actor="admin")
    again = Bench(tmp_path / "restored", cohort_known=False)
    again.now = NOW + timedelta(days=2)
    again.tick()
    uids = []
    for each in (bench, again):
        with each.database.read() as ledger:
            uids.append(list(ledger.scalars(select(outbox_object.c.sop_instance_uid).order_by("sop_instance_uid"))))
    assert uids[0]
    assert uids[0] == uids[1]
    again.database.close()


def test_the_list_of_digests_can_be_checked_without_the_node(reported: Path) -> None:
    """What sha256sum says is what a backup says."""
    done = subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=reported, check=False, capture_output=True)
    assert done.returncode == 0, done.stdout
    listed = {line.split("  ", 1)[1] for line in (reported / SUMS).read_text().splitlines()}
    assert listed == {each.relative_to(reported).as_posix() for each in reported.rglob("*") if each.is_file()} - {
        SUMS,
        SHEET,
    }


def _of(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern))


def _change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _forget_a_row(folder: Path) -> None:
    with closing(sqlite3.connect(folder / LEDGER)) as ledger, ledger:
        ledger.execute("DELETE FROM task_case")


DAMAGE = {
    "a bit of an image": (lambda each: _change(_of(each, "instances/??/*.dcm")), "its bytes changed"),
    "a bit of a report": (lambda each: _change(_of(each, "outbox/*.dcm")), "its bytes changed"),
    "an image gone": (lambda each: _of(each, "instances/??/*.dcm").unlink(), "is gone"),
    "a file too many": (lambda each: (each / "outbox" / "x.dcm").write_bytes(b"x"), "is not of this backup"),
    "a link out of it": (lambda each: (each / "outbox" / "x.dcm").symlink_to("/etc/passwd"), "is not of this backup"),
    "a row gone": (_forget_a_row, "task_case: expected"),
    "no ledger": (lambda each: (each / LEDGER).write_bytes(b"x" * 5000), "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_backup_that_was_changed_says_so_and_is_not_restored(reported: Path, tmp_path: Path, damage: str) -> None:
    """Every file and every row is held against what was written down."""
    folder = tmp_path / "backup"
    shutil.copytree(reported, folder)
    assert verify(folder) == []
    harm, told = DAMAGE[damage]
    harm(folder)
    assert any(told in each for each in verify(folder))
    bench = Bench(tmp_path / "any")
    with pytest.raises(NodeError, match="not restored"):
        restore(folder, at(bench.settings, tmp_path / "node"), NOW, actor="admin")
    bench.database.close()
    assert not (tmp_path / "node").exists()


def test_a_changed_list_of_digests_is_refused(reported: Path, tmp_path: Path) -> None:
    """Who changes a file and its digest has to change the sheet as well; half a change is seen."""
    folder = tmp_path / "backup"
    shutil.copytree(reported, folder)
    (folder / SUMS).write_text((folder / SUMS).read_text().replace("0", "1", 1))
    with pytest.raises(NodeError, match="expected sha256"):
        verify(folder)


def test_a_backup_is_never_written_over_anything(bench: Bench, tmp_path: Path) -> None:
    """Not over another, and not into the data folder; an empty folder will do."""
    (tmp_path / "backup").mkdir()
    make_backup(bench.settings, tmp_path / "backup", NOW)
    with pytest.raises(NodeError, match="never written over"):
        make_backup(bench.settings, tmp_path / "backup", NOW)
    with pytest.raises(NodeError, match="must not lie"):
        make_backup(bench.settings, bench.settings.node.data_dir / "backup", NOW)
    with pytest.raises(NodeError, match="never writes over"):
        restore(tmp_path / "backup", bench.settings, NOW, actor="admin")


def test_what_the_node_lost_itself_is_named(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """A backup in bad times is better than none, and says what it could not hold."""
    bench.receive(*studies[:3])
    lost = min(bench.instances.folder.glob("??/*.dcm"))
    lost.unlink()
    sheet = make_backup(bench.settings, tmp_path / "backup", NOW)
    assert sheet.missing == (f"instances/{lost.relative_to(bench.instances.folder)}",)
    assert verify(tmp_path / "backup") == []
    assert json.loads((tmp_path / "backup" / SHEET).read_text())["files"] == 4  # two images, ledger, key


def test_the_verbs_back_up_check_and_restore(reported: Path, tmp_path: Path) -> None:
    """From one data folder to another, with words and exit codes."""
    bench = Bench(tmp_path / "first")
    restore(reported, at(bench.settings, tmp_path / "data"), NOW, actor="admin")
    bench.database.close()
    config = {
        "node": {"ae_title": "NODE", "data_dir": "data"},
        "receive": {"allow_unknown_peers": True},
        "tasks": ["glioma-recurrence"],
    }
    for name in ("data", "elsewhere"):
        config["node"]["data_dir"] = name  # type: ignore[index]
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, [*arguments])
        return done.exit_code, done.output

    folder, here, there = str(tmp_path / "backup"), str(tmp_path / "data.yaml"), str(tmp_path / "elsewhere.yaml")
    assert call("backup", folder, "--config", here)[0] == 0
    code, told = call("backup", folder, "--verify")
    assert (code, "sound" in told) == (0, True)
    assert call("backup", folder, "--config", here)[0] == 1
    code, told = call("restore", folder, "--config", there)
    assert (code, "every digest as it was" in told) == (0, True)
    assert call("restore", folder, "--config", there)[0] == 1
    again = Bench(tmp_path / "elsewhere", cohort_known=False)
    assert again.outcome()[2]
    with again.database.read() as ledger:
        assert "restore" in set(ledger.scalars(select(audit.c.action)))
    again.database.close()
    _change(_of(tmp_path / "backup", "outbox/*.dcm"))
    code, told = call("backup", folder, "--verify")
    assert (code, "its bytes changed" in told) == (1, True)
