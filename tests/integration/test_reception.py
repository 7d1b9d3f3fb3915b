"""The listener: who may enter, which status an object gets, and that success means durable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.uid import CTImageStorage, JPEGLSLossless, MRImageStorage, RLELossless
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import arrivals, presence
from dicom_node.ledger.database import Database
from dicom_node.observe.logs import Log, open_log
from dicom_node.receive import statuses
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.listener import Listener
from dicom_node.receive.reader import Reader
from dicom_node.settings import Logging, Settings
from tests.factories.mr import SENTINEL_ID, SENTINEL_NAME, classic_series
from tests.factories.peers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset
    from pynetdicom.association import Association

SCANNER, NODE = "SCANNER1", "TEMPORALNODE"


class Reception:
    """A listener in this process with its ledger and its files."""

    def __init__(self, folder: Path, **receive: object) -> None:
        self.settings = Settings.model_validate(
            {
                "node": {"ae_title": NODE, "port": free_port(), "data_dir": folder},
                "receive": {
                    "peers": [{"ae_title": SCANNER, "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}],
                    "min_free_disk_gb": 0,
                }
                | receive,
                "tasks": ["glioma-recurrence"],
            }
        )
        self.log_path = folder / "log.jsonl"
        self.log_file = self.log_path.open("w", encoding="utf-8")
        self.log: Log = open_log(Logging(format="json"), b"key", self.log_file)
        self.database = Database(self.settings.ledger_url)
        self.database.migrate()
        self.files = InstanceFiles(folder / "instances")
        self.files.prepare()
        self.listener = Listener(self.settings, self.database, self.files, self.log)
        self.listener.start()

    def close(self) -> None:
        """Stop listening and give everything back."""
        self.listener.stop()
        self.database.close()
        self.log_file.close()

    def associate(self, *, calling: str = SCANNER, called: str = NODE, **contexts: str) -> Association:
        """Call the listener with C-ECHO, MR and CT proposed."""
        ae = AE(ae_title=calling)
        ae.add_requested_context(Verification)
        ae.add_requested_context(MRImageStorage, contexts.get("syntax"))
        ae.add_requested_context(CTImageStorage)
        return ae.associate("127.0.0.1", self.settings.node.port, ae_title=called)

    def refusals(self) -> dict[str, int]:
        """Return how often callers were refused, by reason."""
        with self.database.read() as ledger:
            return {str(each["reason"]): int(str(each["count"])) for each in presence.refusals(ledger)}

    def index(self) -> None:
        """Read everything that arrived, in the sacrificial process."""
        with Reader() as reader:
            indexer = Indexer(self.database, self.files, reader, self.log)
            while indexer.run_once():
                pass

    def states(self) -> dict[str, int]:
        """Return files by what became of them."""
        with self.database.read() as ledger:
            return arrivals.counts_by_state(ledger)


@pytest.fixture
def reception(tmp_path: Path) -> Iterator[Reception]:
    """A listener that lets SCANNER1 in."""
    found = Reception(tmp_path)
    yield found
    found.close()


def slices(count: int = 10, **attributes: object) -> list[Dataset]:
    """Return a small MR series."""
    pixels = np.arange(count * 64, dtype=np.uint16).reshape(count, 8, 8)
    return classic_series(pixels, np.diag([1.0, 1.0, 3.0, 1.0]), **attributes)


def test_an_allowed_peer_echoes_and_stores(reception: Reception) -> None:
    """C-ECHO and C-STORE are answered with 0x0000, and the stored bytes hold the pixels that were sent."""
    association = reception.associate()
    assert association.send_c_echo().Status == statuses.SUCCESS
    sent = slices()
    assert {association.send_c_store(ds).Status for ds in sent} == {statuses.SUCCESS}
    association.release()
    reception.index()
    assert reception.states() == {"indexed": len(sent)}


def test_success_is_answered_only_when_file_and_row_are_durable(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the answer comes the file was fsynced under its final name, so was its folder, and its row is committed."""
    synced: list[str] = []
    fsync = os.fsync

    def recording_fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    association = reception.associate()
    assert association.send_c_store(slices()[0]).Status == statuses.SUCCESS
    with reception.database.read() as ledger:
        (path,) = arrivals.known_paths(ledger)
    final = reception.files.path(path)
    assert final.is_file()
    assert len(synced) == 2
    assert synced[0] == str(final)
    assert synced[1] == str(final.parent)
    association.release()


def test_a_full_disk_is_answered_with_out_of_resources_and_leaves_nothing(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0xA700, no half file, no row; and the next object is stored when there is room again."""
    association = reception.associate()
    fsync = os.fsync

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    first, second = slices()[:2]
    monkeypatch.setattr(os, "fsync", no_space)
    assert association.send_c_store(first).Status == statuses.OUT_OF_RESOURCES
    monkeypatch.setattr(os, "fsync", fsync)
    assert reception.states() == {}
    assert not list(reception.files.folder.rglob("*.dcm"))
    assert association.send_c_store(second).Status == statuses.SUCCESS
    association.release()


def test_an_unknown_caller_is_refused_logged_and_counted(reception: Reception) -> None:
    """A calling AE title that is not on the list gets A-ASSOCIATE-RJ, every time counted."""
    for _ in range(2):
        association = reception.associate(calling="STRANGER")
        assert association.is_rejected
    wait_until(
        "the refusal to be counted", lambda: reception.refusals() == {"unknown-calling-ae-title": 2}, timeout_s=10
    )
    assert "association.refused" in reception.log_path.read_text(encoding="utf-8")


def test_a_caller_that_asks_for_another_title_is_refused(reception: Reception) -> None:
    """The called AE title is checked."""
    assert reception.associate(called="SOMEBODY").is_rejected
    wait_until(
        "the refusal to be counted", lambda: reception.refusals() == {"unknown-called-ae-title": 1}, timeout_s=10
    )


def test_a_known_title_from_an_unlisted_address_is_refused(tmp_path: Path) -> None:
    """The allow-list is of titles with their addresses."""
    peer = {"ae_title": SCANNER, "hosts": ["192.0.2.0/24"], "default_issuer": "HOSPITAL"}
    found = Reception(tmp_path, peers=[peer])
    assert found.associate().is_rejected
    wait_until(
        "the refusal to be counted",
        lambda: found.refusals() == {"calling-ae-title-from-unlisted-address": 1},
        timeout_s=10,
    )
    found.close()


def test_associations_are_refused_below_the_disk_watermark(tmp_path: Path) -> None:
    """No room for a study: better refused at the door than half-way."""
    found = Reception(tmp_path, min_free_disk_gb=1e6)
    assert found.associate().is_rejected
    wait_until("the refusal to be counted", lambda: found.refusals() == {"free-disk-below-watermark": 1}, timeout_s=10)
    found.close()


def test_a_ct_finds_no_presentation_context(reception: Reception) -> None:
    """What the configuration does not name is not accepted."""
    association = reception.associate()
    assert CTImageStorage not in {each.abstract_syntax for each in association.accepted_contexts}
    association.release()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_images_are_stored_and_read(reception: Reception, syntax: str) -> None:
    """A compressed transfer syntax is accepted, stored as received, and decoded by the reader."""
    association = reception.associate(syntax=syntax)
    for ds in slices():
        ds.compress(syntax, generate_instance_uid=False)
        assert association.send_c_store(ds).Status == statuses.SUCCESS
    association.release()
    reception.index()
    assert reception.states() == {"indexed": 10}


def test_the_same_object_in_another_transfer_syntax_is_a_duplicate(reception: Reception) -> None:
    """The archive's compressed copy of an instance is the same input as the scanner's."""
    first, *_ = slices()
    association = reception.associate()
    association.send_c_store(first)
    association.release()
    first.compress(RLELossless, generate_instance_uid=False)
    association = reception.associate(syntax=RLELossless)
    association.send_c_store(first)
    association.release()
    reception.index()
    assert reception.states() == {"indexed": 1, "duplicate": 1}


def test_the_same_uid_with_other_pixels_is_kept_aside(reception: Reception) -> None:
    """A contradiction is neither lost nor believed."""
    first, *_ = slices()
    (other, *_) = slices()
    other.PixelData = bytes(len(other.PixelData))
    association = reception.associate()
    for ds in (first, other):
        assert association.send_c_store(ds).Status == statuses.SUCCESS
    association.release()
    reception.index()
    assert reception.states() == {"indexed": 1, "conflict": 1}


def test_an_illegal_sop_instance_uid_is_refused_by_name(reception: Reception) -> None:
    """What cannot be named cannot be kept: 0xC000."""
    association = reception.associate()
    (ds, *_) = slices()
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "../../etc/passwd"
    assert association.send_c_store(ds).Status == statuses.CANNOT_UNDERSTAND
    association.release()
    assert reception.states() == {}


def test_no_identity_reaches_the_log(reception: Reception) -> None:
    """Name and ID of the sentinel patient stand in no line."""
    association = reception.associate()
    for ds in slices():
        association.send_c_store(ds)
    association.release()
    reception.index()
    log = reception.log_path.read_text(encoding="utf-8")
    assert "association.ended" in log
    assert SENTINEL_ID not in log
    assert str(SENTINEL_NAME) not in log


def test_a_stranger_is_refused_even_if_the_refusal_cannot_be_counted(reception: Reception) -> None:
    """The door fails closed: with the ledger broken, nobody unlisted gets in."""
    with reception.database.write() as ledger:
        ledger.exec_driver_sql("DROP TABLE refusal")
    assert reception.associate(calling="STRANGER").is_rejected


def test_an_illegal_patient_id_is_set_aside(reception: Reception) -> None:
    """A value longer than its VR allows: the file has its reason, and the next is read."""
    association = reception.associate()
    bad, good = slices()[:2]
    bad.PatientID = "A" * 70
    for ds in (bad, good):
        assert association.send_c_store(ds).Status == statuses.SUCCESS
    association.release()
    reception.index()
    assert reception.states() == {"indexed": 1, "set-aside": 1}
    with reception.database.read() as ledger:
        (line,) = arrivals.set_aside_reasons(ledger)
    assert line["reason"] == "illegal-value: PatientID"
