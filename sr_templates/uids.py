"""Deterministic UIDs: the same record gives the same bytes, another answer gives another UID.

A PACS that holds an instance answers success to a changed copy under the same UID and silently keeps the old one
(measured with Orthanc), so the answer itself is part of the name.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

    from inference.results import Result
    from sr_templates.sources import ReportContext

PROJECT_NAMESPACE = uuid.UUID("0d0d2a8e-5f0b-5c7e-9a64-7b7a4d6c1f35")
LAYOUT_VERSION = "2"  # raise it whenever the objects change for the same input


def derive_uid(*parts: object) -> str:
    """Return `2.25.` and the UUID of the parts, at most 44 characters.

    Source: PS3.5 B.2 (UUID-derived UIDs); RFC 9562 (version 5).
    """
    return f"2.25.{uuid.uuid5(PROJECT_NAMESPACE, json.dumps([str(part) for part in parts])).int}"


def result_digest(result: Result) -> str:
    """Return the SHA-256 of the result's JSON, numbers rounded to 4 decimals: noise below that changes nothing."""
    text = json.dumps(_rounded(asdict(result)), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def sop_instance_uid(context: ReportContext, sop_class_uid: str, part: object = "") -> str:
    """Return the UID of one object of a run; `part` tells objects of one SOP class apart."""
    record = context.record
    answer = result_digest(context.result)
    parts = (sop_class_uid, part, record.run_key, record.version, answer)
    return derive_uid("instance", LAYOUT_VERSION, *parts, *_encoding(context))


def series_instance_uid(context: ReportContext, kind: str) -> str:
    """Return the UID of a new series per kind of object and version: viewers show only one report of a series."""
    record = context.record
    study = context.study_instance_uid
    return derive_uid("series", LAYOUT_VERSION, kind, study, record.run_key, record.version, *_encoding(context))


def tracking_uid(patient_study: Dataset, task: str, what: str) -> str:
    """Return the UID that follows one question about one patient over all runs.

    The patient's issuer and ID enter hashed, spaces at the ends ignored (PS3.4 C.2.2.2.1).
    """
    issuer = str(patient_study.get("IssuerOfPatientID", "")).strip()
    patient_id = str(patient_study.get("PatientID", "")).strip()
    patient = hashlib.sha256(json.dumps([issuer, patient_id]).encode()).hexdigest()
    return derive_uid("tracking", patient, task, what)


def _encoding(context: ReportContext) -> tuple[object, ...]:
    """Return what tells an encoding from the first, whose UIDs are those of a run that was never corrected."""
    number = context.record.encoding
    return (context.template_digest, *((number,) if number > 1 else ()))


def _rounded(value: Any) -> Any:
    """Round every float of a JSON-like value to 4 decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
