"""Stock-taking at a start: files and rows are brought together, both ways, and what is missing is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from sqlalchemy import select

from dicom_node.ledger import arrivals, cases, patients
from dicom_node.ledger.tables import ArrivalState, CaseState, arrival, audit
from dicom_node.observe import overview
from dicom_node.receive.files import ORPHAN_AGE_S
from dicom_node.receive.stock import Taken, compare, take_stock
from tests.factories.bench import Bench
from tests.factories.flair import ISSUER, flair_studies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies of one patient."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture
def bench(tmp_path: Path, studies: list[Path]) -> Iterator[Bench]:
    """A node that received them and has decided nothing yet."""
    found = Bench(tmp_path / "node")
    found.receive(*studies)
    yield found
    found.database.close()


def start(bench: Bench, *, later_s: float = 0, issuers: dict[str, str] | None = None) -> Taken:
    """Do what a start does."""
    at = datetime.now(UTC) + timedelta(seconds=later_s)
    taken = take_stock(bench.database, bench.instances, bench.folders.outbox, at, issuers=issuers or {})
    with bench.database.write() as ledger:
        patients.touch_all(ledger)
    return taken


def states(bench: Bench) -> list[ArrivalState]:
    """Return what became of each file, in order of arrival."""
    with bench.database.read() as ledger:
        return [ArrivalState(each) for each in ledger.scalars(select(arrival.c.state).order_by(arrival.c.id))]


def path_of(bench: Bench, number: int) -> Path:
    """Return where a received file lies."""
    with bench.database.read() as ledger:
        return bench.instances.path(ledger.scalar(select(arrival.c.path).where(arrival.c.id == number)) or "")


def case_of(bench: Bench) -> cases.Case:
    """Decide, once everything is quiet, and return the only case."""
    bench.now += timedelta(minutes=5)
    bench.tick()
    with bench.database.read() as ledger:
        (case,) = cases.of_patient(ledger, 1)
    return case


def test_where_files_and_rows_agree_nothing_is_done(bench: Bench, studies: list[Path]) -> None:
    """Nothing is lost, nothing removed, nothing audited."""
    assert start(bench, later_s=2 * ORPHAN_AGE_S) == Taken(
        promised=len(studies), lost=0, back=0, entered=0, removed=0, outbox=0, contradictions=0
    )
    with bench.database.read() as ledger:
        assert ledger.execute(select(audit)).all() == []


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_case_says_that_its_images_are_gone_and_runs_once_they_came_again(
    bench: Bench, studies: list[Path], damage: str
) -> None:
    """An acknowledged file that vanished is noted, shown, asked for, and its second sending takes its place."""
    path = path_of(bench, 1)
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-2])
    assert start(bench).lost == 1
    waiting = case_of(bench)
    assert waiting.state is CaseState.WAITING
    assert waiting.reasons[0].code == "input-aged-out"
    with bench.database.read() as ledger:
        shown = overview.status(ledger)
        (told,) = ledger.scalars(select(audit.c.details))
    assert shown["files"][ArrivalState.LOST] == 1
    assert "send or fetch it again" in str(shown["set_aside"])
    assert '"lost": 1' in told
    bench.receive(studies[0])
    assert states(bench)[-1] is ArrivalState.INDEXED
    assert case_of(bench).run_key


def test_an_unread_file_that_is_gone_is_told(bench: Bench) -> None:
    """Nobody knows whose it was; that it was acknowledged is known, and shown."""
    with bench.database.write() as ledger:
        ledger.execute(arrival.update().where(arrival.c.id == 2).values(state=ArrivalState.RECEIVED))
    path_of(bench, 2).unlink()
    assert start(bench).lost == 1
    with bench.database.read() as ledger:
        assert "it was received" in str(overview.status(ledger)["set_aside"])


def test_files_that_are_here_again_count_again_and_are_never_deleted(bench: Bench, studies: list[Path]) -> None:
    """A start without the disk loses nothing for good: with it, everything is as before."""
    folder, hidden = bench.instances.folder, bench.instances.folder.with_name("unmounted")
    folder.rename(hidden)
    bench.instances.prepare()
    assert start(bench).lost == len(studies)
    assert set(states(bench)) == {ArrivalState.LOST}
    for each in sorted(folder.rglob("*"), reverse=True):
        each.rmdir()
    folder.rmdir()
    hidden.rename(folder)
    taken = start(bench, later_s=2 * ORPHAN_AGE_S)
    assert (taken.back, taken.removed, taken.lost) == (len(studies), 0, 0)
    assert set(states(bench)) == {ArrivalState.INDEXED}
    assert case_of(bench).run_key


def test_a_contradiction_without_its_bytes_still_holds_the_case(bench: Bench) -> None:
    """That bytes are gone settles nothing between two humans."""
    with bench.database.write() as ledger:
        ledger.execute(arrival.update().where(arrival.c.id == 3).values(state=ArrivalState.CONFLICT))
    path_of(bench, 3).unlink()
    taken = start(bench)
    assert (taken.contradictions, taken.lost) == (1, 0)
    assert case_of(bench).state is CaseState.HELD


def test_whole_files_of_which_the_ledger_knows_nothing_are_entered(tmp_path: Path, studies: list[Path]) -> None:
    """It was lost, or an older one restored: what was acknowledged is not deleted but read again as its sender's."""
    before = Bench(tmp_path / "node")
    folder = before.instances.folder
    for number, each in enumerate(studies):
        ds = dcmread(each)
        ds.file_meta.SendingApplicationEntityTitle = "SCANNER"
        ds.save_as(folder / f"{number:02x}" / f"{number}.dcm")
    taken = start(before, later_s=2 * ORPHAN_AGE_S, issuers={"SCANNER": ISSUER})
    assert (taken.entered, taken.removed) == (len(studies), 0)
    assert set(states(before)) == {ArrivalState.RECEIVED}
    with before.database.read() as ledger:
        rows = ledger.execute(select(arrival.c.default_issuer, arrival.c.calling_ae_title)).all()
        uids = {each.sop_instance_uid for each in arrivals.pending(ledger, len(studies))}
        assert uids == {Bench.uid(each) for each in studies}
        assert {tuple(row) for row in rows} == {(ISSUER, "SCANNER")}
        assert f'"entered": {len(studies)}' in str(ledger.scalar(select(audit.c.details)))
    assert start(before, later_s=2 * ORPHAN_AGE_S).entered == 0
    before.database.close()


def test_what_retention_gave_up_is_deleted_not_entered(bench: Bench, studies: list[Path]) -> None:
    """Its row says so; a crash came before its bytes were gone."""
    with bench.database.write() as ledger:
        ledger.execute(arrival.update().where(arrival.c.id == 1).values(state=ArrivalState.AGED_OUT))
    taken = start(bench, later_s=2 * ORPHAN_AGE_S)
    assert (taken.entered, taken.removed) == (0, 1)
    assert len(list(bench.instances.folder.glob("??/*.dcm"))) == len(studies) - 1


def test_only_old_halves_without_a_row_are_deleted(bench: Bench, studies: list[Path]) -> None:
    """A file that somebody may still be about to enter is left alone; so is everything that has a row."""
    orphan = bench.instances.path(bench.instances.write((b"x",)))
    half = bench.instances.folder / "incoming" / "half"
    half.write_bytes(b"x")
    assert start(bench, later_s=1).removed == 0
    assert start(bench, later_s=ORPHAN_AGE_S + 60).removed == 2
    assert not orphan.exists()
    assert not half.exists()
    assert len(list(bench.instances.folder.glob("??/*.dcm"))) == len(studies)


def test_encoded_objects_that_are_gone_are_counted(bench: Bench) -> None:
    """Looking changes nothing, and names every one."""
    case_of(bench)
    encoded = sorted(path.name for path in bench.folders.outbox.iterdir())
    assert encoded
    (bench.folders.outbox / encoded[0]).unlink()
    assert compare(bench.database, bench.instances, bench.folders.outbox).outbox == (encoded[0],)
    assert start(bench).outbox == 1
