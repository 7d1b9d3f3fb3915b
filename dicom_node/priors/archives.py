"""From the configuration of an archive to something that answers questions, and to ways of fetching from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.errors import UpstreamError
from dicom_node.priors.archive import CannotBeAsked
from dicom_node.priors.dicomweb import WebArchive, WebRetriever
from dicom_node.priors.dimse_find import DimseArchive
from dicom_node.priors.dimse_get import GetRetriever
from dicom_node.priors.dimse_move import MoveRetriever
from dicom_node.priors.orthanc_rest import OrthancArchive, OrthancRetriever

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from dicom_node.priors.archive import Archive, FoundSeries, FoundStudy, Retriever
    from dicom_node.settings import Pacs, RetrieveMethod, Settings

    T = TypeVar("T")


def open_archive(pacs: Pacs, calling_ae_title: str) -> Archive:
    """Return the archive as it can be asked: by DIMSE, else by DICOMweb, else over Orthanc's REST API."""
    ways: list[Archive] = []
    if pacs.dimse is not None:
        ways.append(DimseArchive(pacs.dimse, calling_ae_title))
    if pacs.dicomweb is not None:
        ways.append(WebArchive(pacs.dicomweb))
    if pacs.orthanc is not None:
        ways.append(OrthancArchive(pacs.orthanc))
    return _InTurn(ways)


def open_retriever(method: RetrieveMethod, pacs: Pacs, settings: Settings) -> Retriever:
    """Return one way of fetching from an archive.

    Raises:
        CannotBeAsked: if its configuration has no such way.
    """
    ours = settings.node.ae_title
    if method == "c-move" and pacs.dimse is not None:
        return MoveRetriever(pacs.dimse, ours)
    if method == "c-get" and pacs.dimse is not None:
        return GetRetriever(pacs.dimse, ours, settings.receive)
    if method == "dicomweb" and pacs.dicomweb is not None:
        return WebRetriever(pacs.dicomweb)
    if method == "orthanc" and pacs.orthanc is not None:
        return OrthancRetriever(pacs.orthanc)
    msg = f"archive {pacs.name} is not configured for {method}"
    raise CannotBeAsked(msg)


class _InTurn:
    """An archive with several doors: the next one is tried where one is closed."""

    def __init__(self, ways: list[Archive]) -> None:
        self._ways = ways

    def find_studies(self, patient_id: str) -> list[FoundStudy]:
        """Return the studies under a PatientID."""
        return self._first(lambda way: way.find_studies(patient_id))

    def find_study(self, study_instance_uid: str) -> FoundStudy | None:
        """Return one study, None if the archive does not hold it."""
        return self._first(lambda way: way.find_study(study_instance_uid))

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        return self._first(lambda way: way.find_series(study_instance_uid))

    def _first(self, ask: Callable[[Archive], T]) -> T:
        """Return the first answer.

        Raises:
            UpstreamError: if none answers and one of them may later.
            CannotBeAsked: if none ever will.
        """
        reasons, later = [], False
        for way in self._ways:
            try:
                return ask(way)
            except (UpstreamError, CannotBeAsked) as error:
                reasons.append(str(error))
                later = later or isinstance(error, UpstreamError)
        raise (UpstreamError if later else CannotBeAsked)("; ".join(reasons))
