"""The conformance statement says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.uid import (
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import time

from dicom_node.deliver import dimse
from dicom_node.deliver.commitment_reports import PUSH_MODEL
from dicom_node.deliver.outcome import Verdict, judge_store_status
from dicom_node.priors.answers import SERIES_KEYS, STUDY_KEYS
from dicom_node.priors.dimse_find import Find
from dicom_node.priors.dimse_get import Get
from dicom_node.priors.dimse_move import Move
from dicom_node.priors.plan import MOST_DOCUMENTS
from dicom_node.receive import statuses
from dicom_node.receive.contexts import COMPRESSED, NATIVE, decodable
from dicom_node.receive.hl7_messages import MERGES, UPDATES
from dicom_node.settings import DEFAULT_SOP_CLASSES, STORAGE_SOP_CLASSES, Receive, StorageCommitment
from dicom_node.timeline.rejection import RejectionTitle as ReceivedTitle
from sr_templates.headers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from sr_templates.measurement_report import SOP_CLASS_UIDS
from sr_templates.rejection_note import RejectionTitle as SentTitle

STATEMENT = (Path(__file__).parents[2] / "deploy" / "conformance.md").read_text(encoding="utf-8")
UID = re.compile(r"1\.2\.840\.10008\.[\d.]*\d")


def section(number: str) -> str:
    """Return one section of the statement, without the sections below it."""
    found = re.search(rf"^#+ {re.escape(number)} .*?(?=^#|\Z)", STATEMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, number
    return found[0]


def rows(number: str) -> list[list[str]]:
    """Return the cells of every table row of a section, headings left out."""
    lines = [line for line in section(number).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not row[0].startswith("---")]


def codes(text: str) -> set[int]:
    """Return the statuses that a text names."""
    return {int(each, 16) for each in re.findall(r"0x[0-9A-F]{4}", text)}


def test_the_received_classes_and_syntaxes_are_those_of_the_code() -> None:
    """The table and the lists below it name what the listener offers by default, and nothing else."""
    offered = {STORAGE_SOP_CLASSES[keyword] for keyword in DEFAULT_SOP_CLASSES}
    assert set(UID.findall(section("4.2.4.1"))) == offered | {str(uid) for uid in (*NATIVE, *COMPRESSED)}


def test_every_stated_transfer_syntax_is_decodable_here() -> None:
    """The dependencies bring a decoder for each of them."""
    assert set(decodable()) == set(COMPRESSED)


def test_the_sent_classes_and_syntaxes_are_those_of_the_code() -> None:
    """Reports in their three classes, images, notes; as encoded, and compressed where that is wished for."""
    images = {
        MultiFrameTrueColorSecondaryCaptureImageStorage,
        SecondaryCaptureImageStorage,
        ParametricMapStorage,
        KeyObjectSelectionDocumentStorage,
    }
    sent = {*SOP_CLASS_UIDS.values(), *images, *dimse.NATIVE, JPEGLSLossless}
    assert set(UID.findall(section("4.2.3.1"))) == {str(uid) for uid in sent}


def test_the_classes_of_the_report_are_stated_in_the_order_of_asking() -> None:
    """A destination is sent the first that it accepts."""
    found = UID.findall(section("4.2.3.1"))
    assert [uid for uid in found if uid in SOP_CLASS_UIDS.values()] == list(SOP_CLASS_UIDS.values())


def test_what_follows_from_a_status_is_what_the_code_makes_of_it() -> None:
    """Every status of the table, row by row."""
    verdicts = {"delivered": Verdict.DELIVERED, "tried again": Verdict.RETRY, "ends the": Verdict.FAILED}
    seen = set()
    for row in (each for each in rows("4.2.3.1") if codes(each[0])):
        expected = next(verdict for words, verdict in verdicts.items() if row[1].startswith(words))
        seen.add(expected)
        assert {judge_store_status(code).verdict for code in codes(row[0])} == {expected}, row
    assert seen == set(verdicts.values())


def test_every_status_is_stated() -> None:
    """Each status that the listener can answer stands in the statement."""
    assert set(statuses.NAMES) <= codes(section("4.2.4.1"))
    answers = {
        statuses.SUCCESS,
        statuses.PROCESSING_FAILURE,
        statuses.NO_SUCH_EVENT_TYPE,
        statuses.INVALID_ARGUMENT_VALUE,
        statuses.NO_SUCH_SOP_CLASS,
        statuses.UNRECOGNIZED_OPERATION,
    }
    assert codes(section("4.2.4.2")) == answers


def test_every_rejection_of_an_association_is_stated() -> None:
    """Result, source and reason (PS3.8 9.3.4)."""
    made = [each for each in vars(statuses).values() if isinstance(each, statuses.Rejection)]
    assert {", ".join(map(str, each[:3])) for each in made} == {row[1] for row in rows("4.2.4")[1:]}


def test_the_services_we_use_are_stated() -> None:
    """C-FIND, C-MOVE and C-GET of the study root, verification, storage commitment."""
    used = {str(uid) for uid in (Find, Move, Get, Verification)} | {PUSH_MODEL}
    assert used == set(UID.findall(section("4.2.1")))


def test_every_key_of_a_question_is_stated() -> None:
    """By their names of PS3.6."""
    stated = {row[0]: " ".join(row) for row in rows("4.2.3.2")}
    for level, keys in (("STUDY", STUDY_KEYS), ("SERIES", SERIES_KEYS)):
        for keyword in keys:
            assert dictionary_description(tag_for_keyword(keyword) or 0) in stated[level], keyword


def test_the_stated_limits_are_the_defaults() -> None:
    """Of associations, of commitment requests, of documents that are fetched."""
    receive, commitment = Receive(), StorageCommitment()
    policies = section("4.2.2")
    for value in (receive.max_associations, f"{receive.idle_timeout_s:.0f} s", receive.max_pdu_bytes):
        assert re.search(rf"default\s+{value}", policies), value
    for value in (f"{commitment.wait_h:.0f}", commitment.most_requests):
        assert f"(default {value})" in section("4.2.3.3")
    assert f"at most {MOST_DOCUMENTS} instances" in section("4.2.3.2")


def test_the_implementation_identifies_itself_as_stated() -> None:
    """On the network by pynetdicom, in files by us."""
    stated = section("4.2.2")
    for each in (
        PYNETDICOM_IMPLEMENTATION_UID,
        PYNETDICOM_IMPLEMENTATION_VERSION,
        IMPLEMENTATION_CLASS_UID,
        IMPLEMENTATION_VERSION_NAME,
    ):
        assert each in stated


def test_every_title_of_a_rejection_note_is_stated() -> None:
    """Those that are understood, and those that are sent."""
    received, sent = section("8.4").split("Sent:")
    assert set(re.findall(r"\b1130\d\d\b", received)) == {str(each) for each in ReceivedTitle}
    assert set(re.findall(r"\b1130\d\d\b", sent)) == {str(each) for each in SentTitle}


def test_every_message_that_is_understood_is_stated() -> None:
    """The trigger events."""
    assert set(re.findall(r"A\d\d", section("4.3.2"))) == UPDATES | MERGES
