"""Reception has the right of way: what reads stored files waits for a lull, within limits.

Reading a file costs many times what storing it does, and would take interpreter, disk and the ledger's one write lock
from the senders who wait for their answers. Files that come without end are read all the same: after `LONGEST_S`, and
then all that there are.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET_S: Final = 0.25  # a sender that works through a series pauses for less
LONGEST_S: Final = 15.0


class Lull:
    """Says whether nothing is coming in; told by whoever receives, asked by whoever reads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_came = -QUIET_S
        self._waiting_since: float | None = None

    def came(self) -> None:
        """Note that something is coming in."""
        self._last_came = self._clock()

    def is_now(self) -> bool:
        """Say whether to read: nothing is coming in, or reading has waited for too long and has not caught up since."""
        now = self._clock()
        if now - self._last_came >= QUIET_S:
            return True
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= LONGEST_S

    def caught_up(self) -> None:
        """Note that there is nothing left to read."""
        self._waiting_since = None
