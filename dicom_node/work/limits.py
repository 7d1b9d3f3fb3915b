"""What one run may cost: its time, its memory, and how many workers it may take down.

A run that never ends is ended by the kernel's timer, which needs no cooperation of the code it ends; one that eats the
memory is ended by the supervisor, which watches from outside. Either way the worker dies and is replaced, as it does
when the code crashes. A mark in a file says what the worker was at when it died: the new worker reads it before it
takes up anything, counts the death in the ledger, and parks the run after three, with what the supervisor says of the
last. A worker that is told to stop leaves no mark, and one that went down with its supervisor is not counted.
"""

from __future__ import annotations

import contextlib
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.ledger import patients, runs
from dicom_node.timeline.model import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicom_node.ledger.database import Database
    from dicom_node.settings import Inference

MOST_DEATHS: Final = 3
CAUSE_VARIABLE: Final = "DICOM_NODE_LAST_EXIT"  # what a supervisor says to a worker of the one before
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
SHARE_OF_MEMORY: Final = 0.8  # for all workers together, where the configuration names no limit
GB: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use."""

    seconds: float
    memory_bytes: float

    @classmethod
    def of(cls, inference: Inference) -> Limits:
        """Return the limits of a configuration."""
        total_bytes = PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")
        share = SHARE_OF_MEMORY * total_bytes / inference.workers
        wanted = inference.max_memory_gb
        return cls(seconds=60 * inference.max_run_minutes, memory_bytes=share if wanted is None else wanted * GB)

    def cause(self, exit_code: int, *, used_bytes: float | None = None) -> str:
        """Say how a worker ended; `used_bytes` is what it was killed for."""
        if used_bytes is not None:
            return f"used {used_bytes / GB:.2f} GB of memory; the limit is {self.memory_bytes / GB:.2f} GB"
        if exit_code == -signal.SIGALRM:
            return f"did not end within {self.seconds / 60:g} minutes"
        if exit_code < 0:
            return f"died of {signal.Signals(-exit_code).name}"
        return f"ended with exit code {exit_code}"


def memory_bytes(pid: int) -> float:
    """Return the memory that a process holds; 0 where it is gone, or no /proc tells."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return float(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    return 0.0


@dataclass(frozen=True, slots=True)
class WorkMark:
    """A file that names the run a worker is at."""

    path: Path

    def limited(self, step: Callable[[str], None], limits: Limits) -> Callable[[str], None]:
        """Return a step that leaves a mark while it is at work, and ends this process when it takes too long."""

        def within_limits(run_key: str) -> None:
            with self._at_work(run_key), _ends_within(limits.seconds):
                step(run_key)

        return within_limits

    def left(self) -> str | None:
        """Return the run at which the last worker died, None if it was told to stop or did nothing."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.read_text(encoding="ascii").strip() or None
        return None

    def clear(self) -> None:
        """Say that nothing is being worked on."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    @contextmanager
    def _at_work(self, run_key: str) -> Iterator[None]:
        with contextlib.suppress(OSError):  # a full disk must not stop a run that may need none of it
            self.path.write_text(run_key, encoding="ascii")
        try:
            yield
        finally:
            self.clear()


def count_death(database: Database, mark: WorkMark, cause: str | None) -> str | None:
    """Count that a run took its worker down, and park it when it did so too often; return its key.

    Args:
        database: the ledger.
        mark: what the worker before this one left.
        cause: how it ended, as its supervisor says; None: that was not there either, which counts for nothing.
    """
    run_key = mark.left()
    mark.clear()
    if run_key is None or cause is None:
        return None
    with database.write() as ledger:
        run = runs.get(ledger, run_key)
        if run is None or run.state not in runs.OPEN_STATES:
            return None
        deaths = runs.count_rescue(ledger, run_key)
        reason = f"took its worker down {deaths} times; the last time it {cause}"
        if deaths >= MOST_DEATHS:
            runs.set_state(ledger, run_key, RunState.FAILED, reason)
            patients.touch(ledger, run.patient_row)
        else:
            runs.note_error(ledger, run_key, reason)
    return run_key


@contextmanager
def _ends_within(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM when the block takes longer; one block at a time."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
