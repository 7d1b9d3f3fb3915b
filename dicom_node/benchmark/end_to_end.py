"""From the last image received to the report in the archive, through a real node: cold, and with one new time point.

Cold: all studies of the demo's phantom patient come at once to a node that has seen none. Cached: all but the newest
were reported before, and the newest comes. The quiet period, in which a node waits for more of a study, is taken off:
it is the site's choice. Times are the node's own, of its ledger; the archive is asked at the end for every object.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from dicom_node import app, settings
from dicom_node.benchmark.figures import ratio, spread, there_and_back, told
from dicom_node.benchmark.node_state import ledger_of
from dicom_node.benchmark.senders import storescu
from dicom_node.benchmark.servers import SENDER_AE, engines, node, orthanc, serving, write_config
from dicom_node.demo import ISSUER, PATIENT_SEED, task_with_maps
from dicom_node.demo_pacs import Archive, embedded_archive, fetch
from dicom_node.demo_results import sent_to
from dicom_node.errors import NodeError, UpstreamError
from dicom_node.ledger import cohort, deliveries
from dicom_node.ledger.tables import arrival
from dicom_node.observe import overview
from dicom_node.timeline.model import CohortFacts, Surgery
from inference.phantom import make_patient
from inference.phantom.study import StudyOptions, write_study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.benchmark.servers import Running
    from dicom_node.ledger.database import Database
    from inference.phantom import PhantomPatient

COLD: Final = "cold"
CACHED: Final = "cached"
DESTINATION: Final = "archive"
LONGEST_S: Final = 3600.0
NEWEST_DAYS_AGO: Final = 3
LOST_STATES: Final = ("failed", "ineligible", "ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happens in every round: a patient's studies, oldest first, and the node they are sent to."""

    patient: PhantomPatient
    folders: Sequence[Path]
    task: str  # a path
    quiet_period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One report: how long it took, without the quiet period."""

    kind: str
    round: int
    time_points: int
    objects: int
    seconds: float


def prepare(folder: Path, *, task: str, time_points: int, quiet_period_s: float, today: date | None = None) -> Story:
    """Write the studies of the demo's patient, the newest three days old.

    Raises:
        ConfigError: if there is no such task.
        OSError: if the disk says no.
    """
    last = (today or date.today()) - timedelta(days=NEWEST_DAYS_AGO)  # noqa: DTZ011 - a scanner's calendar day
    patient = make_patient(PATIENT_SEED, n_visits=time_points, last_visit=last)
    folders = [folder / f"visit-{visit}" for visit in range(time_points)]
    for visit, each in enumerate(folders):
        write_study(patient, visit, each, StudyOptions(localizer=True, truth=False))
    path = str(task_with_maps(task, folder).resolve())
    return Story(patient=patient, folders=folders, task=path, quiet_period_s=quiet_period_s)


def run(story: Story, rounds: int, folder: Path, say: Callable[[str], None]) -> list[Answer]:
    """Measure both, in turn, each on a new node with a new archive.

    Raises:
        NodeError: if a case ends without a report.
        UpstreamError: if the archive does not hold every object of it.
    """
    found = []
    for number in range(rounds):
        for kind in there_and_back([COLD, CACHED], number):
            found.append(_answer(story, kind, number, folder / f"{kind}-{number}"))
            say(f"round {number + 1}, {kind}: {found[-1].seconds:.1f} s")
    return found


def _answer(story: Story, kind: str, number: int, folder: Path) -> Answer:
    with ExitStack() as stack:
        archive = _archive(folder / "archive", stack)
        running = _node(story, archive, folder / "node", stack)
        database = stack.enter_context(closing(ledger_of(running.folder)))
        before = None
        if kind == CACHED:
            storescu(running, story.folders[:-1])
            before = _wait_for_report(database, None)["run_key"]
        storescu(running, story.folders[-1:] if kind == CACHED else story.folders)
        case = _wait_for_report(database, before)
        with database.read() as ledger:
            received: datetime = ledger.execute(select(func.max(arrival.c.received_at))).scalar_one()
            delivery = deliveries.get(ledger, case["run_key"], DESTINATION)
        assert delivery is not None  # noqa: S101 - it was waited for
        assert delivery.sent_at is not None  # noqa: S101 - it was waited for
        return Answer(
            kind=kind,
            round=number,
            time_points=len(story.folders),
            objects=_held(database, archive, case["run_key"]),
            seconds=(delivery.sent_at - received).total_seconds() - story.quiet_period_s,
        )


def _archive(folder: Path, stack: ExitStack) -> Archive:
    """Start Orthanc, or where there is none the demo's embedded archive."""
    if orthanc().is_installed:
        server = stack.enter_context(serving(orthanc(), folder))
        return Archive(host="127.0.0.1", port=server.port, ae_title=server.server.ae_title)
    return stack.enter_context(embedded_archive(folder))


def _node(story: Story, archive: Archive, folder: Path, stack: ExitStack) -> Running:
    """Start a node that knows the patient's surgery and delivers to the archive."""
    sections: dict[str, Any] = {
        "receive": {
            "peers": [{"ae_title": SENDER_AE, "hosts": ["127.0.0.1"], "default_issuer": ISSUER}],
            "quiet_period_s": story.quiet_period_s,
        },
        "pacs": [
            {
                "name": DESTINATION,
                "dimse": {"ae_title": archive.ae_title, "host": archive.host, "port": archive.port},
                "default_issuer": ISSUER,
            }
        ],
        "tasks": [story.task],
    }
    folder.mkdir(parents=True)
    engine = engines()[0]
    found = settings.load(write_config(folder, 104, engine, sections))  # the port is written again at the start
    app.prepare(found)
    facts = CohortFacts(diagnosis="glioma", surgeries=(Surgery(on=story.patient.surgery),))
    with closing(ledger_of(folder)) as database, database.write() as ledger:
        cohort.replace(ledger, ISSUER, story.patient.patient_id, facts)
    return stack.enter_context(serving(node(engine, role="all", **sections), folder))


def _wait_for_report(database: Database, before: str | None) -> Mapping[str, Any]:
    """Return the case when its report, another than the one before, was sent.

    Raises:
        NodeError: if the case ends otherwise, or not in time.
    """
    deadline = time.monotonic() + LONGEST_S
    told_last = "no case"
    while time.monotonic() < deadline:
        with database.read() as ledger:
            cases = overview.status(ledger)["cases"]
        for case in cases:
            told_last = f"{case['state']}: " + "; ".join(each["text"] for each in case["reasons"])
            if case["state"] in LOST_STATES:
                msg = f"the case ended as {told_last}"
                raise NodeError(msg)
            if case["state"] == "reported" and case["run_key"] != before and _is_sent(case):
                return dict(case)
        time.sleep(0.2)
    msg = f"the case was not reported within {LONGEST_S:.0f} s; last: {told_last}"
    raise NodeError(msg)


def _is_sent(case: Mapping[str, Any]) -> bool:
    return any(each["state"] in deliveries.DONE_STATES for each in case["deliveries"])


def _held(database: Database, archive: Archive, run_key: str) -> int:
    """Return how many objects of a run the archive holds.

    Raises:
        UpstreamError: if it does not hold all that it took.
    """
    with database.read() as ledger:
        sent = sent_to(ledger, run_key, DESTINATION)
    classes = sorted({each.sop_class_uid for each in sent})
    held = {str(ds.SOPInstanceUID) for ds in fetch(archive, "TEMPORALNODE", sent[-1].study_instance_uid, classes)}
    missing = sum(each.sop_instance_uid not in held for each in sent)
    if missing:
        msg = f"{archive.ae_title}: expected {len(sent)} objects of the report, {missing} of them are missing"
        raise UpstreamError(msg)
    return len(sent)


def summarize(found: Sequence[Answer]) -> dict[str, Any]:
    """Return seconds by kind, and cached over cold."""

    def seconds(kind: str) -> list[float]:
        return [each.seconds for each in found if each.kind == kind]

    return {
        "time_points": found[0].time_points,
        "seconds": {kind: spread(seconds(kind)) for kind in (COLD, CACHED)},
        "ratio": {COLD: {CACHED: ratio(seconds(CACHED), seconds(COLD))}},
        "rounds": [asdict(each) for each in found],
    }


def lines(summary: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return the table as its title and rows of cells."""
    count, cells = summary["time_points"], summary["seconds"]
    rows = [["last image received to report in the archive", "s, quiet period excluded"]]
    rows.append([f"cold, {count} time points", told(cells[COLD], 1)])
    rows.append([f"1 new time point, {count - 1} cached", told(cells[CACHED], 1)])
    rows.append(["cached/cold", f"{summary['ratio'][COLD][CACHED]:.2f}"])
    return [("end to end", rows)]
