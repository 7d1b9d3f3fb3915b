"""Both engines of reception keep the same promises, whoever sends, however it is cut into PDUs, whenever it breaks off.

Of what the standard leaves open nothing is demanded: that the two engines agree on what is stored and answered is.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, MRImageStorage, RLELossless, generate_uid
from pynetdicom.dsutils import encode

from dicom_node.demo_pacs import free_port
from dicom_node.receive import statuses
from dicom_node.receive.contexts import NATIVE, decodable
from dicom_node.receive.file_meta import file_head
from tests.factories.certificates import Authority
from tests.factories.door import (
    A_ABORT,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    ABORTED,
    P_DATA_TF,
    PATIENCE_S,
    RawPeer,
    Served,
    items_of,
    p_data,
)
from tests.factories.mr import classic_series, write
from tests.factories.peers import NODE_AE, SCANNER_AE, Orthanc, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = os.environ.get("DICOM_NODE_LONG") == "1"
WITH_NAGLE = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
PDU_SIZES = (4096, 16384, 131072)


@pytest.fixture(scope="module", params=["stock", "fast"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node with one of the engines, its plain and its secure port open."""
    folder = tmp_path_factory.mktemp(request.param)
    authority = Authority(folder)
    tls = authority.issue("node").as_settings(authority.ca, enabled=True, port=free_port())
    found = Served(folder, request.param, tls=tls)
    found.authority = authority  # type: ignore[attr-defined]
    yield found
    found.close()


def images(count: int = 1, side: int = 96, **attributes: Any) -> list[Dataset]:
    """Return images that nobody has sent before."""
    pixels = np.arange(count * side * side, dtype=np.uint16).reshape(count, side, side)
    return classic_series(pixels, np.diag([1.0, 1.0, 3.0, 1.0]), name=str(generate_uid()), **attributes)


def expect_stored(served: Served, sent: list[Dataset]) -> None:
    """Expect every object once, each element as it was sent, under a head that says what it is."""
    for ds in sent:
        (path,) = served.stored(ds.SOPInstanceUID)
        found = dcmread(path)
        assert found == ds
        assert found.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert found.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID


def run(command: list[str], *, environment: dict[str, str] | None = None) -> None:
    """Run a sender and expect it to be content."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.peer
@pytest.mark.parametrize("pdu_bytes", PDU_SIZES if LONG else (4096, 131072))
@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_dcmtk_sends(served: Served, dcmtk: None, tmp_path: Path, sender: str, pdu_bytes: int) -> None:
    """PDUs of its size both ways."""
    sent = images(3)
    sizes = ["--max-pdu", str(pdu_bytes), "--max-send-pdu", str(pdu_bytes)]
    titles = ["-aet", SCANNER_AE, "-aec", NODE_AE]
    paths = [str(path) for path in write(sent, tmp_path / "sent")]
    run([f"/usr/bin/{sender}", *sizes, *titles, "127.0.0.1", str(served.port), *paths])
    expect_stored(served, sent)


@pytest.mark.peer
def test_a_sender_with_nagles_algorithm_is_not_kept_waiting(served: Served, dcmtk: None, tmp_path: Path) -> None:
    """What came is acknowledged at once; else every object would wait 40 ms for a delayed acknowledgement."""
    sent = images(60, side=32)
    write(sent, tmp_path / "sent")
    command = ["/usr/bin/storescu", "-aet", SCANNER_AE, "-aec", NODE_AE, "127.0.0.1", str(served.port), "+sd"]
    run([*command, str(tmp_path / "sent")], environment=WITH_NAGLE)
    expect_stored(served, sent)


@pytest.mark.peer
def test_dcmtk_sends_over_tls(served: Served, dcmtk: None, tmp_path: Path) -> None:
    """The data path is the same behind the handshake."""
    sent = images(3)
    authority: Authority = served.authority  # type: ignore[attr-defined]
    shown = authority.issue(f"scanner-{served.engine}").as_dcmtk(authority.ca)
    paths = [str(path) for path in write(sent, tmp_path / "sent")]
    port = str(served.settings.receive.tls.port)
    run(["/usr/bin/storescu", *shown, "-aet", SCANNER_AE, "-aec", NODE_AE, "127.0.0.1", port, *paths])
    expect_stored(served, sent)


@pytest.mark.peer
def test_orthanc_sends(served: Served, orthanc: Orthanc, tmp_path: Path) -> None:
    """On the order of its REST API."""
    sent = images(3)
    for path in write(sent, tmp_path / "sent"):
        orthanc.client.upload_file(str(path))
    base = f"http://127.0.0.1:{orthanc.http_port}"
    node = {"AET": NODE_AE, "Host": "127.0.0.1", "Port": served.port}
    requests.put(f"{base}/modalities/door", json=node, timeout=60).raise_for_status()
    answer = requests.post(f"{base}/modalities/door/store", json=orthanc.client.instances.get_all_ids(), timeout=120)
    answer.raise_for_status()
    assert answer.json()["FailedInstancesCount"] == 0
    expect_stored(served, sent)


@pytest.mark.peer
def test_gdcm_sends(served: Served, tmp_path: Path) -> None:
    """With its own upper layer."""
    if shutil.which("gdcmscu") is None:
        pytest.skip("GDCM is not installed (Debian package libgdcm-tools)")
    sent = images(2)
    paths = [str(path) for path in write(sent, tmp_path / "sent")]
    titles = ["--aetitle", SCANNER_AE, "--call", NODE_AE]
    command = ["gdcmscu", "--store", *titles, "127.0.0.1", str(served.port), *paths]
    subprocess.run(command, capture_output=True, check=False, timeout=300)  # 3.0.21 fails at release
    expect_stored(served, sent)


@pytest.mark.parametrize("maximum_pdu_size", [0, 4096, 16384, 131072])
def test_pynetdicom_sends_whatever_pdu_it_takes(served: Served, maximum_pdu_size: int) -> None:
    """0: unlimited (PS3.8 D.1)."""
    association = served.associate(maximum_pdu_size=maximum_pdu_size)
    sent = images(2)
    assert association.send_c_echo().Status == statuses.SUCCESS
    assert [association.send_c_store(ds).Status for ds in sent] == [statuses.SUCCESS] * 2
    association.release()
    assert association.is_released
    expect_stored(served, sent)


@pytest.mark.parametrize("syntax", [*NATIVE, *decodable()], ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_is_stored_byte_for_byte(served: Served, syntax: UID) -> None:
    """The listener decodes nothing: any encapsulated pixel data do for a compressed one."""
    (ds,) = images()
    if syntax.is_compressed and syntax.is_encapsulated:
        ds.compress(RLELossless, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    association = served.associate(syntax)
    assert association.send_c_store(ds).Status == statuses.SUCCESS
    association.release()
    (path,) = served.stored(ds.SOPInstanceUID)
    is_deflated = syntax.is_deflated
    sent = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, is_deflated)
    head = file_head(
        sop_class_uid=MRImageStorage,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid=syntax,
        calling_ae_title=SCANNER_AE,
    )
    assert sent is not None
    assert path.read_bytes() == head + sent


def test_an_object_larger_than_any_buffer_is_stored(served: Served) -> None:
    """A multi-frame object goes to the disk piece by piece."""
    (ds,) = images(side=1400)
    association = served.associate()
    assert association.send_c_store(ds).Status == statuses.SUCCESS
    association.release()
    expect_stored(served, [ds])


def test_several_associations_store_at_once(served: Served) -> None:
    """Nothing is mixed up between them, and nothing is lost."""
    series = [images(12, side=48) for _ in range(4)]
    answers: list[int] = []

    def send(sent: list[Dataset]) -> None:
        association = served.associate()
        answers.extend(association.send_c_store(ds).Status for ds in sent)
        association.release()

    threads = [threading.Thread(target=send, args=(each,)) for each in series]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert answers == [statuses.SUCCESS] * 48
    for sent in series:
        expect_stored(served, sent)


def test_commands_and_data_may_be_cut_and_put_together_anyhow(served: Served) -> None:
    """Both in one PDU; each byte of the command an item of its own; data in items of every size, empty ones too."""
    (ds,) = images(side=16)
    request, command, *data, _release = served.record(ds, pdu_bytes=131072)
    ((context_id, _, command_set),) = items_of(command)
    content = b"".join(item[2] for pdu in data for item in items_of(pdu))
    peer = RawPeer(served.port, request)
    peer.send(p_data((context_id, 3, command_set), (context_id, 2, content)))
    assert peer.status() == statuses.SUCCESS
    for at, byte in enumerate(command_set):
        peer.send(p_data((context_id, 3 if at + 1 == len(command_set) else 1, bytes([byte]))))
    for at in range(0, len(content), 97):
        peer.send(p_data((context_id, 0, b""), (context_id, 0, content[at : at + 97])))
    peer.send(p_data((context_id, 2, b"")))
    assert peer.status() == statuses.SUCCESS
    peer.send(struct.pack(">BxII", A_RELEASE_RQ, 4, 0))
    assert peer.read()[0] == A_RELEASE_RP
    peer.close()
    files = served.stored(ds.SOPInstanceUID)
    assert len(files) == 3
    assert {path.read_bytes()[-len(content) :] for path in files} == {content}


def test_an_abort_after_any_pdu_leaves_nothing_half(served: Served) -> None:
    """A-ABORT, or the connection gone, after each PDU of a C-STORE and in the middle of each."""
    (ds,) = images(side=64)
    request, *pdus, _release = served.record(ds, pdu_bytes=4096)
    assert len(pdus) >= 3
    for until in range(len(pdus)):
        for last_words in (A_ABORT, b"", pdus[until][: len(pdus[until]) // 2]):
            peer = RawPeer(served.port, request)
            peer.send(*pdus[:until], last_words)
            peer.close()
    served.expect_no_leftovers()
    assert len(served.stored(ds.SOPInstanceUID)) == 1
    peer = RawPeer(served.port, request)
    peer.send(*pdus)
    assert peer.status() == statuses.SUCCESS
    peer.send(A_ABORT)
    assert peer.read()[0] == 0
    peer.close()
    assert len(served.stored(ds.SOPInstanceUID)) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pynetdicom's thread dies of some
@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(struct.pack(">BxI", P_DATA_TF, 0xFFFFFFFF), id="a PDU of 4 GB"),
        pytest.param(struct.pack(">BxI", 0x55, 4) + bytes(4), id="a PDU that does not exist"),
        pytest.param(p_data((3, 2, bytes(8))), id="data before a command"),
        pytest.param(p_data((99, 3, bytes(8))), id="a context nobody accepted"),
        pytest.param(p_data((3, 3, bytes(8))), id="a command of zeros"),
        pytest.param(struct.pack(">BxIIBB", P_DATA_TF, 8, 0x7FFFFFFF, 3, 3) + bytes(2), id="an item of 2 GB"),
        pytest.param(struct.pack(">BxII", P_DATA_TF, 4, 0), id="an item of nothing"),
    ],
)
def test_nonsense_ends_the_association_and_nothing_else(served: Served, nonsense: bytes) -> None:
    """With an A-ABORT where the fast engine reads; the next peer is served."""
    (ds,) = images(side=16)
    request, *_ = served.record(ds, pdu_bytes=4096)
    peer = RawPeer(served.port, request)
    peer.send(nonsense)
    if served.engine == "fast":
        assert peer.read()[0] == ABORTED
    peer.close()
    association = served.associate()
    assert association.send_c_echo().Status == statuses.SUCCESS
    association.release()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_an_instance_without_a_legal_uid_is_read_to_its_end_and_refused(served: Served) -> None:
    """0xC000; the association goes on."""
    bad, good = images(2)
    bad.SOPInstanceUID = bad.file_meta.MediaStorageSOPInstanceUID = "../../etc/passwd"
    association = served.associate()
    assert association.send_c_store(bad).Status == statuses.CANNOT_UNDERSTAND
    assert association.send_c_store(good).Status == statuses.SUCCESS
    association.release()
    expect_stored(served, [good])
    served.expect_no_leftovers()


def test_a_data_set_may_contradict_its_command(served: Served) -> None:
    """The bytes are stored as they came, under what the command says; whoever reads them sets them aside."""
    (ds,) = images(side=16)
    said = ds.SOPInstanceUID[:-1] + str((int(ds.SOPInstanceUID[-1]) + 1) % 10)
    request, command, *data, _release = served.record(ds, pdu_bytes=131072)
    ((context_id, control, command_set),) = items_of(command)
    old, new = (uid.encode() + b"\0" * (len(uid) % 2) for uid in (ds.SOPInstanceUID, said))
    peer = RawPeer(served.port, request)
    peer.send(p_data((context_id, control, command_set.replace(old, new))), *data)
    assert peer.status() == statuses.SUCCESS
    peer.close()
    (path,) = served.stored(said)
    assert dcmread(path) == ds


def test_what_an_association_brought_is_said_once(served: Served) -> None:
    """A line in the log at its end, with the count of what was acknowledged."""
    before = len(served.log_lines("association.ended"))
    association = served.associate()
    for ds in images(3):
        assert association.send_c_store(ds).Status == statuses.SUCCESS
    association.release()
    wait_until("the end to be told", lambda: len(served.log_lines("association.ended")) > before, timeout_s=PATIENCE_S)
    told = served.log_lines("association.ended")[before]
    assert (told["calling_ae_title"], told["count"]) == (SCANNER_AE, 3)


def test_whoever_may_not_enter_is_rejected(served: Served) -> None:
    """Another calling or called AE title."""
    assert served.associate(calling="STRANGER").is_rejected
    assert served.associate(called="SOMEBODY").is_rejected


def test_an_echo_where_images_are_expected_is_answered_and_the_association_goes_on(served: Served) -> None:
    """What the fast engine does not know it hands back: pynetdicom answers, then and from then on."""
    (ds,) = images(side=16)
    request, command, *data, _release = served.record(ds, pdu_bytes=131072)
    ((context_id, _, _),) = items_of(command)
    verification = b"1.2.840.10008.1.1\0"
    elements = (
        struct.pack("<HHI", 0, 0x0002, len(verification))
        + verification
        + b"".join(struct.pack("<HHIH", 0, *each) for each in ((0x0100, 2, 0x30), (0x0110, 2, 9), (0x0800, 2, 0x0101)))
    )
    echo = struct.pack("<HHII", 0, 0, 4, len(elements)) + elements
    peer = RawPeer(served.port, request)
    peer.send(p_data((context_id, 3, echo)))
    assert peer.status() == statuses.SUCCESS
    peer.send(command, *data)
    assert peer.status() == statuses.SUCCESS
    peer.send(struct.pack(">BxII", A_RELEASE_RQ, 4, 0))
    assert peer.read()[0] == A_RELEASE_RP
    peer.close()
    assert len(served.stored(ds.SOPInstanceUID)) == 2


@pytest.mark.parametrize("engine", ["stock", "fast"])
def test_no_more_associations_than_allowed(tmp_path: Path, engine: str) -> None:
    """One too many is rejected; when one has ended the next may enter."""
    served = Served(tmp_path, engine, max_associations=2)
    try:
        first, second = served.associate(), served.associate()
        assert first.is_established
        assert second.is_established
        assert served.associate().is_rejected
        first.release()
        third = wait_until("a place to be free", lambda: (found := served.associate()).is_established and found)
        third.release()
        second.release()
    finally:
        served.close()


@pytest.mark.parametrize("engine", ["stock", "fast"])
def test_a_silent_peer_is_aborted(tmp_path: Path, engine: str) -> None:
    """After the idle timeout, and not before."""
    served = Served(tmp_path, engine, idle_timeout_s=1.5)
    try:
        (ds,) = images(side=16)
        request, *_ = served.record(ds, pdu_bytes=4096)
        peer = RawPeer(served.port, request)
        began = time.monotonic()
        assert peer.read()[0] == ABORTED
        assert time.monotonic() - began > 1
        peer.close()
    finally:
        served.close()


@pytest.mark.parametrize("silent_after", [3, None])
def test_the_fast_engine_ends_a_peer_that_stops_within_a_pdu_or_drips(tmp_path: Path, silent_after: int | None) -> None:
    """A byte now and then keeps nobody connected for ever: a message has its own end."""
    served = Served(tmp_path, "fast", idle_timeout_s=1.5)
    try:
        (ds,) = images(side=64)
        request, command, *data, _release = served.record(ds, pdu_bytes=131072)
        peer = RawPeer(served.port, request)
        peer.send(command, data[0][:20])
        deadline = time.monotonic() + 60
        sent, is_open = 0, True
        while is_open and time.monotonic() < deadline:
            time.sleep(0.2)
            try:
                if silent_after is None or sent < silent_after:
                    peer.send(data[0][20 + sent : 21 + sent])
                    sent += 1
                is_open = _is_open(served)
            except ConnectionError:
                is_open = False
        assert not is_open
        peer.close()
        served.expect_no_leftovers()
        assert "LimitError" in served.log_path.read_text(encoding="utf-8")
    finally:
        served.close()


def _is_open(served: Served) -> bool:
    return "connection.broken" not in served.log_path.read_text(encoding="utf-8")


@pytest.mark.parametrize("engine", ["stock", "fast"])
def test_stopping_ends_open_associations(tmp_path: Path, engine: str) -> None:
    """`stop` returns although the peer does nothing, which is told; pynetdicom may close before its A-ABORT is out."""
    served = Served(tmp_path, engine)
    (ds,) = images(side=16)
    request, *_ = served.record(ds, pdu_bytes=4096)
    peer = RawPeer(served.port, request)
    served.close()
    assert peer.read()[0] in ({ABORTED} if engine == "fast" else {ABORTED, 0})
    peer.close()
