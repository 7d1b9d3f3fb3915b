"""What a process and its children use, read from /proc (proc(5)): processor time, and memory at its highest."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
LOOK_S: Final = 0.25
PROC: Final = Path("/proc")
PARENT, USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM = 1, 11, 12, 13, 14  # fields of stat after the command


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that live, or ended and were not yet waited for."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(fields[PARENT], []).append(int(folder.name))
    found = [pid]
    for each in found:  # grows while it is walked
        found.extend(children.get(each, ()))
    return found


def processor_s(pid: int) -> float:
    """Return the seconds of processor time, user and system, of a process and its descendants since they started."""
    ticks = 0
    for each in tree(pid):
        fields = _stat(each)
        if fields:
            ticks += sum(fields[kind] for kind in (USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM))
    return ticks / TICKS_PER_S


class Memory:
    """Watches a process tree while the block lasts.

    `process_bytes` is the most that one process of it ever held (VmHWM); `tree_bytes` the most that all held together
    at a look, pages that they share counted for each.
    """

    def __init__(self, pid: int) -> None:
        self.process_bytes = self.tree_bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        found = [_memory(each) for each in tree(self._pid)]
        self.process_bytes = max([self.process_bytes, *(peak for peak, _ in found)])
        self.tree_bytes = max(self.tree_bytes, sum(now for _, now in found))


def _stat(pid: int) -> list[int]:
    """Return the numbers of a process, from its parent on; nothing where it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    state, *numbers = text.rpartition(")")[2].split()
    return [ord(state[0]), *map(int, numbers)]


def _memory(pid: int) -> tuple[int, int]:
    """Return (highest, present) resident bytes; of a process that is gone, zero."""
    lines: dict[str, str] = {}
    with suppress(OSError):
        text = (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return _kilobytes(lines.get("VmHWM")), _kilobytes(lines.get("VmRSS"))


def _kilobytes(text: str | None) -> int:
    return int(text.split()[0]) * 1024 if text else 0
