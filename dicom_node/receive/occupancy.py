"""How many associations a peer has open, for the limit that it may have."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pynetdicom.association import Association

GRACE_S: Final = 1.0  # for an association whose end the peer knows already, and its thread does not
LOOK_AGAIN_S: Final = 0.02


class Occupancy:
    """The open associations of peers that may not have as many as they like."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[str, list[Association]] = {}

    def enter(self, calling_ae_title: str, association: Association, limit: int) -> bool:
        """Count an association in; say False, and do not, if there are as many as there may be, and none ends now."""
        deadline = time.monotonic() + GRACE_S
        while not self._entered(calling_ae_title, association, limit):
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_AGAIN_S)
        return True

    def _entered(self, calling_ae_title: str, association: Association, limit: int) -> bool:
        with self._guard:
            running = [each for each in self._open.get(calling_ae_title, ()) if _is_open(each)]
            room = len(running) < limit
            self._open[calling_ae_title] = [*running, association] if room else running
            return room


def _is_open(association: Association) -> bool:
    ended = association.is_released or association.is_aborted or association.is_rejected
    return association.is_alive() and not ended
