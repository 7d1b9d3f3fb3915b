"""What the ledger knows and the audit trail has not told yet, as audit messages. It reads, and changes nothing.

All parts of the node write what they did into the ledger anyway; the trail follows from it, as everything else does,
so no part has to remember to tell, and nothing is told that did not happen. How far it has been told is a set of
positions, kept with the messages by whoever calls.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from dicom_node.ledger import presence
from dicom_node.ledger.tables import DeliveryState, arrival, audit, delivery
from dicom_node.observe.audit_changes import CHANGES, changed, refusal_key, refused
from dicom_node.observe.audit_received import ARRIVALS, received
from dicom_node.observe.audit_sent import GIVEN_UP, asked, delivered, given_up
from dicom_node.observe.audit_teller import Collected

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.observe.audit_teller import Positions, Teller

LOOK_BACK: Final = timedelta(minutes=1)  # facts that carry a time are looked for this far behind the last look
LAST_LOOK: Final = "last look"


def collect(teller: Teller, ledger: Connection, positions: Positions, now: datetime) -> Collected:
    """Return what happened since these positions; without any, nothing, and where the ledger ends today."""
    if LAST_LOOK not in positions:
        return Collected(positions={LAST_LOOK: now.timestamp()} | _ends(ledger))
    last = datetime.fromtimestamp(positions[LAST_LOOK], UTC)
    since = min(last, now) - LOOK_BACK  # a clock that was set back hides nothing
    found = Collected(positions={LAST_LOOK: now.timestamp()})
    for part in (
        received(teller, ledger, positions, now),
        changed(teller, ledger, positions, now),
        refused(teller, ledger, positions, now),
        asked(teller, ledger, since),
        delivered(teller, ledger, since),
        given_up(teller, ledger, positions, now),
    ):
        found.facts += part.facts
        found.positions |= part.positions
    return found


def _ends(ledger: Connection) -> dict[str, float]:
    """Return where the ledger ends now: what is before has been done unaudited."""
    dead = select(delivery.c.run_key, delivery.c.destination, delivery.c.attempts)
    return {
        ARRIVALS: float(ledger.scalar(select(func.max(arrival.c.id))) or 0),
        CHANGES: float(ledger.scalar(select(func.max(audit.c.id))) or 0),
        **{refusal_key(row): float(str(row["count"])) for row in presence.refusals(ledger)},
        **{
            f"{GIVEN_UP}{row.run_key}/{row.destination}": float(row.attempts)
            for row in ledger.execute(dead.where(delivery.c.state == DeliveryState.DEAD))
        },
    }
