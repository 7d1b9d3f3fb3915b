"""Calls functions at intervals, each in its own thread, by a clock that nobody can set.

A scheduler that waits for a time of day stands still for an hour when the clock is put back by one.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Ticker:
    """Some functions called again and again; a call that takes longer than its interval delays the next one."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def every(self, seconds: float, work: Callable[[], object], *, first_after_s: float = 0.0) -> None:
        """Call a function, which must not raise, after a first wait and then at an interval in seconds."""

        def turn() -> None:
            pause = first_after_s
            while not self._stopping.wait(pause):
                begun = time.monotonic()
                work()
                pause = max(0.0, seconds - (time.monotonic() - begun))

        self._threads.append(threading.Thread(target=turn, name=f"every-{seconds:g}-s"))
        self._threads[-1].start()

    def stop(self) -> None:
        """Let the calls at work end, and make no more."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
