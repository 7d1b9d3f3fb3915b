"""Rejection notes as an archive with Imaging Object Change Management sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom import UID
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import dcmread
from pydicom.sr.coding import Code

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydicom import Dataset

QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
PATIENT_SAFETY = Code("113037", "DCM", "Rejected for Patient Safety Reasons")
INCORRECT_WORKLIST_ENTRY = Code("113038", "DCM", "Incorrect Modality Worklist Entry")
RETENTION_EXPIRED = Code("113039", "DCM", "Data Retention Policy Expired")
BOOKMARKS = Code("113000", "DCM", "Of Interest")


def note(images: Iterable[Path], title: Code = QUALITY) -> Dataset:
    """Return a key object selection that names the instances of these files under a title."""
    evidence = [dcmread(path, stop_before_pixels=True) for path in images]
    made: Dataset = KeyObjectSelectionDocument(
        evidence=evidence,
        content=KeyObjectSelection(document_title=title, referenced_objects=evidence),
        series_instance_uid=UID(),
        series_number=990,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="Archive",
        institution_name=None,
        institutional_department_name=None,
    )
    issuer = evidence[0].get("IssuerOfPatientID")
    if issuer:
        made.IssuerOfPatientID = issuer
    return made


def write_note(ds: Dataset, folder: Path) -> Path:
    """Write a note as a Part 10 file and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path
