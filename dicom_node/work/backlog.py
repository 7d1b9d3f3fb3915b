"""Which deliveries go to the engine now: urgent ones first, and never so many that one archive takes every hand.

An archive at which something failed and still waits for its next try gets one delivery at a time, the most urgent that
is due: one that is away, or hangs until its timeout, cannot keep reports from the others. Once it takes one, all that
wait for it are due (`deliveries.sent`), so that a backlog of hours drains at once and in order of priority.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from dicom_node.deliver.consignment import job_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from collections.abc import Set as AbstractSet

    from dicom_node.ledger.deliveries import Due

AT_ONCE: Final = 4  # deliveries to one archive; the engine has hands for two such archives


def next_attempts(
    due: Sequence[Due], *, priority: Callable[[Due], int], taken: Collection[str], failing: AbstractSet[str]
) -> list[Due]:
    """Return the deliveries to begin, most urgent first.

    Args:
        due: what may be attempted now, longest due first.
        priority: where a delivery stands in the queue, lower numbers first.
        taken: job keys that the engine has already.
        failing: destinations that wait after a failure.
    """
    at_work = Counter(each.delivery.destination for each in due if job_key(each.delivery) in taken)
    chosen = []
    for each in sorted(due, key=priority):
        destination = each.delivery.destination
        if job_key(each.delivery) not in taken and at_work[destination] < (1 if destination in failing else AT_ONCE):
            at_work[destination] += 1
            chosen.append(each)
    return chosen
