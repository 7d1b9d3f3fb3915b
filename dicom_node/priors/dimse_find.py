"""Questions by C-FIND, Study Root, at STUDY and SERIES level (PS3.4 C.4.1, C.6.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StudyRootQueryRetrieveInformationModelFind as Find,
)

from dicom_node.priors.answers import MOST_ANSWERS, SERIES_KEYS, STUDY_KEYS, found_series, found_study
from dicom_node.priors.archive import CannotBeAsked
from dicom_node.priors.association import PENDING, SUCCESS, associated, refusal, require, status_of

if TYPE_CHECKING:
    from dicom_node.priors.archive import FoundSeries, FoundStudy
    from dicom_node.settings import Dimse


class DimseArchive:
    """An archive asked by C-FIND; one association per question."""

    def __init__(self, archive: Dimse, calling_ae_title: str) -> None:
        self._archive = archive
        self._calling_ae_title = calling_ae_title

    def find_studies(self, patient_id: str) -> list[FoundStudy]:
        """Return the studies under a PatientID."""
        return [found_study(each) for each in self._ask(identifier("STUDY", STUDY_KEYS, PatientID=patient_id))]

    def find_study(self, study_instance_uid: str) -> FoundStudy | None:
        """Return one study."""
        answers = self._ask(identifier("STUDY", STUDY_KEYS, StudyInstanceUID=study_instance_uid))
        found = (found_study(each) for each in answers)
        return next((each for each in found if each.study_instance_uid == study_instance_uid), None)

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        question = identifier("SERIES", SERIES_KEYS, StudyInstanceUID=study_instance_uid)
        return [found_series(each, study_instance_uid) for each in self._ask(question)]

    def find_sop_classes(self, study_instance_uid: str, series_instance_uid: str) -> list[str]:
        """Return the SOP class of each instance of a series, empty where the archive does not tell."""
        uids = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
        question = identifier("IMAGE", ("SOPInstanceUID", "SOPClassUID"), **uids)
        return [str(each.get("SOPClassUID") or "") for each in self._ask(question)]

    def _ask(self, question: Dataset) -> list[Dataset]:
        """Return every answer; one that cannot be decoded is returned empty, so that it is counted.

        Raises:
            UpstreamError: if the archive is away or cannot answer now.
            CannotBeAsked: if it answers no such question, or with more than any patient can have.
        """
        answers: list[Dataset] = []
        with associated(self._archive, self._calling_ae_title, [build_context(Find)]) as association:
            require(association, Find)
            for response, answer in association.send_c_find(question, Find):
                status = status_of(response, "C-FIND")
                if status not in PENDING:
                    break
                answers.append(Dataset() if answer is None else answer)
                if len(answers) > MOST_ANSWERS:
                    msg = f"over {MOST_ANSWERS} answers to one question; does the archive look at the key?"
                    raise CannotBeAsked(msg)
        if status != SUCCESS:
            raise refusal(status, "C-FIND")
        return answers


def identifier(level: str, keys: tuple[str, ...] = (), **values: str) -> Dataset:
    """Return the identifier of a question or retrieval: empty keys are asked for, the others must match."""
    ds = Dataset()
    if any(not value.isascii() for value in values.values()):
        ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = level
    for keyword in keys:
        setattr(ds, keyword, "")
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds
