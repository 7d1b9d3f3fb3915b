"""The conformance statement says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.receive import statuses
from dicom_node.receive.contexts import COMPRESSED, NATIVE, decodable
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
