"""Retrieval by C-GET over our own association, each instance stored as it comes (PS3.4 C.4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.priors.archive import Fetched, Tally
from dicom_node.priors.association import PENDING, associated, require, status_of
from dicom_node.priors.dimse_find import identifier
from dicom_node.priors.dimse_move import outcome
from dicom_node.receive import statuses
from dicom_node.receive.contexts import storage_contexts

if TYPE_CHECKING:
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

    from dicom_node.priors.archive import FoundSeries, Intake
    from dicom_node.settings import Dimse, Receive

MOST_CONTEXTS: Final = 128  # presentation context IDs are odd and below 256, PS3.8 9.3.2.2


class GetRetriever:
    """Fetches a series on the association that asks for it; we are the SCP of the storage classes."""

    def __init__(self, archive: Dimse, calling_ae_title: str, receive: Receive) -> None:
        self._archive = archive
        self._calling_ae_title = calling_ae_title
        self._receive = receive

    def fetch(self, series: FoundSeries, intake: Intake) -> Fetched:
        """Ask for the series, take each instance, and read every response until the final one."""
        question = identifier(
            "SERIES", StudyInstanceUID=series.study_instance_uid, SeriesInstanceUID=series.series_instance_uid
        )
        contexts = _contexts(self._receive)
        roles = [
            build_role(uid, scp_role=True) for uid in dict.fromkeys(each.abstract_syntax or "" for each in contexts)
        ]
        tally = Tally(intake)
        with associated(
            self._archive,
            self._calling_ae_title,
            [build_context(Get), *contexts],
            roles=roles,
            handlers=[(evt.EVT_C_STORE, _take, [tally])],
        ) as association:
            require(association, Get)
            counts = Dataset()
            for response, _failed in association.send_c_get(question, Get):
                status = status_of(response, "C-GET")
                counts = response
                if status not in PENDING:
                    break
        told = outcome(status, counts, "C-GET")
        return Fetched(instances=tally.taken, refusals=(*told.refusals, *tally.refusals))


def _take(event: Event, tally: Tally) -> int:
    """Answer one C-STORE sub-operation: success only when the instance is durable."""
    try:
        taken = tally.take(event.encoded_dataset())
    except (OSError, SQLAlchemyError) as error:
        tally.refusals.append(f"could not be stored here: {type(error).__name__}")
        return statuses.OUT_OF_RESOURCES
    return statuses.SUCCESS if taken else statuses.CANNOT_UNDERSTAND


def _contexts(receive: Receive) -> list[PresentationContext]:
    """Propose each class in a context per transfer syntax, so that instances come as they are stored there.

    In one context for all, the archive would choose one transfer syntax for the class and change or refuse the rest.
    """
    single = [build_context(uid, syntax) for uid, syntaxes in storage_contexts(receive) for syntax in syntaxes]
    if len(single) < MOST_CONTEXTS:
        return single
    return [build_context(uid, list(syntaxes)) for uid, syntaxes in storage_contexts(receive)][: MOST_CONTEXTS - 1]
