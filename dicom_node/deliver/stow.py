"""Delivery by STOW-RS: one request for all objects, the response read object by object.

A server cannot be asked beforehand which SOP classes it takes. So the report goes in the first of its classes, and in
the next where the server says that it does not support that one. What an answer that names objects leaves out, was not
stored.

Source: PS3.18 10.5.3 (statuses and response), PS3.4 B.2.3 by way of PS3.18 table I.2-2 (failure reasons).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.deliver.outcome import Outcome, Verdict, judge_store_status
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydicom import FileDataset

    from dicom_node.deliver.outcome import Load, Parcel
    from dicom_node.settings import DicomWeb

SAYS_MORE: Final = frozenset({200, 202, 409})
MAY_PASS: Final = frozenset({401, 403, 408, 425, 429})  # beside 5xx: credentials and load may be mended
CLASS_NOT_SUPPORTED: Final = 0x0122
NOT_SAID: Final = 0x0110  # a failure without a reason: processing failure


def send(load: Load, destination: DicomWeb) -> Outcome:
    """Store every object and the report.

    Raises:
        NodeError: if an object of the outbox cannot be read.
    """
    objects, reports = list(load.objects), list(load.reports)
    taken: list[str] = []
    while True:
        report = reports.pop(0) if reports else None
        outcome, failures = _post([*objects, *([report] if report else [])], destination)
        if outcome.taken is None:
            return outcome
        taken += outcome.taken
        refused = report is not None and failures.get(report.sop_instance_uid) == CLASS_NOT_SUPPORTED
        if refused and reports and len(failures) == 1:
            objects = []  # all others are there
            continue
        return Outcome(
            verdict=outcome.verdict,
            reason=outcome.reason,
            taken=tuple(taken),
            report_class=report.sop_class_uid if report and not refused else None,
        )


def _post(parcels: Sequence[Parcel], destination: DicomWeb) -> tuple[Outcome, dict[str, int]]:
    """Store some objects in one request; return how it ended, and the failure reason of each that was not stored."""
    objects = [_read(each) for each in parcels]
    user, password = destination.credentials()
    responses: list[requests.Response] = []
    with requests.Session() as session:
        session.headers["Accept"] = "application/dicom+json"
        session.hooks["response"].append(lambda response, *_args, **_kwargs: responses.append(response))
        if user is not None and password is not None:
            session.auth = (user, password)
        client = DICOMwebClient(destination.url.rstrip("/"), session=session, timeout=destination.timeout_s)
        client.set_http_retry_params(retry=False)  # the ledger knows when to try again
        try:
            client.store_instances(objects)
        except requests.RequestException as error:
            if not responses:
                reason = f"no connection to STOW-RS, or it broke off: {type(error).__name__}"
                return Outcome(verdict=Verdict.RETRY, reason=reason, taken=None), {}
        except Exception:  # noqa: BLE001, S110 - the edge: what the client cannot read in an answer, we read below
            pass
    return _of_response(parcels, responses[-1])


def _of_response(parcels: Sequence[Parcel], response: requests.Response) -> tuple[Outcome, dict[str, int]]:
    """Judge a response: with 200, 202 and 409 its body says what became of each object (PS3.18 table 10.5.3-1)."""
    status, body = response.status_code, _body(response)
    if status in SAYS_MORE and (body or status != requests.codes.accepted):
        named = {str(item.get("ReferencedSOPInstanceUID", "")) for item in body.get("ReferencedSOPSequence") or ()}
        failures = {
            str(item.get("ReferencedSOPInstanceUID", "")): int(item.get("FailureReason") or NOT_SAID)
            for item in body.get("FailedSOPSequence") or ()
        }
        left_out = bool(named) or bool(failures) or status == requests.codes.conflict
        uids = [each.sop_instance_uid for each in parcels]
        return _judge(
            uids, failures | {each: NOT_SAID for each in uids if left_out and each not in named | set(failures)}
        )
    passing = status >= 500 or status in MAY_PASS or status == requests.codes.accepted
    taken = None if status >= 500 or status == requests.codes.accepted else ()  # in its trouble it may have stored some
    reason = f"HTTP status {status} from STOW-RS"
    return Outcome(verdict=Verdict.RETRY if passing else Verdict.FAILED, reason=reason, taken=taken), {}


def _judge(uids: Sequence[str], failures: Mapping[str, int]) -> tuple[Outcome, dict[str, int]]:
    """Return the outcome of a request, and the failure reason of each object that is not there now."""
    judged = {uid: judge_store_status(failures[uid]) for uid in uids if uid in failures}
    bad = {uid: each for uid, each in judged.items() if each.verdict is not Verdict.DELIVERED}
    taken = tuple(uid for uid in uids if uid not in bad)
    if not bad:
        return Outcome(verdict=Verdict.DELIVERED, taken=taken), {}
    worst = min(bad.values(), key=lambda each: each.verdict is not Verdict.FAILED)
    reason = f"STOW-RS stored {len(taken)} of {len(uids)} objects: {worst.reason}"
    return Outcome(verdict=worst.verdict, reason=reason, taken=taken), {uid: failures[uid] for uid in bad}


def _body(response: requests.Response) -> Dataset:
    """Read the data set of a response in DICOM JSON; empty where it is something else."""
    try:
        content: Any = response.json()
        return Dataset.from_json(content[0] if isinstance(content, list) else content)
    except Exception:  # noqa: BLE001 - the edge: anything may stand in the body of an answer
        return Dataset()


def _read(parcel: Parcel) -> FileDataset:
    try:
        return dcmread(parcel.path)
    except (OSError, InvalidDicomError) as error:
        msg = f"outbox: {parcel.path.name} cannot be read: {type(error).__name__}"
        raise NodeError(msg) from error
