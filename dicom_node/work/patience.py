"""What a step does when not the run but the ground under it is at fault: it waits, and tries again.

A full or read-only disk, and a database that is away, are nobody's fault who waits for a report. Steps change nothing
twice, so the whole step is done again, with longer and longer pauses, until there is an end to patience.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import OperationalError

from dicom_node import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.observe.logs import Log

LONGEST_S: Final = 60.0
TRIES: Final = 24 * 60  # about a day
OF_THE_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def patiently(
    step: Callable[[str], None], log: Log, *, wait: Callable[[float], object] = time.sleep
) -> Callable[[str], None]:
    """Return a step that outlasts a full disk and a database that is away; everything else it raises as before."""

    def until_done(run_key: str) -> None:
        for tries in range(TRIES):
            try:
                return step(run_key)
            except (OSError, OperationalError) as error:
                if not _of_the_ground(error):
                    raise
                log.failure(events.STEP_DELAYED, error, run=run_key[:12], attempts=tries + 1)
            wait(min(2.0**tries if tries < 10 else LONGEST_S, LONGEST_S))
        return step(run_key)

    return until_done


def _of_the_ground(error: OSError | OperationalError) -> bool:
    return isinstance(error, OperationalError) or error.errno in OF_THE_DISK
