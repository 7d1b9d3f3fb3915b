"""A capture in JPEG-LS is the same instance with the same pixels, in fewer bytes."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import JPEGLSLossless

from sr_templates.compression import compressed
from sr_templates.headers import to_bytes
from sr_templates.saliency_capture import build_saliency
from sr_templates.template import load_template
from tests.factories.results import DAYS, mr_header, report_context, saliency_map


@pytest.fixture(scope="module")
def capture() -> Dataset:
    """Return a multi-frame capture."""
    header = mr_header(DAYS[-1], "T1c", 0)
    return build_saliency(report_context(), saliency_map(), header, template=load_template("glioma_recurrence"))


@pytest.mark.parametrize("decoder", ["pyjpegls", "gdcm"])
def test_every_pixel_is_what_it_was(capture: Dataset, decoder: str) -> None:
    """Two decoders that share no code read the very pixels back; all else stays as it was."""
    file = compressed(capture)
    found = dcmread(BytesIO(file))
    assert found.file_meta.TransferSyntaxUID == JPEGLSLossless
    assert np.array_equal(pixel_array(BytesIO(file), decoding_plugin=decoder), capture.pixel_array)
    assert [each.keyword for each in capture if found[each.tag] != each] == ["PixelData"]
    assert len(file) < len(to_bytes(capture)) / 3


def test_what_the_outbox_holds_compresses_to_the_same_bytes_every_time(capture: Dataset) -> None:
    """The object as made and as read back from its file give one file; the object itself stays uncompressed."""
    before = to_bytes(capture)
    assert compressed(capture) == compressed(dcmread(BytesIO(before)))
    assert to_bytes(capture) == before


@pytest.mark.peer
def test_dcmtk_reads_the_pixels_too(capture: Dataset, tmp_path: Path) -> None:
    """A third decoder, of the toolkit that many archives are built on."""
    tool = shutil.which("dcmdjpls")
    if tool is None:
        pytest.skip("needs DCMTK's dcmdjpls")
    (tmp_path / "in.dcm").write_bytes(compressed(capture))
    subprocess.run([tool, tmp_path / "in.dcm", tmp_path / "out.dcm"], check=True)
    assert np.array_equal(dcmread(tmp_path / "out.dcm").pixel_array, capture.pixel_array)
