"""Retrieval by C-MOVE to our own AE title: the instances come through the listener (PS3.4 C.4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from dicom_node.priors.archive import Fetched
from dicom_node.priors.association import PENDING, SUCCESS, WARNING, associated, refusal, require, status_of
from dicom_node.priors.dimse_find import identifier

if TYPE_CHECKING:
    from dicom_node.priors.archive import FoundSeries, Intake
    from dicom_node.settings import Dimse


class MoveRetriever:
    """Has an archive send a series to our listener."""

    def __init__(self, archive: Dimse, our_ae_title: str) -> None:
        self._archive = archive
        self._our_ae_title = our_ae_title

    def fetch(self, series: FoundSeries, intake: Intake) -> Fetched:  # noqa: ARG002 - the listener takes the instances
        """Ask for the series and read every response until the final one."""
        question = identifier(
            "SERIES", StudyInstanceUID=series.study_instance_uid, SeriesInstanceUID=series.series_instance_uid
        )
        with associated(self._archive, self._our_ae_title, [build_context(Move)]) as association:
            require(association, Move)
            last = Dataset()
            for response, _failed in association.send_c_move(question, self._our_ae_title, Move):
                status = status_of(response, "C-MOVE")
                last = _newest_counts(last, response)
                if status not in PENDING:
                    break
        return outcome(status, last, "C-MOVE")


def outcome(status: int, counts: Dataset, operation: str) -> Fetched:
    """Return what the final response of a C-MOVE or C-GET says.

    Raises:
        UpstreamError: if the archive cannot send now.
        CannotBeAsked: if it never will in this way.
    """
    if status not in {SUCCESS, WARNING}:
        raise refusal(status, operation)
    failed = int(counts.get("NumberOfFailedSuboperations") or 0)
    told = int(counts.get("NumberOfCompletedSuboperations") or 0) + int(counts.get("NumberOfWarningSuboperations") or 0)
    reasons = (f"{failed} sub-operations failed (final {operation} status 0x{status:04X})",) if failed else ()
    return Fetched(instances=told, refusals=reasons)


def _newest_counts(last: Dataset, response: Dataset) -> Dataset:
    """Return the response if it counts sub-operations: a final one may leave the counts out."""
    return response if "NumberOfCompletedSuboperations" in response else last
