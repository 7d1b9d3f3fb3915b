"""Runs a campaign: workers that may be lost, a time limit for each case, and a table of what was found."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz.targets import SHARES, TARGETS, chance_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CASE_CPU_LIMIT_S: Final = 20.0  # processor time of one case; none takes a tenth of it
CASE_WALL_LIMIT_S: Final = 600.0  # of a case that waits for something; a busy machine makes it wait long, too
LOOK_S: Final = 2.0
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PEAK_LIMIT_MB: Final = 1024.0  # resident, of the process that reads a case
MOST_LOSSES: Final = 200  # of workers: more, and every second case would kill one
ABORTED: Final = f"died: exit {-signal.SIGABRT}"  # GDCM does so where an exception of its own is not caught
SLOW: Final = "took more"  # eight files of which the reader would stop each: none comes as far as a volume
DECODING: Final = frozenset({"headers", "volume"})  # a file that kills the reader never comes as far as a volume
BATCH: Final = 5000  # cases of one worker, for a leak to be seen and to end


@dataclass(slots=True)
class Found:
    """What a campaign found of one target."""

    target: str
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    defects: list[tuple[int, str]] = field(default_factory=list)  # number of the case, what happened
    slowest_s: float = 0.0
    peak_mb: float = 0.0

    def note(self, line: Mapping[str, object]) -> None:
        """Take in what a worker says of one case."""
        number = int(str(line["number"]))
        self.cases += 1
        self.outcomes[str(line["outcome"])] += 1
        self.slowest_s = max(self.slowest_s, float(str(line["took_s"])))
        self.peak_mb = max(self.peak_mb, peak := float(str(line["peak_mb"])))
        if line["defect"]:
            self.defects.append((number, str(line["defect"])))
        elif peak > PEAK_LIMIT_MB:
            self.defects.append((number, f"used {peak:.0f} MB (limit {PEAK_LIMIT_MB:.0f})"))

    def lose(self, number: int, how: str) -> None:
        """Take in that a worker was lost; what the node has a sacrificial process or a limit for is no defect."""
        self.cases += 1
        if how == ABORTED and self.target in DECODING:
            self.outcomes["codec aborted"] += 1
            return
        if how.startswith(SLOW) and self.target == "volume":
            self.outcomes["stopped for time"] += 1
            return
        self.outcomes["worker lost"] += 1
        self.defects.append((number, how))


def share(cases: int, targets: tuple[str, ...]) -> dict[str, int]:
    """Say how many of so many cases each target gets."""
    wanted = targets or tuple(TARGETS)
    whole = sum(SHARES[each] for each in wanted)
    parts = {each: cases * SHARES[each] // whole for each in wanted}
    parts[wanted[0]] += cases - sum(parts.values())
    return parts


def run(target: str, *, cases: int, seed: int, first: int = 0, keep: Path | None = None) -> Found:
    """Run cases of one target; those that fail are kept in a folder, if one is given."""
    found, next_number, end, losses = Found(target), first, first + cases, 0
    while next_number < end and losses < MOST_LOSSES:
        last = next_number
        for line in _worker(target, seed, next_number, min(BATCH, end - next_number)):
            if "lost" in line:
                losses += 1
                found.lose(next_number, str(line["lost"]))
                next_number += 1
            elif "closing" in line:
                found.defects.append((next_number - 1, f"after the last case: {line['closing']}"))
            elif "number" in line:
                found.note(line)
                next_number = int(str(line["number"])) + 1
        if next_number == last:
            found.defects.append((next_number, "the worker ran no case"))
            break
    if keep is not None:
        for number, what in found.defects:
            save(keep / f"{target}-{seed}-{number}", target, seed, number, what)
    return found


def save(folder: Path, target: str, seed: int, number: int, what: str) -> None:
    """Keep the files of a case, and what happened."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in TARGETS[target].make(chance_of(seed, target, number)).items():
        (folder / name).write_bytes(content)
    (folder / "what.txt").write_text(what, encoding="utf-8")


def table(all_found: list[Found]) -> str:
    """Return a table: cases, defects, slowest case, peak memory, outcomes."""
    lines = ["target   cases    defects  slowest  peak     outcomes"]
    for each in all_found:
        outcomes = ", ".join(f"{name} {count}" for name, count in each.outcomes.most_common(9))
        lines.append(
            f"{each.target:8} {each.cases:<8} {len(each.defects):<8} {each.slowest_s:6.2f} s "
            f"{each.peak_mb:5.0f} MB  {outcomes}"
        )
    return "\n".join(lines)


def _worker(target: str, seed: int, first: int, count: int) -> Iterator[dict[str, object]]:
    """Yield the lines of one worker; the last one says if it was lost."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.worker", target, str(seed), str(first), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
        try:
            while True:
                line = _next_line(process)
                if "done" in line:
                    return
                yield line
                if "lost" in line:
                    return
        finally:
            process.kill()


def _next_line(process: subprocess.Popen[bytes]) -> dict[str, object]:
    """Wait for what the worker says next, but not for ever."""
    assert process.stdout is not None
    began, used_s = time.monotonic(), _cpu_s(process.pid)
    while not select.select([process.stdout], [], [], LOOK_S)[0]:
        if (took_s := _cpu_s(process.pid) - used_s) > CASE_CPU_LIMIT_S:
            return {"lost": f"{SLOW} than {took_s:.0f} s of processor time"}
        if time.monotonic() - began > CASE_WALL_LIMIT_S:
            return {"lost": f"was silent for {CASE_WALL_LIMIT_S:.0f} s"}
    line = process.stdout.readline()
    found: dict[str, object] = json.loads(line) if line else {"lost": f"died: exit {process.wait()}"}
    return found


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process in seconds (utime and stime, proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
