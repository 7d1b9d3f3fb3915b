"""From the data sets of an answer (C-FIND response, DICOM JSON) to what the archive says it holds.

Tolerant: what cannot be read counts as not said. Whether an answer can be believed, `dicom_node.priors.plan` judges.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from dicom_node.priors.archive import FoundSeries, FoundStudy
from dicom_node.timeline.model import PatientFacts

if TYPE_CHECKING:
    from pydicom import Dataset

STUDY_KEYS: Final = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyDescription",
    "AccessionNumber",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
)
SERIES_KEYS: Final = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "NumberOfSeriesRelatedInstances",
)
MOST_ANSWERS: Final = 1000  # of one patient or study; more come from an archive that does not look at the key


def found_study(answer: Dataset) -> FoundStudy:
    """Read one answer at STUDY level."""
    return FoundStudy(
        study_instance_uid=_text(answer, "StudyInstanceUID"),
        patient=PatientFacts(
            issuer=_text(answer, "IssuerOfPatientID"),
            patient_id=_text(answer, "PatientID"),
            name=_text(answer, "PatientName"),
            birth_date=_text(answer, "PatientBirthDate"),
            sex=_text(answer, "PatientSex"),
        ),
        day=_day(_text(answer, "StudyDate")),
        description=_text(answer, "StudyDescription"),
        accession_number=_text(answer, "AccessionNumber"),
        modalities=_texts(answer, "ModalitiesInStudy"),
        instances=_number(answer, "NumberOfStudyRelatedInstances"),
    )


def found_series(answer: Dataset, study_instance_uid: str) -> FoundSeries:
    """Read one answer at SERIES level; an answer that names no study is about the one asked for."""
    return FoundSeries(
        study_instance_uid=_text(answer, "StudyInstanceUID") or study_instance_uid,
        series_instance_uid=_text(answer, "SeriesInstanceUID"),
        modality=_text(answer, "Modality"),
        description=_text(answer, "SeriesDescription"),
        instances=_number(answer, "NumberOfSeriesRelatedInstances"),
    )


def _value(answer: Dataset, keyword: str) -> Any:
    try:
        return answer.get(keyword)
    except Exception:  # noqa: BLE001 - the edge: pydicom converts values here, and a strange one is as good as none
        return None


def _text(answer: Dataset, keyword: str) -> str:
    return str(_value(answer, keyword) or "").strip(" \0")


def _texts(answer: Dataset, keyword: str) -> tuple[str, ...]:
    value = _value(answer, keyword)
    values = [value] if isinstance(value, str) else list(value or ())
    return tuple(text for each in values if (text := str(each).strip(" \0")))


def _number(answer: Dataset, keyword: str) -> int | None:
    text = _text(answer, keyword)
    return int(text) if text.isdecimal() else None


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a calendar day has no zone
    except ValueError:
        return None
