"""Questions by QIDO-RS and retrieval by WADO-RS (PS3.18 10.6, 10.4).

Questions go through dicomweb-client. Instances do not: it parses and would re-encode them, and takes a message that
broke off for whole; here the bytes of each part are stored as they came.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset

from dicom_node.errors import UpstreamError
from dicom_node.priors.answers import MOST_ANSWERS, SERIES_KEYS, STUDY_KEYS, found_series, found_study
from dicom_node.priors.archive import CannotBeAsked, Tally
from dicom_node.priors.multipart import boundary_of, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.priors.archive import Fetched, FoundSeries, FoundStudy, Intake
    from dicom_node.settings import DicomWeb

AS_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'  # PS3.18 8.7.3.5.2
CHUNK_BYTES: Final = 1 << 16  # of the last one nothing is kept when an answer breaks off
MAY_PASS: Final = frozenset({401, 403, 408, 425, 429})  # beside 5xx: credentials and load may be mended


class WebArchive:
    """An archive asked by QIDO-RS."""

    def __init__(self, archive: DicomWeb) -> None:
        self._archive = archive

    def find_studies(self, patient_id: str) -> list[FoundStudy]:
        """Return the studies under a PatientID."""
        return [found_study(each) for each in self._studies(PatientID=patient_id)]

    def find_study(self, study_instance_uid: str) -> FoundStudy | None:
        """Return one study."""
        found = (found_study(each) for each in self._studies(StudyInstanceUID=study_instance_uid))
        return next((each for each in found if each.study_instance_uid == study_instance_uid), None)

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        with _session(self._archive) as session:
            answers = self._client(session).search_for_series(
                study_instance_uid=study_instance_uid, fields=SERIES_KEYS, limit=MOST_ANSWERS + 1
            )
        return [found_series(each, study_instance_uid) for each in _datasets(answers)]

    def _studies(self, **filters: str) -> list[Dataset]:
        with _session(self._archive) as session:
            answers = self._client(session).search_for_studies(
                search_filters=filters, fields=STUDY_KEYS, limit=MOST_ANSWERS + 1
            )
        return _datasets(answers)

    def _client(self, session: requests.Session) -> Any:
        client = DICOMwebClient(self._archive.url.rstrip("/"), session=session, timeout=self._archive.timeout_s)
        client.set_http_retry_params(retry=False)  # the ledger knows when to try again
        return client


class WebRetriever:
    """Fetches a series by WADO-RS."""

    def __init__(self, archive: DicomWeb) -> None:
        self._archive = archive

    def fetch(self, series: FoundSeries, intake: Intake) -> Fetched:
        """Take each instance of the series as it comes, in the transfer syntax it is stored in."""
        url = f"{self._archive.url.rstrip('/')}/studies/{series.study_instance_uid}/series/{series.series_instance_uid}"
        tally = Tally(intake)
        with (
            _session(self._archive) as session,
            session.get(url, headers={"Accept": AS_STORED}, timeout=self._archive.timeout_s, stream=True) as response,
        ):
            response.raise_for_status()
            boundary = boundary_of(response.headers.get("Content-Type", ""))
            for part in parts(response.iter_content(CHUNK_BYTES), boundary):
                tally.take(part)
        return tally.fetched()


@contextmanager
def _session(archive: DicomWeb) -> Iterator[requests.Session]:
    """Give an HTTP session with the archive's credentials; what the network throws says who must act.

    Raises:
        UpstreamError: if the archive is away, overloaded or does not let us in.
        CannotBeAsked: if it answers, but not this, or not in DICOM JSON.
    """
    user, password = archive.credentials()
    try:
        with requests.Session() as session:
            if user is not None and password is not None:
                session.auth = (user, password)
            yield session
    except requests.HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        msg = f"HTTP status {status} from DICOMweb"
        raise (UpstreamError if status >= 500 or status in MAY_PASS else CannotBeAsked)(msg) from error
    except requests.exceptions.JSONDecodeError as error:
        msg = "the answer of DICOMweb is no JSON"
        raise CannotBeAsked(msg) from error
    except requests.RequestException as error:
        msg = f"no connection to DICOMweb, or it broke off: {type(error).__name__}"
        raise UpstreamError(msg) from error


def _datasets(answers: list[Any]) -> list[Dataset]:
    """Return each answer as a data set; one that cannot be read is returned empty, so that it is counted.

    Raises:
        CannotBeAsked: if there are more than any patient can have.
    """
    if len(answers) > MOST_ANSWERS:
        msg = f"over {MOST_ANSWERS} answers to one question; does the archive look at the key?"
        raise CannotBeAsked(msg)
    return [_dataset(each) for each in answers]


def _dataset(answer: Any) -> Dataset:
    try:
        return Dataset.from_json(answer)
    except Exception:  # noqa: BLE001 - the edge: pydicom throws anything at JSON that is not DICOM's
        return Dataset()
