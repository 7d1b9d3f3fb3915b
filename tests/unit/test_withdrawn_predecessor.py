"""No archive is sent a report that names a withdrawn one, and what archives got is never changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node.cli_withdraw import _make_note
from dicom_node.deliver.consignment import job_key
from dicom_node.deliver.postman import Postman
from dicom_node.ledger import deliveries, encodings, runs, withdrawals
from dicom_node.ledger.encodings import Demographics, Encoding
from dicom_node.ledger.tables import DeliveryState
from dicom_node.ledger.withdrawals import Withdrawal
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging
from dicom_node.timeline.model import RunState
from sr_templates.rejection_note import RejectionTitle
from tests.factories.archives import REPORTS, ScriptedArchive
from tests.factories.bench import Bench, no_archive
from tests.factories.flair import ISSUER, flair_study
from tests.unit.test_taken_back import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydicom import Dataset

    from dicom_node.ledger.runs import OutboxObject, Run

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def archive() -> Iterator[ScriptedArchive]:
    """An archive that takes everything."""
    found = ScriptedArchive().start()
    yield found
    found.stop()


@pytest.fixture
def bench(tmp_path: Path, studies: list[Path], archive: ScriptedArchive) -> Iterator[Bench]:
    """A node whose archive holds version 1; version 2 is encoded and names it, and nobody got it."""
    found = Bench(tmp_path / "data", Waiting(), pacs=[archive.configuration])
    receive(found, [path for path in studies if path.parent.name != "3"])
    make(found, newest(found))
    deliver(found)
    receive(found, [path for path in studies if path.parent.name == "3"])
    make(found, newest(found))
    yield found
    found.database.close()


def receive(bench: Bench, paths: Sequence[Path]) -> None:
    """Take studies in, and let their run be proposed."""
    bench.receive(*paths)
    bench.tick()
    bench.now += timedelta(minutes=5)
    bench.tick()


def versions(bench: Bench) -> list[Run]:
    """Return the runs, oldest first."""
    with bench.database.read() as ledger:
        return runs.of_patient(ledger, 1)


def newest(bench: Bench) -> str:
    """Return the key of the run that was proposed last."""
    return versions(bench)[-1].run_key


def make(bench: Bench, key: str) -> None:
    """Infer and encode."""
    bench.steps.infer(key)
    bench.steps.encode(key)


def deliver(bench: Bench, **later: float) -> None:
    """Let every delivery that is due be attempted once."""
    bench.now += timedelta(**later)
    log = open_log(Logging(level="error", format="json"), b"key", StringIO())
    outbox = bench.folders.outbox
    postman = Postman(bench.settings, bench.database, outbox, log, clock=lambda: bench.now, archive_for=no_archive)
    with bench.database.read() as ledger:
        keys = [job_key(each.delivery) for each in deliveries.due(ledger, bench.now)]
    for key in keys:
        postman.deliver(key)


def withdraw(bench: Bench) -> None:
    """Take version 1 back, as the verb does."""
    at, title = bench.now, RejectionTitle.QUALITY
    with bench.database.write() as ledger:
        found = runs.of_patient(ledger, 1)[0]
        what = Withdrawal(title=title.value, reason="", actor="admin", withdrawn_at=at)
        note_for = partial(_make_note, outbox=bench.folders.outbox, run_key=found.run_key, title=title, withdrawn_at=at)
        withdrawals.enter(ledger, found, what, note_for)


def objects(bench: Bench, key: str) -> list[OutboxObject]:
    """Return what was encoded of a run last."""
    with bench.database.read() as ledger:
        return runs.objects_of(ledger, key)


def got(archive: ScriptedArchive) -> list[Dataset]:
    """Return the reports that an archive holds, in order."""
    return [ds for ds in archive.received if ds.SOPClassUID in REPORTS]


def named(report: Dataset) -> list[str]:
    """Return the SOP Instance UIDs of the reports that a report names as those before it."""
    return [
        item.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in report.get("PredecessorDocumentsSequence", [])
    ]


def test_a_report_that_nobody_got_is_encoded_anew_without_the_withdrawn_one(
    bench: Bench, archive: ScriptedArchive
) -> None:
    """Answer, version and time of issue stay; of the first encoding nothing ever leaves."""
    first, second = versions(bench)
    old = {each.sop_instance_uid for each in objects(bench, second.run_key)}
    withdraw(bench)
    found = versions(bench)[1]
    assert (found.state, found.encoding, found.predecessor) == (RunState.QUEUED, 2, None)
    assert (found.result, found.version, found.issued_at) == (second.result, 2, second.issued_at)
    deliver(bench)
    assert len(got(archive)) == 1
    assert archive.received[-1].SOPClassUID == KeyObjectSelectionDocumentStorage
    bench.steps.encode(second.run_key)
    deliver(bench)
    assert versions(bench)[1].state is RunState.REPORTED
    assert [named(each) for each in got(archive)] == [[], []]
    assert old.isdisjoint(each.SOPInstanceUID for each in archive.received)
    assert first.run_key not in {each.predecessor for each in versions(bench)}


def test_a_report_that_an_archive_got_stays_as_it_is(bench: Bench, archive: ScriptedArchive) -> None:
    """A second document of one run would stand beside it; the admin is told that it names the withdrawn one."""
    deliver(bench)
    second = versions(bench)[1]
    before = objects(bench, second.run_key)
    withdraw(bench)
    assert versions(bench)[1] == second
    assert objects(bench, second.run_key) == before
    with bench.database.read() as ledger:
        assert withdrawals.built_on(ledger, versions(bench)[0]) == [second]
    deliver(bench, hours=1)
    assert len(got(archive)) == 2


def test_a_later_report_names_the_one_that_is_encoded_anew(
    bench: Bench, archive: ScriptedArchive, tmp_path: Path
) -> None:
    """It was encoded too, and named objects that nobody will ever hold."""
    receive(bench, flair_study(tmp_path, date(2026, 2, 27), name="late"))
    make(bench, newest(bench))
    second, third = (each.run_key for each in versions(bench)[1:])
    withdraw(bench)
    for key in (second, third):
        bench.steps.encode(key)
    deliver(bench)
    reports = {ds.SOPInstanceUID: named(ds) for ds in got(archive)}
    mine = [next(each for each in objects(bench, key) if each.kind == "report") for key in (second, third)]
    assert [reports[each.sop_instance_uid] for each in mine] == [[], [mine[0].sop_instance_uid]]
    assert len(reports) == 3


def test_a_later_report_that_is_being_encoded_names_it_too(bench: Bench, tmp_path: Path) -> None:
    """The withdrawal comes once the worker has read what the one before it is called."""
    receive(bench, flair_study(tmp_path, date(2026, 2, 27), name="late"))
    second, third = (each.run_key for each in versions(bench)[1:])
    bench.steps.infer(third)
    happens = [lambda: withdraw(bench)]

    def clock() -> datetime:
        if happens:
            happens.pop()()
        return bench.now

    replace(bench.steps, clock=clock).encode(third)
    assert objects(bench, third) == []
    for key in (second, third):
        bench.steps.encode(key)
    assert [each.state for each in versions(bench)[1:]] == [RunState.REPORTED] * 2
    before, last = (next(each for each in objects(bench, key) if each.kind == "report") for key in (second, third))
    assert named(dcmread(bench.folders.outbox / last.path)) == [before.sop_instance_uid]


def test_a_report_whose_attempt_came_to_nothing_names_no_withdrawn_one(bench: Bench, archive: ScriptedArchive) -> None:
    """Withdrawn while the archive might have got it, which then took nothing: the next attempt finds out."""
    second = versions(bench)[1]
    archive.statuses = [OUT_OF_RESOURCES]

    def once() -> None:
        archive.on_store = lambda: None
        withdraw(bench)

    archive.on_store = once
    deliver(bench)
    assert versions(bench)[1].state is RunState.REPORTED
    deliver(bench, hours=1)
    found = versions(bench)[1]
    assert (found.state, found.encoding, found.predecessor) == (RunState.QUEUED, 2, None)
    bench.steps.encode(second.run_key)
    deliver(bench, hours=1)
    assert [named(each) for each in got(archive)] == [[], []]
    with bench.database.read() as ledger:
        (sent,) = deliveries.of_run(ledger, second.run_key)
    assert (sent.state, sent.encoding) == (DeliveryState.SENT, 2)


def test_an_encoding_that_names_a_withdrawn_report_is_never_taken_again(bench: Bench, archive: ScriptedArchive) -> None:
    """The archive names the patient anew, and then as before: what was encoded then is void all the same."""
    second = versions(bench)[1]
    as_before = second.encodings[1]
    renamed = Encoding(demographics=Demographics(issuer=ISSUER, patient_id="PHANTOM-1", name="CORRECTED^NAME"))
    with bench.database.write() as ledger:
        assert encodings.renew(ledger, second.run_key, "main", renamed, bench.now)
    withdraw(bench)
    bench.steps.encode(second.run_key)
    with bench.database.write() as ledger:
        encodings.renew(ledger, second.run_key, "main", as_before, bench.now)
    bench.steps.encode(second.run_key)
    deliver(bench)
    assert [named(each) for each in got(archive)] == [[], []]
