"""What benchmarks rest on: the comparison of bytes, processor time and memory of a tree, ratios, query plans."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.benchmark import figures, ingest_figures, scale, servers
from dicom_node.benchmark.images import Amount, write_images
from dicom_node.benchmark.ingest import Measurement, Setting
from dicom_node.benchmark.node_state import ledger_of
from dicom_node.benchmark.processes import Memory, processor_s, tree
from dicom_node.benchmark.stored import Comparison, compare, data_set_bytes
from dicom_node.cli_benchmark import _servers
from dicom_node.errors import PeerError
from dicom_node.ledger import arrivals

if TYPE_CHECKING:
    from pathlib import Path

FAITHFUL = Comparison(sent=1, missing=0, repeated=0, foreign=0, identical=1, altered=0)


@pytest.fixture
def sent(tmp_path: Path) -> list[Path]:
    """Four images."""
    (folder,) = write_images(tmp_path / "sent", "test", Amount(series=1, slices=4))
    return sorted(folder.iterdir())


@pytest.fixture
def held(sent: list[Path], tmp_path: Path) -> list[Path]:
    """The same images, as a receiver may keep them."""
    folder = tmp_path / "held"
    shutil.copytree(sent[0].parent, folder)
    return sorted(folder.iterdir())


def test_images_are_as_large_as_they_are_said_to_be_and_each_another(sent: list[Path]) -> None:
    """256 x 256 of 16 bits, about a hundred attributes, a private block: 141 KB; marked as a phantom's."""
    headers = [dcmread(path) for path in sent]
    assert len({ds.SOPInstanceUID for ds in headers}) == len({ds.PixelData for ds in headers}) == len(sent)
    assert all(95 <= len(ds) <= 115 for ds in headers)
    assert all(139_000 < path.stat().st_size < 144_000 for path in sent)
    assert all(ds.QualityControlSubject == "YES" for ds in headers)


def test_what_came_through_unchanged_is_faithful(sent: list[Path], held: list[Path]) -> None:
    """Every instance once, every data set byte by byte; the file meta information is the receiver's own."""
    ds = dcmread(held[0])
    ds.file_meta.ImplementationVersionName = "ANOTHER"
    ds.save_as(held[0], enforce_file_format=True)
    assert held[0].read_bytes() != sent[0].read_bytes()
    assert compare(sent, held).faithful


def test_a_changed_byte_is_caught(sent: list[Path], held: list[Path]) -> None:
    """One bit of one pixel is enough."""
    content = bytearray(held[2].read_bytes())
    content[-1] ^= 1
    held[2].write_bytes(content)
    found = compare(sent, held)
    assert (found.identical, found.altered) == (3, 1)
    assert not found.complete


def test_another_encoding_of_the_same_values_is_complete_but_not_identical(sent: list[Path], held: list[Path]) -> None:
    """A receiver that writes Implicit VR lost nothing."""
    ds = dcmread(held[0])
    del ds[0x0029, 0x0010], ds[0x0029, 0x1010]  # private values have no VR there
    ds.save_as(held[0], enforce_file_format=True)
    shutil.copy(held[0], sent[0])
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(held[0], implicit_vr=True, little_endian=True, enforce_file_format=True)
    found = compare(sent, held)
    assert found.complete
    assert not found.faithful


def test_lost_repeated_and_foreign_instances_are_counted(sent: list[Path], held: list[Path], tmp_path: Path) -> None:
    """None of them makes up for another."""
    held[0].unlink()
    shutil.copy(held[1], tmp_path / "again")
    (stranger,) = write_images(tmp_path / "other", "another", Amount(series=1, slices=1))
    found = compare(sent, [*held[1:], tmp_path / "again", *stranger.iterdir()])
    assert (found.missing, found.repeated, found.foreign) == (1, 1, 1)
    assert not found.complete


def test_what_is_no_part_10_file_is_refused() -> None:
    """A data set is never taken from the wrong place."""
    with pytest.raises(PeerError, match=r"\(0002,0000\)"):
        data_set_bytes(b"\0" * 4096)


def test_processor_time_and_memory_are_those_of_the_whole_tree() -> None:
    """A child of a child computes and holds 50 MB; what it used stays counted when it has ended."""
    work = (
        "import time; held = bytearray(50_000_000); end = time.process_time() + 0.3\nwhile time.process_time() < end: 0"
    )
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}]); print('done', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with Memory(process.pid) as memory:
            deadline = time.monotonic() + 60
            while len(tree(process.pid)) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(tree(process.pid)) == 2
            process.stdout.readline()
        assert processor_s(process.pid) >= 0.3
        process.stdin.close()
    assert memory.tree_bytes >= memory.process_bytes > 50_000_000


def test_rounds_go_there_and_back() -> None:
    """A B C, C B A, A B C."""
    assert [figures.there_and_back("ABC", number) for number in range(3)] == [list("ABC"), list("CBA"), list("ABC")]


def _measured(receiver: str, rate: float, number: int, **setting: bool) -> Measurement:
    return Measurement(
        receiver=receiver,
        setting=Setting(associations=1, **setting),
        round=number,
        instances=100,
        bytes=14_000_000,
        seconds=100 / rate,
        processor_ms=1000 / rate,
        processor_indexed_ms=4000 / rate,
        processor_door_ms=500 / rate,
        process_peak_mb=100.0,
        tree_peak_mb=120.0,
        stored=FAITHFUL,
    )


def test_ratios_are_of_medians_ours_over_theirs() -> None:
    """By peer and associations; with Nagle's algorithm and beside inference also to a receiver's own rate."""
    rounds = [
        _measured(name, factor * rate, number, **setting)
        for setting, factor in (({}, 1.0), ({"nagle": True}, 0.9), ({"inferring": True}, 0.5))
        for number, rate in enumerate((90.0, 100.0, 1000.0))
        for name, rate in (("node-fast", 2 * rate), ("node-stock", 0.5 * rate), ("orthanc", rate))
    ]
    found = ingest_figures.summarize(rounds)
    assert found["ours"] == "node-fast"
    assert found["ratio"] == found["ratio_nagle"] == found["ratio_while_inferring"] == {"orthanc": {"1": 2.0}}
    assert found["ratio_by_engine"]["node-stock"] == {"orthanc": {"1": 0.5}}
    assert found["processor_ratio"]["answered"] == {"orthanc": {"1": 0.5}}
    assert found["processor_ratio"]["indexed"] == {"orthanc": {"1": 2.0}}
    assert found["processor_ratio"]["door"] == {"orthanc": {"1": 0.25}}
    assert found["nagle_to_own_rate"]["node-fast"] == {"1": 0.9}
    assert found["while_inferring_to_idle"]["orthanc"] == {"1": 0.5}
    assert found["tables"]["nodelay"]["orthanc"]["1"]["rate"] == {"median": 100.0, "min": 90.0, "max": 1000.0}
    assert len(json.loads(json.dumps(found))["rounds"]) == len(rounds)


def test_a_peer_that_is_not_here_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is measured goes on without it, and says so."""
    if not os.path.exists(servers.STORESCU):  # noqa: PTH110 - a plain question
        pytest.skip("DCMTK is not installed (Debian package dcmtk)")
    monkeypatch.setenv("PATH", "/nowhere")
    receivers, left_out = _servers((), ("orthanc", "storescp"))
    assert left_out == {"orthanc": "Orthanc is not installed"}
    assert [each.name for each in receivers][-1] == "storescp"
    assert "orthanc is left out" in capsys.readouterr().err


def test_no_query_on_the_way_of_an_image_reads_a_whole_table(tmp_path: Path) -> None:
    """Nor does one of the tick, but for executors and patients: reception and tick stay as fast as the ledger grows."""
    (series,) = write_images(tmp_path / "image", "row", Amount(series=1, slices=1))
    (image,) = series.iterdir()
    scale._prepare(tmp_path / "node", 40, image, servers.engines()[0])
    with closing(ledger_of(tmp_path / "node")) as database, database.read() as ledger:
        assert arrivals.counts_by_state(ledger) == {"indexed": 40}
    found = scale._plans(tmp_path / "node", image)
    scanned = {work: {each.table for each in found if each.work == work} for work in ("reception", "tick", "status")}
    assert scanned["reception"] == set()
    assert scanned["tick"] <= {"executor", "patient"}
    assert "arrival" in scanned["status"], "it counts them all: this shows that a scan would be seen"
