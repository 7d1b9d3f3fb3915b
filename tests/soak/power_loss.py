"""Cuts the power of a node at any write, in a replay of what its processes did to the disk, and opens what is left.

The node runs once, recorded call by call (`power/recorder.c`), while instances are acknowledged and archives take
reports; both are marked in the record. Then the record is played up to many cuts. At each one what was not synced is
dropped, all of it or piece by piece, and the rest must hold every promise given before the cut. At some of them a node
goes on from what is left until every patient is reported, and no archive gets a second report of a run.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.ledger.tables import outbox_object
from tests.soak import promises
from tests.soak.archive import HELD
from tests.soak.patients import sop_instance_uid, write_patients
from tests.soak.power.record import MARK, build, mark, read
from tests.soak.power.replay import Disk, write_out
from tests.soak.senders import Senders
from tests.soak.site import Site, open_ledger, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.soak.patients import Patient
    from tests.soak.power.record import Call

ACKNOWLEDGED: Final = "acknowledged"
STRICT_SHARE: Final = 0.5  # of the cuts that lose everything that was not synced; the others lose pieces of it
AFTER_A_MARK_SHARE: Final = 0.5  # of the cuts right after something was promised
SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is recorded, and how often the power is cut."""

    patients: int
    cuts: int
    seed: int
    restarts: int = 0  # cuts after which a node goes on to the end
    role: str | None = None  # "listener": reception alone, without workers and archives
    mutant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """What others were told before a cut: instances acknowledged (with their files), objects that archives hold."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    held: frozenset[tuple[str, str]] = frozenset()  # (the archive's folder, SOP Instance UID)

    def and_also(self, text: str) -> Promised:
        """Add what a mark says."""
        kind, one, two = text.split(" ", 2)
        if kind == HELD:
            return replace(self, held=self.held | {(one, two)})
        return replace(self, acknowledged={**self.acknowledged, one: two})


@dataclass
class PowerLoss:
    """One recording and its cuts."""

    plan: Plan
    folder: Path
    say: Callable[[str], None] = print
    site: Site = field(init=False)

    def __post_init__(self) -> None:
        """Have a site to record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rng = random.Random(self.plan.seed)
        self.site = Site(
            folder=self.folder / "recorded",
            seed=self.plan.seed,
            mutant=self.plan.mutant,
            role=self.plan.role,
            with_archives=self.plan.role is None,
        )

    def run(self) -> dict[str, Any]:
        """Record, cut and return the report."""
        begun = time.monotonic()
        self.site.folder.mkdir()
        self.site.recorder = build(self.folder)
        today = date.today()  # noqa: DTZ011 - a scanner's calendar day
        patients = write_patients(self.folder / "patients", self.plan.patients, seed=self.plan.seed, today=today)
        self._record(self.site, patients)
        calls = list(read(self.site.record))
        self.say(f"recorded {len(calls)} calls")
        unseen = self._unseen(calls)
        found = self._cut_often(calls, patients)
        found["the record is complete"] = unseen
        kept = not any(found.values())
        return {
            "verdict": "kept" if kept else "broken",
            "seed": self.plan.seed,
            "mutant": self.plan.mutant,
            "calls": dict(Counter(each.kind for each in calls)),
            "cuts": self.plan.cuts,
            "restarts": self.plan.restarts,
            "broken": {promise: each[:SHOWN] for promise, each in found.items()},
            "seconds": round(time.monotonic() - begun),
        }

    def _record(self, site: Site, patients: list[Patient]) -> None:
        """Have everything sent and, where there are workers, reported."""
        try:
            site.prepare(patients)
            site.start()
            senders = Senders(port=site.port, record=site.folder / "acknowledged.jsonl")
            if site.recorder is not None:
                senders.on_acknowledged = lambda uid: mark(
                    site.record, f"{ACKNOWLEDGED} {uid} {senders.acknowledged[uid]}"
                )
            senders.start()
            senders.put(study for each in patients for study in each.studies)
            wait_until("everything to be acknowledged", lambda: senders.idle, limit_s=1800)
            if site.role is None:
                promises.wait_for_quiet(site, patients, limit_s=1800)
            senders.stop()
            site.stop()
        finally:
            site.close()

    def _unseen(self, calls: list[Call]) -> list[str]:
        disk = Disk(str(self.site.data))
        disk.play(calls)
        return disk.differences()

    def _cut_often(self, calls: list[Call], patients: list[Patient]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {each: [] for each in LEFT}
        restarts = set(self._rng.sample(range(self.plan.cuts), self.plan.restarts))
        disk, promised, at = Disk(str(self.site.data)), Promised(), 0
        for number, cut in enumerate(self._cuts(calls)):
            disk.play(calls[at:cut])
            for each in calls[at:cut]:
                promised = promised.and_also(each.path) if each.kind == MARK else promised
            at = cut
            left = self.folder / f"cut-{number}"
            rng = None if self._rng.random() < STRICT_SHARE else self._rng
            write_out(disk.after_cut(rng), disk.root, left / "data")
            where = f"cut after {cut} of {len(calls)} calls, {'strict' if rng is None else 'torn'}"
            for promise, broken in broken_after_cut(left / "data", promised).items():
                found[promise] += [f"{where}: {each}" for each in broken]
            if number in restarts:
                self.say(f"going on after {where}")
                for promise, broken in self._go_on(left, promised, patients).items():
                    found.setdefault(promise, []).extend(f"gone on, {where}: {each}" for each in broken)
            shutil.rmtree(left)
        return found

    def _cuts(self, calls: list[Call]) -> list[int]:
        """Return after how many calls the power goes, in order: anywhere, or right after something was promised."""
        marks = [number + 1 for number, each in enumerate(calls) if each.kind == MARK]
        return sorted(
            self._rng.choice(marks)
            if marks and self._rng.random() < AFTER_A_MARK_SHARE
            else self._rng.randrange(1, len(calls) + 1)
            for _ in range(self.plan.cuts)
        )

    def _go_on(self, left: Path, promised: Promised, patients: list[Patient]) -> dict[str, list[str]]:
        """Start a node on what is left, with the archives as they were, and let everything end."""
        site = Site(folder=left, seed=self.plan.seed + 1)
        for archive in {name for name, _ in promised.held}:
            (left / archive).mkdir()
        for archive, uid in promised.held:
            shutil.copy(self.site.folder / archive / f"{uid}.dcm", left / archive)
        lines = [json.dumps({"uid": uid, "path": path}) for uid, path in promised.acknowledged.items()]
        (left / "acknowledged.jsonl").write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
        self._record(site, patients)
        sent = {
            sop_instance_uid(path): str(path) for each in patients for study in each.studies for path in study.paths
        }
        return promises.broken(promises.Evidence(site=site, acknowledged=sent, patients=patients))


LEFT: Final = (
    "databases are whole",
    "acknowledged instances survive",
    "rows have their files",
    "what archives hold is known",
)


def broken_after_cut(data: Path, promised: Promised) -> dict[str, list[str]]:
    """Open what a cut left and return which promises it breaks."""
    whole, survive, files, known = LEFT
    if not (data / "ledger.sqlite").exists():
        lost = [f"{uid}: no ledger" for uid in promised.acknowledged]
        return {survive: lost, known: [f"{uid}: no ledger" for _, uid in promised.held]}
    found = {whole: promises.databases(data)}
    if found[whole]:
        return found | {survive: [f"{uid}: the ledger is not whole" for uid in promised.acknowledged]}
    database = open_ledger(data)
    try:
        try:
            database.migrate()
        except SQLAlchemyError as error:
            return found | {whole: [f"ledger.sqlite: cannot be migrated: {type(error).__name__}"]}
        with database.read() as ledger:
            found[survive] = promises.acknowledged(data, ledger, promised.acknowledged)
            found[files] = promises.files_and_rows(data, ledger)
            ours = set(ledger.scalars(select(outbox_object.c.sop_instance_uid)))
            found[known] = [f"{uid} at {name}: in no row" for name, uid in promised.held if uid not in ours]
    finally:
        database.close()
    return found


def table(report: dict[str, Any]) -> str:
    """Return a report as Markdown."""
    lines = ["| promise | broken |", "|---|---|"]
    lines += [f"| {promise} | {len(found) or 'no'} |" for promise, found in report["broken"].items()]
    lines += ["", f"{sum(report['calls'].values())} calls, {report['cuts']} cuts: {report['verdict']}"]
    return "\n".join(lines)
