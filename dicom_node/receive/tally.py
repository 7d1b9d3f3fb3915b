"""How many objects each association brought, said once when it ends: a line for each would be a thousand a study."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from pynetdicom import evt

from dicom_node import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from dicom_node.observe.logs import Log


class Tally:
    """Counts what was stored, for any number of associations at a time."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._guard = threading.Lock()
        self._stored: Counter[Association] = Counter()

    @property
    def handlers(self) -> list[tuple[Any, Callable[[Event], None]]]:
        """What is to be bound to a server's events."""
        return [(evt.EVT_CONN_CLOSE, self._ended)]

    def stored(self, association: Association) -> None:
        """Count one object that was acknowledged."""
        with self._guard:
            self._stored[association] += 1

    def _ended(self, event: Event) -> None:
        with self._guard:
            count = self._stored.pop(event.assoc, 0)
        if count:
            self._log.info(
                events.ASSOCIATION_ENDED,
                calling_ae_title=str(event.assoc.requestor.ae_title).strip(),
                address=event.assoc.requestor.address,
                count=count,
            )
