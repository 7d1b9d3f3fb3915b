"""Questions and retrieval over Orthanc's own REST API."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orthanc_api_client as orthanc
import requests

from dicom_node.errors import UpstreamError
from dicom_node.priors.answers import MOST_ANSWERS
from dicom_node.priors.archive import CannotBeAsked, FoundSeries, FoundStudy, Tally
from dicom_node.timeline.model import PatientFacts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from dicom_node.priors.archive import Fetched, Intake
    from dicom_node.settings import Orthanc

MAY_PASS: Final = frozenset({401, 403, 408, 429})  # beside 5xx: credentials and load may be mended
NOT_MAIN_TAGS: Final = ["IssuerOfPatientID", "ModalitiesInStudy"]  # told from Orthanc 1.11 on, ignored before


class OrthancArchive:
    """An Orthanc asked over REST."""

    def __init__(self, archive: Orthanc) -> None:
        self._archive = archive

    def find_studies(self, patient_id: str) -> list[FoundStudy]:
        """Return the studies under a PatientID."""
        return [_study(each) for each in self._find("Study", PatientID=patient_id)]

    def find_study(self, study_instance_uid: str) -> FoundStudy | None:
        """Return one study."""
        found = (_study(each) for each in self._find("Study", StudyInstanceUID=study_instance_uid))
        return next((each for each in found if each.study_instance_uid == study_instance_uid), None)

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        found = self._find("Series", StudyInstanceUID=study_instance_uid)
        return [_series(each, study_instance_uid) for each in found]

    def _find(self, level: str, **query: str) -> list[dict[str, Any]]:
        return _find(self._archive, level, query)


class OrthancRetriever:
    """Fetches a series over REST, file by file."""

    def __init__(self, archive: Orthanc) -> None:
        self._archive = archive

    def fetch(self, series: FoundSeries, intake: Intake) -> Fetched:
        """Take the file of each instance of the series, as Orthanc stores it."""
        query = {"StudyInstanceUID": series.study_instance_uid, "SeriesInstanceUID": series.series_instance_uid}
        tally = Tally(intake)
        with _client(self._archive) as client:
            for each in _find(self._archive, "Series", query):
                for instance in each.get("Instances", []):
                    tally.take(_content(client.get(f"instances/{instance}/file", timeout=self._archive.timeout_s)))
        return tally.fetched()


def _find(archive: Orthanc, level: str, query: dict[str, str]) -> list[dict[str, Any]]:
    question = {
        "Level": level,
        "Query": query,
        "Expand": True,
        "CaseSensitive": True,
        "Limit": MOST_ANSWERS + 1,
        "RequestedTags": NOT_MAIN_TAGS if level == "Study" else [],
    }
    with _client(archive) as client:
        response = client.post("tools/find", json=question, timeout=archive.timeout_s)
        _content(response)
        answers = response.json()
    if not isinstance(answers, list) or not all(isinstance(each, dict) for each in answers):
        msg = "the answer to tools/find is no list of resources"
        raise CannotBeAsked(msg)
    if len(answers) > MOST_ANSWERS:
        msg = f"over {MOST_ANSWERS} answers to one question; does the archive look at the key?"
        raise CannotBeAsked(msg)
    return answers


def _content(response: requests.Response | None) -> bytes:
    """Return the body; the client gives None where it swallowed an error it does not translate."""
    if response is None:
        msg = "the answer of Orthanc broke off"
        raise UpstreamError(msg)
    return response.content


@contextmanager
def _client(archive: Orthanc) -> Iterator[Any]:
    """Give a REST client; what it throws says who must act.

    Raises:
        UpstreamError: if Orthanc is away, overloaded or does not let us in.
        CannotBeAsked: if it answers, but not this.
    """
    user, password = archive.credentials()
    client = orthanc.OrthancApiClient(f"{archive.url.rstrip('/')}/", user=user, pwd=password)
    try:
        yield client
    except orthanc.HttpError as error:
        status = error.http_status_code
        msg = f"HTTP status {status} from Orthanc"
        passing = not isinstance(status, int) or status >= 500 or status in MAY_PASS
        raise (UpstreamError if passing else CannotBeAsked)(msg) from error
    except requests.exceptions.JSONDecodeError as error:
        msg = "the answer of Orthanc is not what its REST API describes"
        raise CannotBeAsked(msg) from error
    except (orthanc.OrthancApiException, requests.RequestException) as error:
        msg = f"no connection to Orthanc's REST API: {type(error).__name__}"
        raise UpstreamError(msg) from error
    finally:
        client.close()


def _study(answer: dict[str, Any]) -> FoundStudy:
    tags, person = _tags(answer, "MainDicomTags"), _tags(answer, "PatientMainDicomTags")
    more = _tags(answer, "RequestedTags")
    return FoundStudy(
        study_instance_uid=tags.get("StudyInstanceUID", ""),
        patient=PatientFacts(
            issuer=person.get("IssuerOfPatientID", "") or more.get("IssuerOfPatientID", ""),
            patient_id=person.get("PatientID", ""),
            name=person.get("PatientName", ""),
            birth_date=person.get("PatientBirthDate", ""),
            sex=person.get("PatientSex", ""),
        ),
        day=_day(tags.get("StudyDate", "")),
        description=tags.get("StudyDescription", ""),
        accession_number=tags.get("AccessionNumber", ""),
        modalities=tuple(each for each in more.get("ModalitiesInStudy", "").split("\\") if each),
    )


def _series(answer: dict[str, Any], study_instance_uid: str) -> FoundSeries:
    tags = _tags(answer, "MainDicomTags")
    return FoundSeries(
        study_instance_uid=study_instance_uid,
        series_instance_uid=tags.get("SeriesInstanceUID", ""),
        modality=tags.get("Modality", ""),
        description=tags.get("SeriesDescription", ""),
        instances=len(answer.get("Instances", [])),
    )


def _tags(answer: dict[str, Any], group: str) -> dict[str, str]:
    return {key: str(value).strip(" \0") for key, value in dict(answer.get(group) or {}).items()}


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a calendar day has no zone
    except ValueError:
        return None
