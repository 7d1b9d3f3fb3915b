"""What the demo's archive was sent and gave back: each object is known by the kind that the node issued it as.

Its SOP Class does not tell: a saliency series of single frames and the summary page are both Secondary Captures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.errors import NodeError, UpstreamError
from dicom_node.ledger import deliveries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset
    from sqlalchemy import Connection

    from dicom_node.ledger.runs import OutboxObject

SALIENCY: Final = "saliency"
SUMMARY: Final = "summary"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DemoResults:
    """What a radiologist opens first: the report, the newest saliency that it shows, the summary page."""

    report: Dataset
    saliency: Dataset
    summary: Dataset


def sent_to(ledger: Connection, run_key: str, destination: str) -> list[OutboxObject]:
    """Return what a destination took of a run, in order of sending: the report, last, in one SOP Class only.

    Raises:
        NodeError: if nothing was delivered to it.
    """
    found = deliveries.get(ledger, run_key, destination)
    if found is None or found.state not in deliveries.DONE_STATES:
        msg = f"delivery to {destination}: expected it sent, found it {found.state if found else 'never opened'}"
        raise NodeError(msg)
    return deliveries.awaited(ledger, found)


def tell_apart(sent: Sequence[OutboxObject], held: Sequence[Dataset]) -> DemoResults:
    """Choose among what an archive holds.

    Args:
        sent: what it took, in order of sending.
        held: what it gave back, in any order.

    Raises:
        UpstreamError: if it holds less than it took.
        NodeError: if the run issued no report, saliency or summary.
    """
    by_uid = {str(ds.SOPInstanceUID): ds for ds in held}
    missing = [each.kind for each in sent if each.sop_instance_uid not in by_uid]
    if missing:
        msg = f"the archive does not hold {len(missing)} of {len(sent)} objects: {', '.join(sorted(set(missing)))}"
        raise UpstreamError(msg)
    issued = [(each, by_uid[each.sop_instance_uid]) for each in sent]
    report = _last(deliveries.REPORT, [ds for each, ds in issued if each.kind.startswith(deliveries.REPORT)])
    shown = _shown(report)
    return DemoResults(
        report=report,
        saliency=_last(
            SALIENCY, [ds for each, ds in issued if each.kind == SALIENCY and each.sop_instance_uid in shown]
        ),
        summary=_last(SUMMARY, [ds for each, ds in issued if each.kind == SUMMARY]),
    )


def _last(kind: str, found: Sequence[Dataset]) -> Dataset:
    """Return the last of a kind: time points are sent oldest first."""
    if not found:
        msg = f"the run issued no {kind}"
        raise NodeError(msg)
    return found[-1]


def _shown(report: Dataset) -> set[str]:
    """Return the images that the root of a report points at: of a saliency series the one with the peak."""
    images = (item for item in report.ContentSequence if item.ValueType == "IMAGE")
    return {str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in images}
