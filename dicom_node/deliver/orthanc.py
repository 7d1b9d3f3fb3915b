"""Upload over Orthanc's own REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orthanc_api_client as orthanc
import requests

from dicom_node.deliver.outcome import Outcome, Verdict

if TYPE_CHECKING:
    from dicom_node.deliver.outcome import Load
    from dicom_node.settings import Orthanc


def send(load: Load, destination: Orthanc) -> Outcome:
    """Upload every object in order; Orthanc answers an object it holds already with "already stored".

    It takes every SOP class, so that the report goes in the first of its classes.
    """
    user, password = destination.credentials()
    client = orthanc.OrthancApiClient(destination.url, user=user, pwd=password)
    report = load.reports[0] if load.reports else None
    report_class = report.sop_class_uid if report else None
    taken: list[str] = []
    for parcel in (*load.objects, *((report,) if report else ())):
        try:
            client.post("instances", data=parcel.path.read_bytes(), timeout=destination.timeout_s)
        except orthanc.HttpError as error:
            verdict, reason = _judge(error.http_status_code)
            return Outcome(verdict=verdict, reason=reason, taken=tuple(taken), report_class=report_class)
        except (orthanc.OrthancApiException, requests.RequestException):
            maybe = (*taken, parcel.sop_instance_uid)  # its answer may have been lost, not itself
            return Outcome(verdict=Verdict.RETRY, reason="no connection to Orthanc's REST API", taken=maybe)
        taken.append(parcel.sop_instance_uid)
    return Outcome(verdict=Verdict.DELIVERED, taken=tuple(taken), report_class=report_class)


def _judge(http_status: int | None) -> tuple[Verdict, str]:
    """Credentials and a troubled server may be mended; an object that was read and refused will be refused again."""
    passing = http_status is None or http_status >= 500 or http_status in {401, 403, 408, 429}
    return Verdict.RETRY if passing else Verdict.FAILED, f"HTTP status {http_status} from Orthanc"
