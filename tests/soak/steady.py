"""Steady load for as long as wanted, while memory, file handles, threads and databases are looked at: are they flat?

A study comes every few seconds and every patient is reported to two archives. The first third is warming up. Of the
rest, each quantity of each process must not grow by more than its tolerance in an hour, whatever it is by then; the
databases may grow with what is received and reported, but by no more for each at the end than at the beginning.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure

from tests.soak import promises
from tests.soak.patients import FEWEST_STUDIES, sending_order, write_patients
from tests.soak.sampling import Sample, sample, slope_per_hour
from tests.soak.senders import Senders
from tests.soak.site import NotInTimeError, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WARM_UP_SHARE: Final = 1 / 3
SHORTEST_MINUTES: Final = 20  # of which a slope says anything
MEMORY_MB_PER_HOUR, MEMORY_SHARE_PER_HOUR = 20.0, 0.05  # whichever is more
COUNT_PER_HOUR: Final = 3.0  # file handles, threads
LARGEST_WAL_MB: Final = 64.0
GROWTH_OF_GROWTH: Final = 1.25  # ledger bytes per instance: last half over first
SAMPLES: Final = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, and how much comes."""

    minutes: float
    studies_per_minute: float
    seed: int
    real_model: bool = False
    heads: bool = False  # synthetic heads, and so objects of full size, without the model


@dataclass
class Steady:
    """One run under steady load."""

    plan: Plan
    folder: Path
    say: Callable[[str], None] = print
    samples: list[Sample] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Load the node, look at it all the while, and return the report."""
        self.folder.mkdir(parents=True, exist_ok=True)
        studies_wanted = math.ceil(self.plan.minutes * self.plan.studies_per_minute) + 1
        count = math.ceil(studies_wanted / FEWEST_STUDIES)
        today = date.today()  # noqa: DTZ011 - a scanner's calendar day
        patients = write_patients(
            self.folder / "patients", count, seed=self.plan.seed, today=today, heads=self.plan.real_model
        )
        studies = sending_order(patients, seed=self.plan.seed)
        site = Site(folder=self.folder, seed=self.plan.seed, failing=0, real_model=self.plan.real_model)
        site.prepare(patients)
        senders = Senders(port=site.port, record=self.folder / "acknowledged.jsonl")
        try:
            site.start()
            senders.start()
            self._load(site, senders, studies)
            senders.put(studies)  # what is left, so that every patient can be reported
            in_time = self._wait_for_quiet(site, patients)
            senders.stop()
            site.stop()
            evidence = promises.Evidence(site=site, acknowledged=senders.acknowledged, patients=patients)
            found = promises.broken(evidence)
        finally:
            senders.stop()
            site.close()
        figure(self.samples).savefig(self.folder / "steady.png", dpi=120)
        return self._report(found, in_time=in_time)

    def _load(self, site: Site, senders: Senders, studies: list[Any]) -> None:
        """Give studies at a steady rate and take them from the list; look at the site at even intervals."""
        begun = time.monotonic()
        every_s = max(1.0, self.plan.minutes * 60 / SAMPLES)
        given, next_look_s = 0, 0.0
        while (now_s := time.monotonic() - begun) < self.plan.minutes * 60:
            wanted = int(now_s / 60 * self.plan.studies_per_minute) + 1
            senders.put(studies[: wanted - given])
            del studies[: wanted - given]
            given = wanted
            if now_s >= next_look_s:
                self.samples.append(sample(site, now_s))
                next_look_s = now_s + every_s
                if len(self.samples) % 30 == 1:
                    self.say(f"{now_s / 60:.1f} min: {_line(self.samples[-1])}")
            time.sleep(0.2)

    def _wait_for_quiet(self, site: Site, patients: list[Any]) -> bool:
        try:
            promises.wait_for_quiet(site, patients, limit_s=1800)
        except NotInTimeError as error:
            self.say(str(error))
            return False
        return True

    def _report(self, found: dict[str, list[str]], *, in_time: bool) -> dict[str, Any]:
        growth = growths(self.samples)
        long_enough = self.plan.minutes >= SHORTEST_MINUTES
        grows = [each["what"] for each in growth if each["grows"]] if long_enough else []
        found["nothing grows"] = grows
        if not in_time:
            found["every due report is issued"].append("not everything ended in time")
        kept = not any(found.values())
        verdict = ("flat" if long_enough else "kept") if kept else "broken"
        return {
            "verdict": verdict,
            "minutes": self.plan.minutes,
            "studies_per_minute": self.plan.studies_per_minute,
            "real_model": self.plan.real_model,
            "heads": self.plan.heads,
            "instances": self.samples[-1].instances,
            "growth": growth,
            "broken": {promise: each[:20] for promise, each in found.items()},
            "samples": [asdict(each) for each in self.samples],
        }


def growths(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return each quantity with its middle value, its growth per hour after the warm-up, and what is tolerated."""
    warm = [each for each in samples if each.at_s >= samples[-1].at_s * WARM_UP_SHARE]
    found = []
    for role in sorted({role for each in warm for role in each.processes}):
        seen = [(each.at_s, each.processes[role]) for each in warm if role in each.processes]
        times = [at_s for at_s, _ in seen]
        for what in ("memory_mb", "handles", "threads"):
            values = [float(getattr(held, what)) for _, held in seen]
            middle = sorted(values)[len(values) // 2]
            most = max(MEMORY_MB_PER_HOUR, MEMORY_SHARE_PER_HOUR * middle) if what == "memory_mb" else COUNT_PER_HOUR
            found.append(_growth(f"{role} {what}", middle, slope_per_hour(times, values), most))
        processes = len({held.pid for _, held in seen})
        found.append(_growth(f"{role} processes", 1, processes - 1, 0))
    for name in ("ledger.sqlite-wal", "engine.sqlite-wal"):
        largest = max((each.sizes_mb.get(name, 0.0) for each in warm), default=0.0)
        found.append(_growth(f"{name} largest_mb", largest, largest, LARGEST_WAL_MB))
    grown = [("ledger.sqlite", "instances"), ("engine.sqlite", "encoded")]
    return [*found, *(_growth_of_growth(warm, name, per) for name, per in grown)]


def _growth_of_growth(warm: Sequence[Sample], name: str, per: str) -> dict[str, Any]:
    """Compare what a database grew by for each instance, or report, in the last half with the first."""
    first, middle, last = warm[0], warm[len(warm) // 2], warm[-1]
    early, late = _mb_per(first, middle, name, per), _mb_per(middle, last, name, per)
    what = f"{name} kB per {'instance' if per == 'instances' else 'report'}, last half over first"
    return _growth(what, early * 1000, late / early if early > 0 else 1.0, GROWTH_OF_GROWTH)


def _mb_per(one: Sample, other: Sample, name: str, per: str) -> float:
    grown = other.sizes_mb.get(name, 0.0) - one.sizes_mb.get(name, 0.0)
    return grown / max(int(getattr(other, per)) - int(getattr(one, per)), 1)


def _growth(what: str, middle: float, found: float, most: float) -> dict[str, Any]:
    return {
        "what": what,
        "median": round(middle, 2),
        "found": round(found, 3),
        "tolerated": round(most, 2),
        "grows": found > most,
    }


def figure(samples: Sequence[Sample]) -> Figure:
    """Plot every quantity over time."""
    minutes = [each.at_s / 60 for each in samples]
    plot = Figure(figsize=(11, 8), layout="constrained")
    axes = plot.subplots(2, 3)
    for axis, what in zip(axes[0], ("memory_mb", "handles", "threads"), strict=True):
        for role in sorted({role for each in samples for role in each.processes}):
            seen = [(each.at_s / 60, getattr(each.processes[role], what)) for each in samples if role in each.processes]
            axis.plot(*zip(*seen, strict=True), label=role)
        axis.set(title=what.replace("_mb", " (MB)"), xlabel="minutes", ylim=(0, None))
        axis.legend()
    for axis, end in zip(axes[1], (".sqlite", ".sqlite-wal"), strict=False):
        for name in ("ledger", "engine"):
            axis.plot(minutes, [each.sizes_mb.get(name + end, 0) for each in samples], label=name + end)
        axis.set(title="databases (MB)" if end == ".sqlite" else "write-ahead logs (MB)", xlabel="minutes")
        axis.legend()
    axes[1][2].plot(minutes, [each.instances for each in samples], label="instances received")
    axes[1][2].plot(minutes, [each.encoded for each in samples], label="reports made")
    axes[1][2].set(title="load", xlabel="minutes")
    axes[1][2].legend()
    return plot


def table(report: dict[str, Any]) -> str:
    """Return a report as Markdown."""
    lines = ["| quantity | median | growth per hour | tolerated |", "|---|---|---|---|"]
    lines += [
        f"| {each['what']} | {each['median']} | {each['found']} | {each['tolerated']} |" for each in report["growth"]
    ]
    lines += ["", f"{report['minutes']} min, {report['instances']} instances: {report['verdict']}"]
    return "\n".join(lines)


def _line(found: Sample) -> str:
    memory = ", ".join(f"{role} {held.memory_mb:.0f} MB" for role, held in found.processes.items())
    return f"{found.instances} instances, {found.encoded} reports, {memory}"
