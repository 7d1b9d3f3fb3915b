"""Delivery over Orthanc's REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orthanc_api_client as orthanc
import requests

from dicom_node.deliver.outcome import DELIVERED, Outcome, Parcel, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.settings import Orthanc


def send(parcels: Sequence[Parcel], destination: Orthanc) -> Outcome:
    """Upload every object in order; Orthanc answers an object it holds already with "already stored"."""
    user, password = destination.credentials()
    client = orthanc.OrthancApiClient(destination.url, user=user, pwd=password)
    try:
        for parcel in parcels:
            client.post("instances", data=parcel.path.read_bytes(), timeout=destination.timeout_s)
    except orthanc.HttpError as error:
        return _judge(error.http_status_code)
    except (orthanc.OrthancApiException, requests.RequestException):
        return Outcome(verdict=Verdict.RETRY, reason="no connection to Orthanc's REST API")
    return DELIVERED


def _judge(http_status: int | None) -> Outcome:
    """Credentials and a troubled server may be mended; an object that was read and refused will be refused again."""
    reason = f"HTTP status {http_status} from Orthanc"
    passing = http_status is None or http_status >= 500 or http_status in {401, 403, 408, 429}
    return Outcome(verdict=Verdict.RETRY if passing else Verdict.FAILED, reason=reason)
