"""The clock that decisions are made by: the site's time, which does not jump unseen.

Quiet periods, waits and heartbeats are differences of times in the ledger, so that they survive a restart; a clock
that somebody puts forward would end them early, and one that is put back would make them hours longer. So every tick
holds the site's clock against one that nobody can set. Where they part, what is waited from is moved along in the
ledger (`ledger.clock`) before anything is decided, and only then is the new time believed.

Time in which the node was not there does not count as quiet either: nobody could have sent. At a start the last
heartbeat says how long that was. A machine that slept looks like one whose clock was put forward.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node import events
from dicom_node.ledger import clock, presence

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Receive

JUMP_S: Final = 5.0  # less is not worth moving anything; small steps add up until they are


class SteadyClock:
    """Tells the time of a process; `look` first, then decide by `now`."""

    def __init__(
        self,
        database: Database,
        executor_id: str,
        receive: Receive,
        log: Log,
        *,
        wall: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._executor_id = executor_id
        self._waits = timedelta(seconds=receive.quiet_period_s + receive.max_wait_s)
        self._log = log
        self._wall = wall
        self._monotonic = monotonic
        self._offset_s: float | None = None  # site's clock minus the other; none: not looked at yet

    def now(self) -> datetime:
        """Return the time, tz-aware in the site's zone, as it was believed at the last look."""
        if self._offset_s is None:
            return self._wall()
        return datetime.fromtimestamp(self._offset_s + self._monotonic(), UTC).astimezone()

    def look(self) -> None:
        """See whether the clock jumped, or we were away, and put right what is waited from."""
        wall, monotonic = self._wall(), self._monotonic()
        offset_s = wall.timestamp() - monotonic
        if self._offset_s is None:
            before, until = self._last_seen() or wall, wall  # what there is was noted before this process began
        elif abs(offset_s - self._offset_s) < JUMP_S:
            return
        else:
            before = until = datetime.fromtimestamp(self._offset_s + monotonic, UTC)
        self._put_right(before, until, wall)
        self._offset_s = offset_s

    def _last_seen(self) -> datetime | None:
        with self._database.read() as ledger:
            return presence.last_seen(ledger, self._executor_id)

    def _put_right(self, before: datetime, until: datetime, wall: datetime) -> None:
        by = wall - before
        if abs(by.total_seconds()) < JUMP_S:
            return
        with self._database.write() as ledger:
            if by > timedelta():
                clock.put_forward(ledger, clock.Jump(before=before, by=by, until=until), self._waits)
            else:
                clock.put_back(ledger, wall)
        self._log.warning(events.CLOCK_MOVED, seconds=round(by.total_seconds()))
