"""A deflated data set is counted before it is inflated whole: a megabyte of file can hold a gigabyte of zeros."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.receive import facts
from dicom_node.receive.facts import UnreadableInstance, read_facts
from tests.factories.mr import classic_series
from tests.fuzz.elements import read_file, write_element, write_file

if TYPE_CHECKING:
    from pathlib import Path

ZEROS_BYTES = 3_000_000


def deflated(path: Path, *, padding_bytes: int = 0, group_length: bool = True) -> Path:
    """Write an MR image deflated, with so many zeros in a private element."""
    (image, *_) = classic_series(np.ones((8, 8, 8), dtype=np.uint16), np.eye(4))
    image.save_as(path, enforce_file_format=True)
    file = read_file(path.read_bytes())
    for element in file.meta:
        if element.tag == 0x00020010:
            element.value = DeflatedExplicitVRLittleEndian.encode()
    if group_length:
        length = sum(len(write_element(each)) for each in file.meta[1:])
        file.meta[0].value = struct.pack("<I", length)
    else:
        del file.meta[0]
    body = b"".join(write_element(each) for each in file.body)
    if padding_bytes:
        body = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, padding_bytes) + bytes(padding_bytes) + body
    file.body = []
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(write_file(file) + deflate.compress(body) + deflate.flush())
    return path


def test_a_deflated_image_is_read(tmp_path: Path) -> None:
    """What is not too large is nobody's concern."""
    read_facts(deflated(tmp_path / "small.dcm"), default_issuer="HOSPITAL")


@pytest.mark.parametrize("group_length", [True, False], ids=["well-formed", "no group length"])
def test_what_is_too_large_inflated_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, group_length: bool
) -> None:
    """The file is some kilobytes, and the limit is on what comes out of it."""
    bomb = deflated(tmp_path / "bomb.dcm", padding_bytes=ZEROS_BYTES, group_length=group_length)
    assert bomb.stat().st_size < ZEROS_BYTES / 100
    monkeypatch.setattr(facts, "MAX_INFLATED_BYTES", ZEROS_BYTES // 2)
    with pytest.raises(UnreadableInstance) as told:
        read_facts(bomb, default_issuer="HOSPITAL")
    assert told.value.code == "too-large"
