"""Rejection notes: key object selections by which an archive says that images must not be used any more (IHE IOCM)."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from dicom_node.timeline.model import PatientFacts, canonical_json


class RejectionTitle(StrEnum):
    """Why instances were rejected: the note's document title, a code of the scheme DCM.

    Source: PS3.16 CID 7011; IHE RAD TF-3 4.66.4.1.3 (Imaging Object Change Management).
    """

    QUALITY = "113001"  # Rejected for Quality Reasons
    PATIENT_SAFETY = "113037"  # Rejected for Patient Safety Reasons
    INCORRECT_WORKLIST_ENTRY = "113038"  # Incorrect Modality Worklist Entry: another human's, or another order's
    RETENTION_EXPIRED = "113039"  # Data Retention Policy Expired


WRONG: Final = frozenset(RejectionTitle) - {RejectionTitle.RETENTION_EXPIRED}
"""Titles that take instances out of the time line. An expired retention says nothing against the images: a scan that
the archive no longer keeps happened nevertheless, and a time line without it would be the wrong one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionNote:
    """What a rejection note says: whose images, which, and why; UIDs each once, in order."""

    sop_instance_uid: str
    title: RejectionTitle
    patient: PatientFacts
    study_instance_uids: tuple[str, ...]
    sop_instance_uids: tuple[str, ...]

    def to_json(self) -> str:
        """Return canonical JSON."""
        return canonical_json({each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> RejectionNote:
        """Rebuild a note from `to_json`.

        Raises:
            KeyError: if a field is missing.
        """
        content = json.loads(text)
        return cls(
            sop_instance_uid=content["sop_instance_uid"],
            title=RejectionTitle(content["title"]),
            patient=PatientFacts(**content["patient"]),
            study_instance_uids=tuple(content["study_instance_uids"]),
            sop_instance_uids=tuple(content["sop_instance_uids"]),
        )
