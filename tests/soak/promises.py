"""What must hold when all is quiet, whatever was killed: each promise as a function that returns what breaks it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from sqlalchemy import select

from dicom_node.ledger.tables import GONE, ArrivalState, arrival, delivery, handed_over, instance, outbox_object, run
from dicom_node.observe import overview
from dicom_node.timeline.model import Inputs, RunState
from inference.results import SaliencyMap
from sr_templates.read_report import read_report
from tests.soak import archive as archives
from tests.soak.site import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from tests.soak.patients import Patient
    from tests.soak.site import Site

REPORT: Final = "report"  # how the kinds of the reports begin
TWO_HOURS_S: Final = 7200
PREAMBLE: Final = 132  # bytes with the prefix DICM, PS3.10 7.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is held against what: the site on its disk, what its node acknowledged, and who was sent."""

    site: Site
    acknowledged: Mapping[str, str]  # SOP Instance UID -> the file that was sent
    patients: Sequence[Patient]


def broken(evidence: Evidence) -> dict[str, list[str]]:
    """Return every promise with what breaks it; the node must be stopped."""
    database = evidence.site.database()
    try:
        with database.read() as ledger:
            return {
                "databases are whole": databases(evidence.site.data),
                "acknowledged instances are there": acknowledged(evidence.site.data, ledger, evidence.acknowledged),
                "files and rows agree": files_and_rows(evidence.site.data, ledger),
                "every instance is read": unread(ledger),
                "no half file lies where files are whole": half_files(evidence.site.data),
                "one UID per object of a run": one_uid(evidence.site, ledger),
                "repeats have the same bytes": same_bytes(evidence.site, ledger),
                "every due report is issued": reports_issued(ledger, evidence.patients),
                "every report is at both archives": reports_arrived(evidence.site, ledger),
                "the log names nobody": identities(evidence.site.log, evidence.patients),
            }
    finally:
        database.close()


def databases(data: Path) -> list[str]:
    """Check both SQLite files page by page, and the references between rows."""
    found = []
    for name in ("ledger.sqlite", "engine.sqlite"):
        if (data / name).exists():
            found += [f"{name}: {each}" for each in _faults(data / name)]
    return found


def _faults(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            return faults + [f"row without parent: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        except sqlite3.DatabaseError as error:
            return [f"cannot be read: {error}"]


def acknowledged(data: Path, ledger: Connection, sent: Mapping[str, str]) -> list[str]:
    """Find acknowledged instances without a row, without a file, or with other bytes than were sent."""
    paths = defaultdict(list)
    for row in ledger.execute(select(arrival.c.sop_instance_uid, arrival.c.path)):
        paths[row.sop_instance_uid].append(data / "instances" / row.path)
    found = []
    for uid, original in sent.items():
        if uid not in paths:
            found.append(f"{uid}: no row")
        elif not any(path.is_file() and dataset_of(path) == dataset_of(Path(original)) for path in paths[uid]):
            found.append(f"{uid}: no file with the bytes that were sent")
    return found


def dataset_of(path: Path) -> bytes:
    """Return the bytes of a Part 10 file after its file meta information; none where it is no such file."""
    try:
        length = 12 + int(read_file_meta_info(path).FileMetaInformationGroupLength)
    except (InvalidDicomError, AttributeError, EOFError):
        return b""
    return path.read_bytes()[PREAMBLE + length :]


def files_and_rows(data: Path, ledger: Connection) -> list[str]:
    """Find rows whose file is missing or of another size or content, and results without their files."""
    found = []
    for row in ledger.execute(select(arrival.c.path, arrival.c.size_bytes).where(arrival.c.state.not_in(GONE))):
        path = data / "instances" / row.path
        if not path.is_file() or path.stat().st_size != row.size_bytes:
            found.append(f"instances/{row.path}: expected {row.size_bytes} bytes, found {_size(path)}")
    for row in ledger.execute(select(outbox_object.c.path, outbox_object.c.sha256)):
        path = data / "outbox" / row.path
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != row.sha256:
            found.append(f"outbox/{row.path}: not the bytes that were encoded")
    for row in ledger.execute(select(run.c.run_key).where(run.c.result.is_not(None))):
        maps = list((data / "results").glob(f"{row.run_key}-*.npz"))
        found += [] if maps else [f"results: none of run {row.run_key[:12]}"]
        found += [f"results/{path.name}: cannot be read" for path in maps if not _is_map(path)]
    return found


def unread(ledger: Connection) -> list[str]:
    """Find received instances that nobody has read."""
    query = select(arrival.c.sop_instance_uid).where(arrival.c.state == ArrivalState.RECEIVED)
    return [f"{uid}: not read yet" for uid in ledger.scalars(query)]


def half_files(data: Path) -> list[str]:
    """Find temporary files outside the folder for them, files of the outbox without a row, unreadable instances."""
    found = [str(path.relative_to(data)) for name in ("results", "outbox") for path in (data / name).glob(".*.part")]
    with contextlib.closing(sqlite3.connect(data / "ledger.sqlite")) as connection:
        known = {row[0] for row in connection.execute("SELECT path FROM outbox_object")}
    found += [f"outbox/{path.name}: no row" for path in (data / "outbox").glob("*.dcm") if path.name not in known]
    for path in (data / "instances").glob("[0-9a-f][0-9a-f]/*.dcm"):
        try:
            dcmread(path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            found.append(f"{path.relative_to(data)}: {type(error).__name__}")
    return found


def one_uid(site: Site, ledger: Connection) -> list[str]:
    """Find runs two of whose objects have one place, archives with objects we do not know, runs reported twice."""
    places = defaultdict(set)
    known = {}
    for row in ledger.execute(select(outbox_object)):
        places[row.run_key, row.encoding, row.position].add(row.sop_instance_uid)
        known[row.sop_instance_uid] = row.run_key
    found = [f"run {key[0][:12]}: {len(uids)} objects in one place" for key, uids in places.items() if len(uids) > 1]
    for name in site.archives:
        reported = defaultdict(set)
        for path in site.archive_folder(name).glob("*.dcm"):
            if path.stem not in known:
                found.append(f"archive {name}: {path.stem} is in no row")
            ds = dcmread(path)
            if ds.Modality == "SR":
                reported[read_report(ds).run.run_key].add(path.stem)
        twice = {key: uids for key, uids in reported.items() if len(uids) > 1}
        found += [f"archive {name}: run {key[:12]} has {len(uids)} SR" for key, uids in twice.items()]
    return found


def same_bytes(site: Site, ledger: Connection) -> list[str]:
    """Find objects that an archive was sent in two forms, or that are not those of the outbox."""
    paths = {row.sop_instance_uid: row.path for row in ledger.execute(select(outbox_object))}
    found = []
    for name in site.archives:
        forms = defaultdict(set)
        for each in archives.answers(site.archive_folder(name)):
            if "uid" in each:
                forms[each["uid"], each["syntax"]].add(each["sha256"])
        found += [f"archive {name}: {key[0]} came in {len(all_)} forms" for key, all_ in forms.items() if len(all_) > 1]
        for path in site.archive_folder(name).glob("*.dcm"):
            ours = site.data / "outbox" / paths.get(path.stem, "none")
            if ours.is_file() and dcmread(ours) != dcmread(path):
                found.append(f"archive {name}: {path.stem} is not what lies in the outbox")
    return found


def reports_issued(ledger: Connection, patients: Sequence[Patient]) -> list[str]:
    """Find patients whose case is not reported, or whose report does not rest on everything that was sent."""
    cases = {each["patient_id"]: each for each in overview.status(ledger)["cases"]}
    found = []
    for patient in patients:
        case = cases.get(patient.patient_id)
        if case is None or case["state"] != "reported":
            reasons = "" if case is None else f": {case['state']}, {[each['code'] for each in case['reasons']]}"
            found.append(f"{patient.patient_id}: not reported{reasons}")
            continue
        text = ledger.scalar(select(run.c.inputs).where(run.c.run_key == case["run_key"]))
        read = {
            each.sop_instance_uid
            for point in Inputs.from_json(text or "").time_points
            for series in point.series
            for each in series.instances
        }
        missing = patient.sop_instance_uids() - read
        found += [f"{patient.patient_id}: its report leaves {len(missing)} instances out"] if missing else []
    failed = ledger.execute(select(run.c.run_key, run.c.error).where(run.c.state == RunState.FAILED))
    return [*found, *(f"run {row.run_key[:12]} failed: {row.error}" for row in failed)]


def reports_arrived(site: Site, ledger: Connection) -> list[str]:
    """Find issued reports that an archive does not hold whole, whatever the ledger says."""
    found = []
    reported = set(ledger.scalars(select(run.c.run_key).where(run.c.state == RunState.REPORTED)))
    kinds = {row.sop_instance_uid: row.kind for row in ledger.execute(select(outbox_object))}
    sent = set()
    for row in ledger.execute(select(delivery)):
        sent.add((row.run_key, row.destination))
        if row.state != "sent":
            found.append(f"run {row.run_key[:12]} to {row.destination}: {row.state}, {row.error}")
        handed = ledger.scalars(
            select(handed_over.c.sop_instance_uid).where(
                handed_over.c.run_key == row.run_key, handed_over.c.destination == row.destination
            )
        ).all()
        there = [uid for uid in handed if (site.archive_folder(row.destination) / f"{uid}.dcm").is_file()]
        images = sum(not kinds[uid].startswith(REPORT) for uid in there)
        if row.run_key in reported and (len(there) != len(handed) or images != 2 or len(there) != 3):
            found.append(f"run {row.run_key[:12]}: {row.destination} holds {len(there)} of {len(handed)} objects")
    wanted = {(key, name) for key in reported for name in site.archives}
    return [*found, *(f"run {key[:12]}: no delivery to {name}" for key, name in sorted(wanted - sent))]


def identities(log: Path, patients: Sequence[Patient]) -> list[str]:
    """Find patients whom the log names."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return [f"{each.patient_id} stands in the log" for each in patients if each.patient_id in text]


def left_over(site: Site) -> list[str]:
    """Let what a kill left behind grow old and the node start again: then exactly the files with a row are there."""
    instances = site.data / "instances"
    for path in instances.rglob("*"):
        if path.is_file():
            at = path.stat().st_mtime - TWO_HOURS_S
            os.utime(path, (at, at))
    site.start()
    site.stop()
    database = site.database()
    try:
        with database.read() as ledger:
            known = set(ledger.scalars(select(arrival.c.path)))
    finally:
        database.close()
    there = {str(path.relative_to(instances)) for path in instances.rglob("*") if path.is_file()}
    return [f"{each}: no row" for each in sorted(there - known)] + [f"{each}: lost" for each in sorted(known - there)]


def quiet(site: Site, patients: Sequence[Patient]) -> bool:
    """Say whether every patient is reported everywhere, and nothing is left to read, decide, run or deliver."""
    database = site.database()
    try:
        with database.read() as ledger:
            held = len(list(ledger.scalars(select(instance.c.sop_instance_uid))))
            if unread(ledger) or held < sum(len(study.paths) for each in patients for study in each.studies):
                return False
            open_runs = ledger.scalar(
                select(run.c.run_key).where(run.c.state.in_((RunState.QUEUED, RunState.RUNNING))).limit(1)
            )
            return open_runs is None and not unsent(ledger) and not reports_issued(ledger, patients)
    finally:
        database.close()


def unsent(ledger: Connection) -> bool:
    """Say whether a report is on its way."""
    query = select(delivery.c.run_key).where(delivery.c.state.in_(("pending", "retrying"))).limit(1)
    return ledger.scalar(query) is not None


def wait_for_quiet(site: Site, patients: Sequence[Patient], *, limit_s: float) -> None:
    """Wait until nothing is left to do.

    Raises:
        NotInTimeError: if that does not come about.
    """
    wait_until("every report to be delivered", lambda: quiet(site, patients), limit_s=limit_s, every_s=0.5)


def _is_map(path: Path) -> bool:
    try:
        SaliencyMap.load(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    return True


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes" if path.is_file() else "none"
