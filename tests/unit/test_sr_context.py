"""What a report is told of a frozen run: its headers, what came before it, who ordered it, in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from dicom_node.ledger import runs
from dicom_node.ledger.runs import OutboxObject, Run
from dicom_node.timeline.model import (
    InputInstance,
    Inputs,
    InputSeries,
    InputTimePoint,
    Role,
    RunState,
    TimePointKind,
)
from dicom_node.work.report_context import Sources, build_context
from sr_templates.measurement_report import KINDS, SOP_CLASS_UIDS
from sr_templates.read_report import read_report
from tests.factories.bench import Bench
from tests.factories.flair import flair_studies
from tests.factories.results import DAYS, SLICES, answer, mr_header

if TYPE_CHECKING:
    from pathlib import Path

    from sr_templates.sources import ReportContext

ISSUED = datetime(2024, 10, 18, 23, 30, tzinfo=UTC)
EAST = timezone(timedelta(hours=9))


def point(day: datetime) -> InputTimePoint:
    """Return a time point of one T1c series."""
    headers = [mr_header(day, "T1c", z) for z in range(SLICES)]
    series = InputSeries(
        role=Role.T1C,
        study_instance_uid=str(headers[0].StudyInstanceUID),
        series_instance_uid=str(headers[0].SeriesInstanceUID),
        frame_of_reference_uid=str(headers[0].FrameOfReferenceUID),
        instances=tuple(
            InputInstance(
                sop_class_uid=str(each.SOPClassUID), sop_instance_uid=str(each.SOPInstanceUID), content_digest="d"
            )
            for each in headers
        ),
    )
    return InputTimePoint(
        acquired_on=day.date(),
        acquired_time=day.time(),
        kind=TimePointKind.FOLLOW_UP,
        studies=(series.study_instance_uid,),
        series=(series,),
    )


def run_of(*days: datetime, key: str) -> Run:
    """Return a frozen run on the scans of these days."""
    return Run(
        run_key=key * 32,
        patient_row=1,
        issuer="TESTHOSP",
        patient_id="P0001",
        task="glioma-recurrence",
        state=RunState.RUNNING,
        stat=False,
        inputs=Inputs(time_points=tuple(point(day) for day in days)),
        inputs_key="",
        remarks=("T2 not used",),
        bundle_digest="",
        task_digest="",
        created_at=ISSUED,
        result=replace(answer(), trajectory=(), flags=()).to_json(),
        version=2,
        predecessor=None,
        issued_at=ISSUED,
        encoded_at=None,
        error=None,
        rescues=0,
        encoding=1,
        encodings={},
    )


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """The files of every scan; the newest exam began before midnight and was scanned after it."""
    found = {}
    for day in DAYS:
        for z in range(SLICES):
            ds = mr_header(day, "T1c", z)
            if day == DAYS[-1]:
                ds.StudyDate = "20241017"
            found[str(ds.SOPInstanceUID)] = tmp_path / f"{day:%Y%m%d}-{z}.dcm"
            ds.save_as(found[str(ds.SOPInstanceUID)], enforce_file_format=True)
    return found


def context(run: Run, paths: dict[str, Path], earlier: Run | None = None, **changes: object) -> ReportContext:
    """Return what the report of a run is told."""
    reports = [
        OutboxObject(
            position=number,
            kind=kind,
            sop_class_uid=SOP_CLASS_UIDS[name],
            sop_instance_uid=f"1.2.{number}",
            series_instance_uid=f"1.3.{number}",
            study_instance_uid="1.4",
            path="",
            sha256="",
        )
        for number, (name, kind) in enumerate(KINDS.items())
    ]
    sources = Sources(
        paths=paths,
        ae_title="NODE",
        timezone=EAST,
        phantom=False,
        predecessor=earlier,
        predecessor_reports=reports if earlier else [],
    )
    return build_context(run, replace(sources, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "replaced"),
    [
        (DAYS, True),  # the same scans again, as by another model
        (DAYS[1:], True),  # an older scan arrived late: the same newest exam is reported anew
        (DAYS[:-1], False),  # a new exam
        (DAYS[2:3], False),
    ],
    ids=["same scans", "late older scan", "new exam", "other exam"],
)
def test_a_report_replaces_the_one_before_it_on_the_same_newest_scan(
    paths: dict[str, Path], before: tuple[datetime, ...], replaced: bool
) -> None:
    """Whatever else changed among the older scans; a report of a newer scan leaves the older valid."""
    found = context(run_of(*DAYS, key="ab"), paths, run_of(*before, key="cd")).record.predecessor
    assert found is not None
    assert found.replaced is replaced
    assert {each.sop_class_uid for each in found.reports} == set(SOP_CLASS_UIDS.values())


@pytest.mark.parametrize(
    ("now", "before", "rejected", "taken_back"),
    [
        (DAYS[:-1], DAYS, (), True),  # the newest scan is gone
        (DAYS, DAYS[:-1], (DAYS[0],), True),  # a scan of the earlier report was rejected, and a new one came
        (DAYS[1:], DAYS, (DAYS[0],), True),
        (DAYS, DAYS[:-1], (DAYS[-1],), False),
        (DAYS, DAYS[:-1], (), False),
        (DAYS[1:], DAYS[:-1], (), False),  # an old scan left out is held all the same
    ],
)
def test_a_report_on_images_taken_back_is_not_called_valid(
    paths: dict[str, Path],
    now: tuple[datetime, ...],
    before: tuple[datetime, ...],
    rejected: tuple[datetime, ...],
    taken_back: bool,
) -> None:
    """It saw a newer scan than can be seen now, or an image that a note took back."""
    uids = frozenset(str(mr_header(day, "T1c", 0).SOPInstanceUID) for day in rejected)
    found = context(run_of(*now, key="ab"), paths, run_of(*before, key="cd"), rejected=uids).record.predecessor
    assert found is not None
    assert found.taken_back is taken_back


@pytest.mark.parametrize("gone", ["3", "1"], ids=["newest scan", "older scan"])
def test_the_report_after_a_rejection_says_that_the_one_before_is_not_to_be_used(tmp_path: Path, gone: str) -> None:
    """The node itself, from the rejected files to the report in the outbox."""
    bench, studies = Bench(tmp_path / "data"), flair_studies(tmp_path / "studies")
    for step in (lambda: bench.receive(*studies), lambda: bench.reject(*[x for x in studies if x.parent.name == gone])):
        step()
        bench.now += timedelta(minutes=5)
        bench.tick()
        bench.tick()
    with bench.database.read() as ledger:
        newest = max(runs.of_patient(ledger, 1), key=lambda each: each.version or 0)
        (report,) = (each for each in runs.objects_of(ledger, newest.run_key) if each.kind == "report")
    assert newest.version == 2
    found = read_report(dcmread(bench.folders.outbox / report.path))
    assert any("rests on images taken back; do not use it" in line for line in found.summary)
    assert not any("stays valid" in line for line in found.summary)


def test_a_predecessor_that_was_never_encoded_is_not_named(paths: dict[str, Path]) -> None:
    """There is no document to refer to."""
    found = context(run_of(*DAYS, key="ab"), paths, run_of(*DAYS, key="cd"), predecessor_reports=[])
    assert found.record.predecessor is None


def test_dates_of_issue_are_those_of_the_sites_clock(paths: dict[str, Path]) -> None:
    """What was issued at half past eight in the morning in Tokyo was issued that day, not the day before."""
    found = context(run_of(*DAYS, key="ab"), paths, run_of(*DAYS, key="cd"))
    assert found.record.predecessor is not None
    assert found.record.predecessor.issued.isoformat() == "2024-10-19"
    assert found.record.issued_at.isoformat() == "2024-10-19T08:30:00+09:00"


def test_the_study_date_is_the_studys_and_the_scan_date_the_scans(paths: dict[str, Path]) -> None:
    """An exam that passes midnight has two."""
    newest = context(run_of(*DAYS, key="ab"), paths).time_points[-1]
    assert newest.acquired.date().isoformat() == "2024-10-18"
    assert {each.study_date.isoformat() for each in newest.series} == {"2024-10-17"}


def test_who_ordered_the_run_and_which_words_it_is_told_in_reach_the_report(paths: dict[str, Path]) -> None:
    """An observer, and a part of every UID."""
    found = context(run_of(*DAYS, key="ab"), paths, requested_by="jdoe", template_digest="abc")
    assert (found.requested_by, found.template_digest) == ("jdoe", "abc")
    assert context(run_of(*DAYS, key="ab"), paths).requested_by is None
