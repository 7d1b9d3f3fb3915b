"""How far a node is with what it received, read from its ledger while it runs."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from dicom_node.errors import NodeError
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import ArrivalState, arrival, patient

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Select

    from dicom_node.benchmark.servers import Running

LONGEST_S: Final = 3600.0
LOOK_S: Final = 0.2
_UNREAD: Final = select(func.count()).select_from(arrival).where(arrival.c.state == ArrivalState.RECEIVED)


def ledger_of(folder: Path) -> Database:
    """Open the ledger of a node that works in this folder."""
    return Database(f"sqlite:///{folder / 'data' / 'ledger.sqlite'}")


def unread(node: Running) -> int:
    """Return how many of the files that it received the node has still to read."""
    with closing(ledger_of(node.folder)) as database, database.read() as ledger:
        return ledger.scalar(_UNREAD) or 0


def wait_until_read(node: Running) -> None:
    """Return when the node has read every file that it received.

    Raises:
        NodeError: if that does not come to an end.
    """
    _wait_for_none(node, _UNREAD, "files to be read")


def wait_until_decided(node: Running) -> None:
    """Return when the node has decided on every patient.

    Raises:
        NodeError: if that does not come to an end.
    """
    undecided = select(func.count()).select_from(patient).where(patient.c.decided_revision != patient.c.revision)
    _wait_for_none(node, undecided, "patients to be decided on")


def _wait_for_none(node: Running, count: Select[int], what: str) -> None:
    deadline = time.monotonic() + LONGEST_S
    with closing(ledger_of(node.folder)) as database:
        while time.monotonic() < deadline:
            with database.read() as ledger:
                if ledger.scalar(count) == 0:
                    return
            time.sleep(LOOK_S)
    msg = f"{node.server.name}: expected no {what} after {LONGEST_S:.0f} s"
    raise NodeError(msg)
