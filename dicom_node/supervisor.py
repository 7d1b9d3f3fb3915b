"""`dicom-node run`: one node process and one worker process per device, each replaced when it dies.

The supervisor does no work of its own. Its children hold one end of a pipe: when the supervisor is gone, however it
went, they read the end of the pipe and stop, so that no worker is left behind without its node.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node import events
from dicom_node.work.limits import CAUSE_VARIABLE, Limits, memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dicom_node.observe.logs import Log
    from dicom_node.settings import Inference

LONGEST_PAUSE_S: Final = 30.0
STEADY_AFTER_S: Final = 60.0
DRAIN_S: Final = 60.0
PIPE_VARIABLE: Final = "DICOM_NODE_SUPERVISOR_PIPE"
# mallopt(3): blocks of a megabyte go back to the system once they are free. Left alone, glibc raises that to 32 MB, and
# what threads needed for objects to send stays with them: 272 MB after 32 reports and growing, against 155 MB.
GIVE_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


@dataclass(slots=True)
class Child:
    """One process to keep alive: its command, what it may use, and how often it died lately."""

    role: str
    command: list[str]
    limits: Limits | None = None
    killed_at_bytes: float | None = None  # the memory it was killed for
    cause: str | None = None  # of the latest death
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    not_before: float = field(default=0.0)


def children_of(config: Path, inference: Inference) -> list[Child]:
    """Return the processes of a node: one that serves, and the workers."""
    base = [sys.executable, "-m", "dicom_node", "run", "--config", str(config), "--role"]
    workers = [
        Child("worker", [*base, "worker", "--slot", str(slot)], Limits.of(inference))
        for slot in range(inference.workers)
    ]
    return [Child("node", [*base, "node"]), *workers]


class Supervisor:
    """Keeps the processes of a node running until told to stop."""

    def __init__(self, children: Sequence[Child], log: Log) -> None:
        self._children = children
        self._log = log
        self._stopping = threading.Event()
        self._read_end, self._write_end = os.pipe()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        self._log.info(events.NODE_STARTED, pid=os.getpid())
        while not self._stopping.wait(0.2):
            for child in self._children:
                self._keep(child)
        return self._stop()

    def _keep(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.not_before:
                self._start(child, now)
        elif (code := child.process.poll()) is not None:
            child.deaths = 1 if now - child.started_at > STEADY_AFTER_S else child.deaths + 1
            child.not_before = now + min(2.0 ** (child.deaths - 1) - 1, LONGEST_PAUSE_S)
            child.process = None
            if child.limits is not None:
                child.cause = child.limits.cause(code, used_bytes=child.killed_at_bytes)
            child.killed_at_bytes = None
            self._log.warning(
                events.PROCESS_EXITED, role=child.role, exit_code=code, count=child.deaths, reason=child.cause or ""
            )
        elif child.limits is not None:
            self._bound_memory(child, child.limits)

    def _bound_memory(self, child: Child, limits: Limits) -> None:
        """End a worker that uses more than its share, before the system has to choose whom to end."""
        assert child.process is not None  # noqa: S101 - the caller just polled it
        used_bytes = memory_bytes(child.process.pid)
        if used_bytes > limits.memory_bytes:
            child.killed_at_bytes = used_bytes
            child.process.kill()

    def _start(self, child: Child, now: float) -> None:
        child.process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            child.command,
            pass_fds=(self._read_end,),
            env=self._environment(child),
            stdin=subprocess.DEVNULL,
        )
        child.started_at = now
        self._log.info(events.PROCESS_STARTED, role=child.role, pid=child.process.pid)

    def _environment(self, child: Child) -> dict[str, str]:
        told = {PIPE_VARIABLE: str(self._read_end)}
        if child.cause is not None:
            told[CAUSE_VARIABLE] = child.cause
        return (GIVE_BACK if child.role != "worker" else {}) | os.environ | told

    def _stop(self) -> int:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + DRAIN_S
        for process in running:
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.info(events.NODE_STOPPED, pid=os.getpid())
        return 0


def has_supervisor() -> bool:
    """Say whether this process was started by a supervisor."""
    return PIPE_VARIABLE in os.environ


def stop_with_supervisor(stop: Callable[[], None]) -> None:
    """Call `stop` when the supervisor of this process is gone; without one, do nothing."""
    descriptor = os.environ.get(PIPE_VARIABLE)
    if descriptor is None:
        return

    def watch() -> None:
        os.read(int(descriptor), 1)  # returns only at the end of the pipe: nobody ever writes
        stop()

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
