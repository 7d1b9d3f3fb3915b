"""Kills a node's processes again and again while patients arrive and archives fail, then asks what became of all.

Kills fall at named points (`inject.kill_points`) and at random, on one process or on all at once; now and then the
engine's tables are lost with them. The driver never repairs anything: it starts what it killed the supervisor of, and
waits. Two limits are kept, for beyond them the node parks work on purpose: a run whose worker dies more than three
times is failed, and a file that kills its reader three times is set aside.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

import dicom_node
from dicom_node.ledger.tables import run
from tests.soak import archive, promises
from tests.soak.inject.kill_points import POINTS, arm, disarm
from tests.soak.patients import sending_order, write_patients
from tests.soak.senders import Senders
from tests.soak.site import NotInTimeError, Site, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tests.soak.patients import Patient

RANDOM_SHARE: Final = 0.25  # of the kills that do not have a point of their own
GROUP_SHARE: Final = 0.35  # of the kills at a point that take every process of the node
ENGINE_LOST_SHARE: Final = 0.15  # of the kills of all processes
FEED_AFTER_S: Final = 4.0  # nothing is on its way: have another study sent
MOST_ATTEMPTS: Final = 6  # to reach one point, before it is given up
IN_WORKER: Final = ("inference.", "saliency.", "result.", "header.", "object.", "objects.", "checkpoint.")
MOST_STRAIN: Final = 2  # kills that a run bears before it has to end; as many again may be under way: 3 are fatal
MOST_DEATHS: Final = 2  # of one role before the supervisor would make it wait for long
AT_RANDOM: Final = {"node": 3, "worker": 3, "reader": 2, "supervisor": 1, "all": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is killed, at which points, and when to stop killing."""

    kills: int
    patients: int
    seed: int
    minutes: float = 60
    points: tuple[str, ...] = POINTS
    random_share: float = RANDOM_SHARE
    group_share: float = GROUP_SHARE
    at_once: int = 3  # points armed side by side
    failing: float = 0.2
    patience_s: float = 60  # for a point to be reached
    mutant: str | None = None
    real_model: bool = False


@dataclass
class Crash:
    """One run of the driver; in the folder of an earlier one it goes on where that ended."""

    plan: Plan
    folder: Path
    say: Callable[[str], None] = print
    kills: list[dict[str, Any]] = field(default_factory=list)
    site: Site = field(init=False)
    senders: Senders = field(init=False)

    def __post_init__(self) -> None:
        """Take up what an earlier run left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._today = self._begin()
        if self._kills_file.exists():
            self.kills = [json.loads(line) for line in self._kills_file.read_text(encoding="utf-8").splitlines()]
        self._rng = random.Random(self.plan.seed * 1000 + len(self.kills))
        self._deaths: Counter[str] = Counter()  # since the supervisor started
        self._started_at = time.time()
        self._strain, self._encoded = 0, 0
        self._released = 0
        self._attempts: Counter[str] = Counter()
        self._later: deque[str] = deque()
        self._end = time.monotonic() + 60 * self.plan.minutes
        self.site = Site(
            folder=self.folder,
            seed=self.plan.seed,
            failing=self.plan.failing,
            mutant=self.plan.mutant,
            real_model=self.plan.real_model,
        )

    def _begin(self) -> date:
        """Return the day on which this run began; kills of another version of the node count for nothing.

        Raises:
            ValueError: if the folder holds a run of another version.
        """
        begun, now = self.folder / "begun.json", version()
        if not begun.exists():
            today = date.today().isoformat()  # noqa: DTZ011 - a scanner's calendar day
            begun.write_text(json.dumps({"today": today, "version": now}), encoding="utf-8")
        found = json.loads(begun.read_text(encoding="utf-8"))
        if found["version"] != now:
            msg = f"{self.folder}: kills of another version of the node (expected {now}, found {found['version']})"
            raise ValueError(msg)
        return date.fromisoformat(found["today"])

    @property
    def _kills_file(self) -> Path:
        return self.folder / "kills.jsonl"

    def run(self) -> dict[str, Any]:
        """Kill as planned, let everything end, and return the report."""
        begun = time.monotonic()
        patients = write_patients(
            self.folder / "patients",
            self.plan.patients,
            seed=self.plan.seed,
            today=self._today,
            heads=self.plan.real_model,
        )
        self._studies = sending_order(patients, seed=self.plan.seed)
        self.site.prepare(patients)
        self.senders = Senders(port=self.site.port, record=self.folder / "acknowledged.jsonl")
        try:
            self.site.start()
            self.senders.start()
            self._kill_as_planned()
            in_time = self._let_everything_end(patients)
            self.senders.stop()
            self.site.stop()
            evidence = promises.Evidence(site=self.site, acknowledged=self.senders.acknowledged, patients=patients)
            found = promises.broken(evidence)
            found["what a kill leaves behind is removed"] = promises.left_over(self.site)
            return self._report(found, in_time=in_time, seconds=time.monotonic() - begun)
        finally:
            self.senders.stop()
            self.site.close()

    def _kill_as_planned(self) -> None:
        queue = self._queue()
        while queue and len(self.kills) < self.plan.kills and time.monotonic() < self._end:
            self._release()
            self._ease()
            self._see_that_it_runs()
            if max(self._deaths.values(), default=0) > MOST_DEATHS:
                self._kill_at_random("all")
            elif self._rng.random() < self.plan.random_share:
                self._kill_at_random(self._rng.choices(list(AT_RANDOM), list(AT_RANDOM.values()))[0])
            else:
                self._kill_at(self._batch(queue))

    def _queue(self) -> deque[str]:
        """Return points to be killed at: first those without a kill yet, then more of all, in an order of chance."""
        done = {each["point"] for each in self.kills}
        first = [each for each in self.plan.points if each not in done]
        more = self._rng.choices(self.plan.points, k=self.plan.kills) if self.plan.points else []
        self._rng.shuffle(first)
        return deque([*first, *more])

    def _batch(self, queue: deque[str]) -> dict[str, bool]:
        """Take some points from the queue, each with whether all processes go with it, as far as a run bears it."""
        batch: dict[str, bool] = {}
        wanted = min(self.plan.at_once, self.plan.kills - len(self.kills), len(queue))
        for _ in range(len(queue)):
            point = queue.popleft()
            group = self._rng.random() < self.plan.group_share
            strain = sum(all_of_it or each.startswith(IN_WORKER) for each, all_of_it in batch.items())
            if strain >= MOST_STRAIN:
                group = False
            bearable = strain < MOST_STRAIN or not point.startswith(IN_WORKER)
            if len(batch) < wanted and point not in batch and bearable:
                batch[point] = group
            else:
                queue.append(point)
        self._later = queue
        return batch

    def _kill_at(self, points: dict[str, bool]) -> None:
        """Arm points and wait until processes died of each, or of none for too long."""
        seen = len(self._hits())
        armed = set(points)
        for point, group in points.items():
            arm(str(self.site.points), point, group=group)
        last, fed = time.monotonic(), time.monotonic()
        while armed and time.monotonic() - last < self.plan.patience_s:
            for hit in self._hits()[seen:]:
                seen += 1
                armed.discard(hit["point"])
                self._hit(hit)
                last = fed = time.monotonic()
            if time.monotonic() - fed > FEED_AFTER_S and self._is_at_rest():
                self._release(more=1)
                fed = time.monotonic()
            time.sleep(0.02)
        for point in armed:
            if disarm(str(self.site.points), point):
                self._not_reached(point)
            else:  # at the last moment
                (hit,) = wait_until("a kill to be written down", self._next_hit(seen), limit_s=60)
                seen += 1
                self._hit(hit)

    def _hit(self, hit: dict[str, Any]) -> None:
        """Count a kill at a point; whoever died before the node was last started is not started for again."""
        self._killed(hit["point"], "all" if hit["group"] else hit["role"], gone=hit["at"] < self._started_at)

    def _not_reached(self, point: str) -> None:
        self.say(f"  {point} was not reached")
        self._attempts[point] += 1
        if self._attempts[point] < MOST_ATTEMPTS:
            self._later.append(point)

    def _is_at_rest(self) -> bool:
        """Whether nothing is on its way: then no point is reached unless something more comes."""
        if not self.senders.idle:
            return False
        database = self.site.database()
        try:
            with database.read() as ledger:
                return not (self._is_open(ledger) or promises.unread(ledger) or promises.unsent(ledger))
        finally:
            database.close()

    def _kill_at_random(self, target: str) -> None:
        if target == "reader" and self.kills and self.kills[-1]["target"] == "reader":
            target = "node"
        if self._rng.random() < 0.7:
            self.site.wait_until_listening()
        time.sleep(self._rng.uniform(0, 1.5))
        if target == "all":
            self.site.kill_all()
        else:
            pids = self.site.pids(target)
            if not pids:
                return
            os.kill(self._rng.choice(pids), signal.SIGKILL)
        self._killed("random", target)

    def _killed(self, point: str, target: str, *, gone: bool = False) -> None:
        line = {"point": point, "target": target, "at": time.time()}
        self.kills.append(line)
        with self._kills_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.say(f"kill {len(self.kills):3d} of {self.plan.kills}: {target} at {point}")
        if target in {"worker", "all", "supervisor"}:
            self._strain += 1
        if gone:
            return
        if target in {"all", "supervisor"}:
            self._start_again()
        else:
            self._deaths[target] += 1

    def _start_again(self) -> None:
        if self.site.process is not None:
            self.site.wait_until_gone()
        if self._rng.random() < ENGINE_LOST_SHARE:
            for path in self.site.data.glob("engine.sqlite*"):
                path.unlink()
            self.say("  the engine's tables are lost too")
        self._deaths.clear()
        self._started_at = time.time()
        self.site.start()

    def _see_that_it_runs(self) -> None:
        """Start a node whose supervisor died in some other way than by one of our kills."""
        if not self.site.is_running:
            self.say("  the supervisor is gone")
            self._start_again()

    def _ease(self) -> None:
        """Let a run end before its worker is killed once more; nothing to do where none is open."""
        encoded, is_open = self._runs()
        if encoded > self._encoded:
            self._strain, self._encoded = 0, encoded
        if not is_open:
            self._strain = 0
        if self._strain < MOST_STRAIN:
            return
        try:
            wait_until("a run to end", self._has_eased, limit_s=300)
        except NotInTimeError as error:
            self.say(str(error))
        else:
            self._strain, self._encoded = 0, self._runs()[0]

    def _has_eased(self) -> bool:
        encoded, is_open = self._runs()
        return encoded > self._encoded or not is_open or not self.site.is_running

    def _runs(self) -> tuple[int, bool]:
        """Return how many runs were encoded, and whether any is open."""
        database = self.site.database()
        try:
            with database.read() as ledger:
                encoded = ledger.scalar(select(func.count()).where(run.c.encoded_at.is_not(None))) or 0
                return encoded, self._is_open(ledger)
        finally:
            database.close()

    @staticmethod
    def _is_open(ledger: Connection) -> bool:
        waiting = select(run.c.run_key).where(run.c.state.in_(("queued", "running"))).limit(1)
        return ledger.scalar(waiting) is not None

    def _release(self, *, more: int = 0) -> None:
        """Have as many studies sent as the kills have come, so that there is work until the end."""
        share = (len(self.kills) + 1) / max(self.plan.kills, 1)
        wanted = max(3 + math.ceil(share * len(self._studies)), self._released + more)
        self.senders.put(self._studies[self._released : wanted])
        self._released = min(wanted, len(self._studies))
        if more and self._released == len(self._studies) and self.senders.idle:
            self.senders.put_again(self._rng.choice(self._studies))

    def _let_everything_end(self, patients: list[Patient]) -> bool:
        self.senders.put(self._studies[self._released :])
        self.say(f"{len(self.kills)} kills; waiting for everything to end")
        if not self.site.is_running:
            self._start_again()
        try:
            wait_until("everything to be acknowledged", lambda: self.senders.idle, limit_s=1800)
            promises.wait_for_quiet(self.site, patients, limit_s=1800)
        except NotInTimeError as error:
            self.say(str(error))
            return False
        return True

    def _next_hit(self, seen: int) -> Callable[[], list[dict[str, Any]]]:
        return lambda: self._hits()[seen : seen + 1]

    def _hits(self) -> list[dict[str, Any]]:
        path = self.site.points / "hits.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _report(self, found: dict[str, list[str]], *, in_time: bool, seconds: float) -> dict[str, Any]:
        by_point = Counter(each["point"] for each in self.kills)
        not_reached = [each for each in self.plan.points if not by_point[each]]
        kept = in_time and not any(found.values())
        complete = len(self.kills) >= self.plan.kills and not not_reached
        return {
            "verdict": ("kept" if kept else "broken") + ("" if complete else ", incomplete"),
            "seed": self.plan.seed,
            "patients": self.plan.patients,
            "studies": len(self._studies),
            "acknowledged": len(self.senders.acknowledged),
            "sent_again": self.senders.again,
            "kills": len(self.kills),
            "kills_by_target": dict(Counter(each["target"] for each in self.kills)),
            "kills_by_point": {each: by_point[each] for each in (*self.plan.points, "random")},
            "not_reached": not_reached,
            "archives": {name: self._archive(name) for name in self.site.archives},
            "everything_ended": in_time,
            "broken": {promise: each[:20] for promise, each in found.items()},
            "seconds": round(seconds),
        }

    def _archive(self, name: str) -> dict[str, int]:
        return dict(Counter(each["how"] for each in archive.answers(self.site.archive_folder(name))))


def version() -> str:
    """Return a digest of the node's source."""
    digest = hashlib.sha256()
    for path in sorted(Path(dicom_node.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def table(report: dict[str, Any]) -> str:
    """Return a report as Markdown."""
    lines = ["| point | kills |", "|---|---|"]
    lines += [f"| {point} | {count} |" for point, count in report["kills_by_point"].items()]
    lines += ["", "| promise | broken |", "|---|---|"]
    lines += [f"| {promise} | {len(found) or 'no'} |" for promise, found in report["broken"].items()]
    lines += ["", f"{report['kills']} kills, {report['acknowledged']} instances acknowledged: {report['verdict']}"]
    return "\n".join(lines)
