"""Never to the wrong person: whom an archive names under the study that a report will stand in.

The report must join its study in the archive, so its header takes the archive's spelling of name, birth date, sex and
accession number, and of the PatientID where both IDs are known to be one human's. A study that the archive files under
anybody else is no correction: then nothing is encoded and nothing sent, and a person decides.

Source: PS3.3 C.7.1.1, C.7.2.1 (what files an object); IHE RAD PIR, RAD-12 (patient and procedure updates).
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_node.errors import NodeError, PeerError, UpstreamError
from dicom_node.ledger.encodings import Demographics, Encoding
from dicom_node.timeline.identity import name_groups, name_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pydicom import Dataset

    from dicom_node.priors.archive import Archive, FoundStudy
    from dicom_node.settings import Pacs

    ArchiveFor = Callable[[Pacs], Archive]
    Ids = Collection[tuple[str, str]]

KEYWORDS: Final = {
    "issuer": "IssuerOfPatientID",
    "patient_id": "PatientID",
    "name": "PatientName",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "accession_number": "AccessionNumber",
}
GOES_WITH: Final = {  # what an overwritten value makes untrue
    "patient_id": "IssuerOfPatientIDQualifiersSequence",
    "birth_date": "PatientAge",
    "accession_number": "IssuerOfAccessionNumberSequence",
}
LOST: Final = "^? \ufffd"  # what is left of a name none of whose letters the answer's character set has


class Answer(StrEnum):
    """What came of asking an archive for a study."""

    ANSWERED = "answered"
    NOT_THERE = "it does not hold the study"
    CANNOT = "it cannot be asked"
    AWAY = "it is away"


class AnotherPatientError(NodeError):
    """An archive files the study under somebody else; `keyword` names what differs, never its value."""

    def __init__(self, pacs: str, keyword: str) -> None:
        super().__init__(
            f"{pacs} files the study under another {keyword} than we do: "
            "`patient merge` if both are one human, or mend it there; then `retry`"
        )


def ask(pacs: Pacs, archive_for: ArchiveFor, study_instance_uid: str) -> tuple[Answer, FoundStudy | None]:
    """Ask an archive for a study; without an answer say why there is none."""
    try:
        found = archive_for(pacs).find_study(study_instance_uid)
    except UpstreamError:
        return Answer.AWAY, None
    except PeerError:
        return Answer.CANNOT, None
    if found is None or found.study_instance_uid != study_instance_uid:
        return Answer.NOT_THERE, None
    return (Answer.ANSWERED, found) if found.patient.patient_id.strip(" ") else (Answer.CANNOT, None)


def settle(
    ours: Demographics, archives: Sequence[Pacs], archive_for: ArchiveFor, study_instance_uid: str, ids: Ids
) -> Encoding:
    """Ask the archives in order, until one answers, whom the report's header has to name.

    Raises:
        AnotherPatientError: if that is somebody else.
    """
    asked: dict[str, str] = {}
    for pacs in archives:
        answer, found = ask(pacs, archive_for, study_instance_uid)
        asked[pacs.name] = answer.value
        if found is not None:
            return Encoding(demographics=as_told(ours, found, pacs.name, ids), asked=asked)
    return Encoding(demographics=ours, asked=asked)


def as_told(ours: Demographics, found: FoundStudy, pacs: str, ids: Ids) -> Demographics:
    """Return our demographics with what the archive says otherwise; what it does not say stays.

    Args:
        ours: what the header says, or would say.
        found: the archive's study.
        pacs: its name.
        ids: every (issuer, PatientID) of the patient.

    Raises:
        AnotherPatientError: if its PatientID or issuer is none of the patient's.
    """
    issuer, patient_id = _told_id(ours, found, pacs, ids)
    told = Demographics(
        issuer=issuer,
        patient_id=patient_id,
        name=_told_name(found.patient.name, ours.name),
        birth_date=found.patient.birth_date,
        sex=found.patient.sex,
        accession_number=found.accession_number,
    )
    said = {each: getattr(told, each) for each in KEYWORDS if _key(told, each)}
    return replace(ours, **{each: value for each, value in said.items() if _key(told, each) != _key(ours, each)})


def differing(one: Demographics, other: Demographics) -> list[str]:
    """Return the keywords of what differs."""
    return [KEYWORDS[each] for each in KEYWORDS if _key(one, each) != _key(other, each)]


def of_header(ds: Dataset, *, default_issuer: str) -> Demographics:
    """Return what a header says."""
    said = {each: str(ds.get(keyword) or "").strip(" \0") for each, keyword in KEYWORDS.items()}
    return Demographics(**{**said, "issuer": said["issuer"] or default_issuer})


def correct(ds: Dataset, wanted: Demographics, *, default_issuer: str) -> None:
    """Overwrite in a header what should be said otherwise, and remove what is no longer true then."""
    said = of_header(ds, default_issuer=default_issuer)
    changed = {each.name for each in fields(wanted) if getattr(said, each.name) != getattr(wanted, each.name)}
    if changed & {"issuer", "patient_id"}:
        changed |= {"issuer", "patient_id"}  # an ID means nothing under another one's issuer
    for each in sorted(changed):
        _set(ds, KEYWORDS[each], getattr(wanted, each))
        if each in GOES_WITH and GOES_WITH[each] in ds:
            delattr(ds, GOES_WITH[each])


def _told_id(ours: Demographics, found: FoundStudy, pacs: str, ids: Ids) -> tuple[str, str]:
    """Return (issuer, PatientID) under which the archive files the study, if it is the patient's.

    Many archives never name an issuer in an answer; then the number has to do, for it is about a study of ours.
    """
    known = [(ours.issuer, ours.patient_id), *ids]
    issuer, number = found.patient.issuer.strip(" "), found.patient.patient_id.strip(" ")
    same_number = [each for each in known if each[1] == number]
    match = next((each for each in same_number if issuer in {"", each[0]}), None)
    if match is None:
        raise AnotherPatientError(pacs, "IssuerOfPatientID" if same_number else "PatientID")
    return match


def _told_name(told: str, ours: str) -> str:
    """Return the name an archive tells; empty where it is ours, or what an answer left of ours.

    Archives answer C-FIND in one character set for all and drop or replace what it lacks (measured: Orthanc 1.10
    answers in Latin 1 unless configured otherwise). Such a copy of our name is no correction of it.

    Source: PS3.3 C.12.1.1.2 (Specific Character Set), PS3.5 6.2.1 (groups of a PN).
    """
    groups = [each if each.strip(LOST) else "" for each in name_groups(told)]
    if all(not his or _may_be_left_of(his, mine) for his, mine in zip(groups, name_groups(ours), strict=True)):
        return ""
    return "=".join(groups).rstrip("=")


def _may_be_left_of(told: str, ours: str) -> bool:
    """Say whether a spelling is ours but for letters beyond ASCII that were dropped or replaced."""
    pattern = "".join(re.escape(each) if each.isascii() else f"(?:{each}|[?\ufffd]*)" for each in ours)
    return re.fullmatch(pattern, told) is not None


def _key(found: Demographics, which: str) -> str:
    """Return a value as it is compared: what spelling cannot change is left out."""
    value: str = getattr(found, which)
    return name_key(value) if which == "name" else value.strip(" ")


def _set(ds: Dataset, keyword: str, value: str) -> None:
    """Set a value as it was told: an archive's odd date is its own, and the report must join it there."""
    tag = tag_for_keyword(keyword)
    assert tag is not None  # noqa: S101 - the keywords above are the Standard's
    ds.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE))
