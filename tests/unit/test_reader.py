"""The sacrificial reader: what kills it, or never ends, costs one file and has a reason."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.receive.reader import Reader, Unread
from dicom_node.timeline.model import InstanceFacts
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A readable MR image."""
    return write(classic_series(np.zeros((8, 8, 8), dtype=np.uint16), np.eye(4)), tmp_path / "series")[0]


@pytest.fixture
def reader() -> Iterator[Reader]:
    """A reader with its child."""
    with Reader(timeout_s=20) as found:
        yield found


def test_a_good_file_gives_its_facts(reader: Reader, good: Path) -> None:
    """They come back equal to what the file says."""
    facts = reader.read(good, "HOSPITAL")
    assert isinstance(facts, InstanceFacts)
    assert facts.sop_instance_uid == dcmread(good).SOPInstanceUID


def test_thousands_of_nested_sequences_are_a_reason(reader: Reader, good: Path, tmp_path: Path) -> None:
    """What overflows a parser's stack costs this file, and the next is read."""
    header = good.read_bytes()
    opening = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    bomb = tmp_path / "bomb.dcm"
    bomb.write_bytes(header[:132] + header[132:400] + opening * 50_000)
    assert isinstance(reader.read(bomb, "HOSPITAL"), Unread)
    assert isinstance(reader.read(good, "HOSPITAL"), InstanceFacts)


def test_a_claim_of_gigabytes_in_a_small_file_is_a_reason(reader: Reader, good: Path) -> None:
    """Rows x Columns is held against the bytes that are there."""
    ds = dcmread(good)
    ds.Rows = ds.Columns = 65535
    ds.save_as(good)
    answer = reader.read(good, "HOSPITAL")
    assert isinstance(answer, Unread)
    assert not answer.not_an_input


def test_no_dicom_at_all_is_a_reason(reader: Reader, tmp_path: Path) -> None:
    """Noise is noise."""
    noise = tmp_path / "noise.dcm"
    noise.write_bytes(bytes(range(256)) * 40)
    answer = reader.read(noise, "HOSPITAL")
    assert isinstance(answer, Unread)
    assert answer.reason


def test_a_reader_that_takes_too_long_is_replaced(good: Path) -> None:
    """The time limit ends the child; the next file gets a new one."""
    with Reader(timeout_s=0.01) as impatient:
        answer = impatient.read(good, "HOSPITAL")
        assert isinstance(answer, Unread)
        assert answer.crashed


def test_a_reader_that_was_killed_is_replaced(reader: Reader, good: Path) -> None:
    """A death between two files is told as a crash of one and forgotten by the next."""
    reader.read(good, "HOSPITAL")
    assert reader._child is not None
    reader._child.kill()
    reader._child.wait()
    answer = reader.read(good, "HOSPITAL")
    assert isinstance(answer, Unread)
    assert answer.crashed
    assert isinstance(reader.read(good, "HOSPITAL"), InstanceFacts)
