"""The conformance statement says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.priors.answers import SERIES_KEYS, STUDY_KEYS
from dicom_node.priors.dimse_find import Find
from dicom_node.priors.dimse_get import Get
from dicom_node.priors.dimse_move import Move
from dicom_node.receive import statuses
from dicom_node.receive.contexts import COMPRESSED, NATIVE, decodable
from dicom_node.receive.hl7_messages import MERGES, UPDATES
from dicom_node.settings import DEFAULT_SOP_CLASSES, STORAGE_SOP_CLASSES

STATEMENT = (Path(__file__).parents[2] / "deploy" / "conformance.md").read_text(encoding="utf-8")
UID = re.compile(r"1\.2\.840\.10008\.[\d.]*\d")


def section(number: str) -> str:
    """Return one section of the statement."""
    return STATEMENT.split(f"### {number} ", 1)[1].split("\n#", 1)[0]


def test_the_received_classes_and_syntaxes_are_those_of_the_code() -> None:
    """Table 2.3 and the lists below it name what the listener offers by default, and nothing else."""
    offered = {STORAGE_SOP_CLASSES[keyword] for keyword in DEFAULT_SOP_CLASSES}
    assert set(UID.findall(section("2.3"))) == offered | {str(uid) for uid in (*NATIVE, *COMPRESSED)}


def test_every_stated_transfer_syntax_is_decodable_here() -> None:
    """The dependencies bring a decoder for each of them."""
    assert set(decodable()) == set(COMPRESSED)


def test_the_sent_classes_are_those_of_the_reports() -> None:
    """Table 2.4."""
    sent = {Comprehensive3DSRStorage, MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage}
    assert set(UID.findall(section("2.4"))) == {str(uid) for uid in sent}


def test_every_status_is_stated() -> None:
    """Each status that the listener can answer stands in the statement."""
    assert {f"0x{status:04X}" for status in statuses.NAMES} <= set(re.findall(r"0x[0-9A-F]{4}", section("2.3")))


def test_the_information_models_we_ask_are_stated() -> None:
    """C-FIND, C-MOVE and C-GET of the study root, in section 2.1."""
    assert {str(uid) for uid in (Find, Move, Get)} <= set(UID.findall(section("2.1")))


def test_every_key_of_a_question_is_stated() -> None:
    """Section 2.5 names the attributes by their names of PS3.6."""
    rows = {row.split("|")[1].strip(): row for row in section("2.5").splitlines() if row.startswith("|")}
    for level, keys in (("STUDY", STUDY_KEYS), ("SERIES", SERIES_KEYS)):
        for keyword in keys:
            assert dictionary_description(tag_for_keyword(keyword) or 0) in rows[level], keyword


def test_every_message_that_is_understood_is_stated() -> None:
    """Section 2.7 names the trigger events."""
    assert set(re.findall(r"A\d\d", section("2.7"))) == UPDATES | MERGES
