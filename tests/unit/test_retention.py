"""Retention by patient: what a live case needs stays, the rest ages out, and comes back when it is sent again."""

from __future__ import annotations

import io
import shutil
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from dicom_node.ledger import arrivals, cases, cohort, deliveries, patients, retention, runs
from dicom_node.ledger.tables import ArrivalState, CaseState, arrival, case
from dicom_node.observe.logs import open_log
from dicom_node.receive.files import ORPHAN_AGE_S
from dicom_node.receive.stock import take_stock
from dicom_node.settings import Logging, Retention
from dicom_node.timeline.model import CohortFacts, Event, RunState, Surgery
from dicom_node.work.judge import Rules
from dicom_node.work.retention import ImageSweep
from tests.factories.bench import NOW, Bench
from tests.factories.flair import ISSUER

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

IMAGES_DAYS = 30
LATER = NOW + timedelta(days=IMAGES_DAYS + 1)
GLIOMA = CohortFacts(diagnosis="glioma", surgeries=(Surgery(on=date(2025, 3, 3)),))
MENINGIOMA = CohortFacts(diagnosis="meningioma", surgeries=(Surgery(on=date(2025, 3, 3)),))
RECURRED = CohortFacts(
    diagnosis="glioma", surgeries=(Surgery(on=date(2025, 3, 3)),), events=(Event(on=date(2026, 2, 25)),)
)


@pytest.fixture
def bench(tmp_path: Path, reported: Path) -> Bench:
    """That node, in a folder of its own."""
    shutil.copytree(reported, tmp_path / "node")
    found = Bench(tmp_path / "node")
    found.now = NOW + timedelta(minutes=5)
    return found


def decide(bench: Bench) -> None:
    """Decide until nothing is undecided: a report that was just made is news itself."""
    bench.tick()
    bench.tick()
    with bench.database.read() as ledger:
        assert patients.undecided(ledger, bench.now, 10) == []


def sweep(bench: Bench, *, days: float | None = IMAGES_DAYS, log: io.StringIO | None = None) -> int:
    """Look for what may age out."""
    settings = bench.settings.model_copy(update={"retention": Retention(images_days=days)})
    found = ImageSweep(
        rules=Rules(settings=settings, selection=bench.reconciler.rules.selection),
        database=bench.database,
        files=bench.instances,
        tasks=bench.reconciler.tasks,
        log=open_log(Logging(level="info", format="json"), b"key", log or io.StringIO()),
    )
    return found.run_once(bench.now)


def say(bench: Bench, facts: CohortFacts) -> None:
    """Change the cohort and decide."""
    with bench.database.write() as ledger:
        cohort.replace(ledger, ISSUER, "PHANTOM-1", facts)
    decide(bench)


def end_deliveries(bench: Bench) -> None:
    """Let every delivery reach its destination."""
    with bench.database.write() as ledger:
        for run in runs.of_patient(ledger, 1):
            for each in deliveries.of_run(ledger, run.run_key):
                deliveries.sent(ledger, each, bench.now)


def files_of(bench: Bench) -> int:
    """Count the files on disk."""
    return len(list(bench.instances.folder.glob("??/*.dcm")))


def states_of(bench: Bench) -> set[str]:
    """Return what became of all arrivals."""
    with bench.database.read() as ledger:
        return set(arrivals.counts_by_state(ledger))


def uids_of(paths: Iterable[Path]) -> list[str]:
    """Return the SOP Instance UIDs of files."""
    return [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths]


def test_without_a_limit_everything_stays(bench: Bench) -> None:
    """Images are kept for ever unless the site says otherwise."""
    say(bench, MENINGIOMA)
    bench.now = LATER
    assert sweep(bench, days=None) == 0
    assert states_of(bench) == {ArrivalState.INDEXED}


def test_what_a_live_case_needs_stays(bench: Bench, studies: list[Path]) -> None:
    """The next follow-up will be compared with these scans, however old they are."""
    bench.now = LATER
    assert sweep(bench) == 0
    assert files_of(bench) == len(studies)


def test_a_live_case_goes_on_with_its_old_scans(tmp_path: Path, studies: list[Path]) -> None:
    """Three scans long past the limit and a fourth of today make the next report."""
    bench = Bench(tmp_path)
    for path in studies[: -len(studies) // 4]:
        bench.receive(path)
    bench.now = NOW + timedelta(minutes=5)
    decide(bench)
    bench.now = LATER
    assert sweep(bench) == 0
    for path in studies[-len(studies) // 4 :]:
        bench.receive(path)
    bench.now = LATER + timedelta(minutes=5)
    decide(bench)
    with bench.database.read() as ledger:
        newest = runs.of_patient(ledger, 1)[-1]
    assert newest.state is RunState.REPORTED
    assert len(newest.inputs.time_points) == 4


def test_a_run_waits_for_images_that_aged_out_until_they_came_again(tmp_path: Path, studies: list[Path]) -> None:
    """A diagnosis entered late finds the bytes gone; the case says so, and runs when they are here again."""
    bench = Bench(tmp_path)
    say(bench, MENINGIOMA)
    for path in studies:
        bench.receive(path)
    bench.now = NOW + timedelta(minutes=5)
    decide(bench)
    bench.now = LATER
    assert sweep(bench) == len(studies)
    say(bench, GLIOMA)
    with bench.database.read() as ledger:
        (found,) = cases.of_patient(ledger, 1)
        assert runs.of_patient(ledger, 1) == []
    assert found.state is CaseState.WAITING
    assert found.reasons[0].code == "input-aged-out"
    for path in studies:
        bench.receive(path)
    bench.now = LATER + timedelta(minutes=5)
    decide(bench)
    with bench.database.read() as ledger:
        (run,) = runs.of_patient(ledger, 1)
    assert run.state is RunState.REPORTED
    assert len(run.inputs.time_points) == 4


def test_what_no_case_needs_ages_out(bench: Bench, studies: list[Path]) -> None:
    """The bytes of an ineligible patient go, what was read of them stays, and a second sweep finds nothing."""
    say(bench, MENINGIOMA)
    end_deliveries(bench)
    bench.now = LATER
    log = io.StringIO()
    assert sweep(bench, log=log) == len(studies)
    assert files_of(bench) == 0
    assert states_of(bench) == {ArrivalState.AGED_OUT}
    with bench.database.read() as ledger:
        assert len(patients.facts_of(ledger, 1)) == len(studies)
        assert arrivals.instance_paths(ledger, uids_of(studies)) == {}
    assert sweep(bench) == 0
    assert "images.aged_out" in log.getvalue()
    assert "PHANTOM" not in log.getvalue()


def test_a_case_that_ended_needs_nothing(bench: Bench, studies: list[Path]) -> None:
    """After a recorded recurrence surveillance is over."""
    say(bench, RECURRED)
    end_deliveries(bench)
    bench.now = LATER
    assert sweep(bench) == len(studies)


def test_nothing_ages_out_before_its_time(bench: Bench) -> None:
    """Also of a patient whom no task is for."""
    say(bench, MENINGIOMA)
    end_deliveries(bench)
    bench.now = NOW + timedelta(days=IMAGES_DAYS - 1)
    assert sweep(bench) == 0


def test_a_study_is_as_old_as_its_latest_instance(tmp_path: Path, studies: list[Path]) -> None:
    """What came early of a study that is still growing stays with what came late."""
    bench = Bench(tmp_path)
    first = [path for path in studies if path.parent == studies[0].parent]
    bench.receive(first[0])
    bench.now = LATER
    bench.receive(first[1])
    say(bench, MENINGIOMA)
    assert sweep(bench) == 0
    bench.now = LATER + timedelta(days=IMAGES_DAYS + 1)
    assert sweep(bench) == 2


def test_a_report_on_its_way_keeps_its_inputs(bench: Bench, studies: list[Path]) -> None:
    """It may have to be encoded anew; once it was delivered they go."""
    with bench.database.write() as ledger:
        (run,) = runs.of_patient(ledger, 1)
        deliveries.create(ledger, run.run_key, ("archive",), bench.now)
    say(bench, MENINGIOMA)
    bench.now = LATER
    assert sweep(bench) == 0
    end_deliveries(bench)
    assert sweep(bench) == len(studies)


def test_a_run_at_work_keeps_its_inputs(bench: Bench) -> None:
    """Whatever became of the case meanwhile."""
    with bench.database.write() as ledger:
        (run,) = runs.of_patient(ledger, 1)
    say(bench, MENINGIOMA)
    with bench.database.write() as ledger:
        runs.set_state(ledger, run.run_key, RunState.RUNNING)
        ledger.execute(case.update().values(state="ineligible"))
    bench.now = LATER
    assert sweep(bench) == 0


def test_a_patient_not_yet_decided_on_is_left_alone(bench: Bench) -> None:
    """What is needed follows from a decision, which has to be made first."""
    say(bench, MENINGIOMA)
    end_deliveries(bench)
    with bench.database.write() as ledger:
        patients.touch(ledger, 1)
    bench.now = LATER
    assert sweep(bench) == 0


def test_contradicting_files_stay_both(bench: Bench, studies: list[Path]) -> None:
    """A person needs the file and what it contradicts to see who is right."""
    ds = dcmread(studies[0])
    ds.PixelData = bytes(reversed(ds.PixelData))
    other = bench.folders.cache / "other.dcm"
    ds.save_as(other)
    bench.receive(other)
    say(bench, MENINGIOMA)
    end_deliveries(bench)
    bench.now = LATER
    assert sweep(bench) == len(studies) - 1
    assert states_of(bench) == {ArrivalState.AGED_OUT, ArrivalState.CONFLICT, ArrivalState.INDEXED}


def test_second_copies_age_out_of_a_live_case(bench: Bench, studies: list[Path]) -> None:
    """They were never needed, and the first copy stays."""
    bench.receive(studies[0])
    decide(bench)
    bench.now = LATER
    assert sweep(bench) == 1
    assert files_of(bench) == len(studies)
    with bench.database.read() as ledger:
        assert set(arrivals.instance_paths(ledger, uids_of(studies))) == set(uids_of(studies))


def test_an_aged_out_instance_comes_back_when_it_is_sent_again(bench: Bench, studies: list[Path]) -> None:
    """Its new bytes take the place of the old, whatever was known of it stays, and the case is decided anew."""
    say(bench, MENINGIOMA)
    end_deliveries(bench)
    bench.now = LATER
    sweep(bench)
    uids = uids_of(studies)
    with bench.database.read() as ledger:
        missing = retention.missing_series(ledger, 1, uids)
        assert sum(each.instances for each in missing) == len(studies)
        assert len({each.series_instance_uid for each in missing}) == 4
        assert patients.undecided(ledger, NOW, 10) == []
    for path in studies:
        bench.receive(path)
    with bench.database.read() as ledger:
        paths = arrivals.instance_paths(ledger, uids)
        assert retention.missing_series(ledger, 1, uids) == []
        assert len(patients.undecided(ledger, NOW, 10)) == 1
        assert len(patients.facts_of(ledger, 1)) == len(studies)
    assert all(bench.instances.path(path).is_file() for path in paths.values())
    bench.receive(studies[0])
    assert states_of(bench) == {ArrivalState.AGED_OUT, ArrivalState.INDEXED, ArrivalState.DUPLICATE}


def test_other_content_than_what_aged_out_is_a_conflict(bench: Bench, studies: list[Path]) -> None:
    """That the bytes are gone does not let others take their name."""
    say(bench, MENINGIOMA)
    end_deliveries(bench)
    bench.now = LATER
    sweep(bench)
    ds = dcmread(studies[0])
    ds.PixelData = bytes(reversed(ds.PixelData))
    other = bench.folders.cache / "other.dcm"
    ds.save_as(other)
    bench.receive(other)
    assert states_of(bench) == {ArrivalState.AGED_OUT, ArrivalState.CONFLICT}


def test_a_file_left_by_a_crash_goes_at_the_next_start(bench: Bench, studies: list[Path]) -> None:
    """The ledger forgets first; what was not deleted then is nobody's any more."""
    with bench.database.write() as ledger:
        ledger.execute(arrival.update().where(arrival.c.id == 1).values(state=ArrivalState.AGED_OUT))
    newest = max(path.stat().st_mtime for path in bench.instances.folder.glob("??/*.dcm"))
    long_after = datetime.fromtimestamp(newest + ORPHAN_AGE_S + 1, tz=UTC)
    assert take_stock(bench.database, bench.instances, bench.folders.outbox, long_after, issuers={}).removed == 1
    assert files_of(bench) == len(studies) - 1


def test_a_rejected_scan_is_not_kept_for_a_live_case(bench: Bench, studies: list[Path]) -> None:
    """What an archive took back is no candidate for anything."""
    end_deliveries(bench)
    first = [path for path in studies if path.parent == studies[0].parent]
    bench.reject(*first)
    decide(bench)
    bench.now = LATER
    assert sweep(bench) == len(first) + 1  # and the note's own file
    assert files_of(bench) == len(studies) - len(first)
