"""An archive that moves studies to us may enter; files that do not come by C-STORE have one way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
)
from pynetdicom import AE
from sqlalchemy import select

from dicom_node.demo_pacs import free_port
from dicom_node.errors import PeerError
from dicom_node.ledger import patients, prior_series, priors
from dicom_node.ledger.database import Database
from dicom_node.ledger.prior_series import Verdict
from dicom_node.ledger.tables import PriorState, arrival
from dicom_node.observe.logs import open_log
from dicom_node.receive import statuses
from dicom_node.receive.door import Door
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.intake import Intake, Origin
from dicom_node.receive.listener import Listener
from dicom_node.settings import UNKNOWN_ISSUER, Logging, Settings
from tests.factories.bench import NOW
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from pathlib import Path


def a_door(folder: Path, *pacs: dict[str, Any], **receive: Any) -> Door:
    """Return the door of a node with archives."""
    files = InstanceFiles(folder / "instances")
    files.prepare()
    scanner = {"ae_title": "SCANNER1", "hosts": ["192.0.2.1"], "default_issuer": "HOSPITAL"}
    settings = Settings.model_validate(
        {
            "node": {"ae_title": "NODE", "data_dir": folder},
            "receive": {"peers": [scanner], "min_free_disk_gb": 0, **receive},
            "pacs": pacs,
            "tasks": ["glioma-recurrence"],
        }
    )
    return Door(settings, files)


def a_pacs(name: str = "main", ae_title: str = "ARCHIVE", methods: tuple[str, ...] = ("c-move",)) -> dict[str, Any]:
    """Return an archive on this machine."""
    return {
        "name": name,
        "dimse": {"ae_title": ae_title, "host": "localhost", "port": 104},
        "default_issuer": "REGION",
        "priors": {"methods": methods},
    }


def test_an_archive_that_moves_to_us_may_enter_from_its_host(tmp_path: Path) -> None:
    """Without an entry among the peers; its host name is resolved; its IDs are its default issuer's."""
    door = a_door(tmp_path, a_pacs())
    assert door.rejection("ARCHIVE", "NODE", "127.0.0.1") is None
    assert door.rejection("ARCHIVE", "NODE", "192.0.2.9") is statuses.WRONG_ADDRESS
    peer = door.peer("ARCHIVE")
    assert peer is not None
    assert peer.default_issuer == "REGION"
    assert peer.default_issuer != UNKNOWN_ISSUER


@pytest.mark.parametrize("methods", [(), ("c-get",)])
def test_an_archive_that_does_not_move_to_us_stays_outside(tmp_path: Path, methods: tuple[str, ...]) -> None:
    """Delivering to it does not let it in."""
    assert a_door(tmp_path, a_pacs(methods=methods)).rejection("ARCHIVE", "NODE", "127.0.0.1") is (
        statuses.UNKNOWN_CALLING_AE
    )


def test_an_entry_among_the_peers_comes_before_the_archives(tmp_path: Path) -> None:
    """The admin has said where it calls from."""
    listed = {"ae_title": "ARCHIVE", "hosts": ["192.0.2.7"], "default_issuer": "HOSPITAL"}
    door = a_door(tmp_path, a_pacs(), peers=[listed])
    assert door.rejection("ARCHIVE", "NODE", "127.0.0.1") is statuses.WRONG_ADDRESS
    assert door.rejection("ARCHIVE", "NODE", "192.0.2.7") is None


@pytest.mark.parametrize(
    ("calling", "originator", "archive"),
    [
        ("ARCHIVE", "NODE", "main"),
        ("GATEWAY", "NODE", None),  # whoever says so; what may be believed of it, `unnamed_archive` says
        ("ARCHIVE", "", None),
        ("ARCHIVE", "OTHERNODE", None),
        ("SCANNER1", "", None),
    ],
)
def test_what_we_asked_for_is_told_from_what_was_sent(
    tmp_path: Path, calling: str, originator: str, archive: str | None
) -> None:
    """By the Move Originator of the C-STORE request (PS3.7 9.1.1) and the title of the archive."""
    assert a_door(tmp_path, a_pacs()).named_archive(calling, originator) == archive


@pytest.mark.parametrize(
    ("originator", "address", "sop_class_uid", "archive"),
    [
        ("NODE", "127.0.0.1", MRImageStorage, "main"),  # moves under another title than it answers to
        ("NODE", "192.0.2.9", MRImageStorage, None),
        ("", "127.0.0.1", MRImageStorage, None),
        ("NODE", "127.0.0.1", Comprehensive3DSRStorage, None),
        ("NODE", "127.0.0.1", KeyObjectSelectionDocumentStorage, None),
    ],
)
def test_a_sender_under_another_title_may_be_the_only_archive(
    tmp_path: Path, originator: str, address: str, sop_class_uid: str, archive: str | None
) -> None:
    """From its address alone; a report or a note, never: anybody can say that we asked for it."""
    door = a_door(tmp_path, a_pacs())
    assert door.unnamed_archive(originator, address=address, sop_class_uid=sop_class_uid) == archive


def test_of_two_archives_the_one_that_calls_is_meant(tmp_path: Path) -> None:
    """And none where the title is neither's."""
    door = a_door(tmp_path, a_pacs(), a_pacs("other", "OTHER"))
    assert door.named_archive("OTHER", "NODE") == "other"
    assert door.named_archive("GATEWAY", "NODE") is None
    assert door.unnamed_archive("NODE", address="127.0.0.1", sop_class_uid=MRImageStorage) is None


def test_an_archive_whose_host_cannot_be_resolved_is_not_taken_for_the_sender(tmp_path: Path) -> None:
    """The object is kept all the same, as one that was sent to us."""
    pacs = a_pacs()
    pacs["dimse"]["host"] = "a" * 64  # longer than a label may be: refused without asking the network
    door = a_door(tmp_path, pacs)
    assert door.unnamed_archive("NODE", address="127.0.0.1", sop_class_uid=MRImageStorage) is None


@pytest.mark.parametrize(
    ("calling", "sop_class_uid", "is_moving", "archive"),
    [
        ("GATEWAY", MRImageStorage, True, "main"),
        ("GATEWAY", MRImageStorage, False, None),
        ("GATEWAY", Comprehensive3DSRStorage, True, None),
        ("ARCHIVE", Comprehensive3DSRStorage, True, "main"),
    ],
)
def test_a_peer_that_claims_to_send_for_us_is_believed_only_while_something_is_fetched(
    tmp_path: Path, database: Database, *, calling: str, sop_class_uid: UID, is_moving: bool, archive: str | None
) -> None:
    """Through the real listener, over the network, into the ledger."""
    with database.write() as ledger:
        row = patients.patient_row(ledger, "REGION", "P1")
        priors.open_lookup(ledger, patient_row=row, pacs="main", held=(), now=NOW)
        lookup = priors.latest_lookup(ledger, row, "main")
        assert lookup is not None
        wanted = Verdict(study_instance_uid="2.25.1", series_instance_uid="2.25.2", state=PriorState.WANTED)
        prior_series.put(ledger, lookup, wanted, NOW)
        series = prior_series.get(ledger, "main", "2.25.2")
        assert series is not None
        if is_moving:
            prior_series.begin(ledger, series, NOW)
    files = InstanceFiles(tmp_path / "instances")
    files.prepare()
    port = free_port()
    settings = Settings.model_validate(
        {
            "node": {"ae_title": "NODE", "data_dir": tmp_path, "host": "127.0.0.1", "port": port},
            "receive": {"allow_unknown_peers": True, "min_free_disk_gb": 0},
            "pacs": [a_pacs()],
            "tasks": ["glioma-recurrence"],
        }
    )
    listener = Listener(settings, database, files, open_log(Logging(level="error", format="json"), b"key"))
    listener.start()
    try:
        ae = AE(ae_title=calling)
        ae.add_requested_context(sop_class_uid, ImplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", port, ae_title="NODE")
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, "2.25.3"
        assert association.send_c_store(ds, originator_aet="NODE", originator_id=1).Status == 0
        association.release()
    finally:
        listener.stop()
    with database.read() as ledger:
        assert ledger.scalars(select(arrival.c.fetched_from)).all() == [archive]


@pytest.fixture
def database(tmp_path: Path) -> Any:
    """A fresh ledger."""
    found = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    found.migrate()
    yield found
    found.close()


@pytest.fixture
def intake(tmp_path: Path, database: Database) -> Intake:
    """The way in for files fetched from an archive."""
    files = InstanceFiles(tmp_path / "instances")
    files.prepare()
    origin = Origin(name="(fetched)", default_issuer="REGION", fetched_from="main")
    return Intake(database, files, origin, lambda: NOW)


def test_a_file_is_durable_and_known_byte_for_byte(intake: Intake, database: Database, tmp_path: Path) -> None:
    """Nothing of it is changed, and its row says where it came from."""
    (ds,) = classic_series(np.zeros((1, 8, 8), dtype=np.uint16), np.eye(4))
    (path,) = write([ds], tmp_path / "pacs")
    assert intake.take(path.read_bytes()) == str(ds.SOPInstanceUID)
    with database.read() as ledger:
        (row,) = ledger.execute(select(arrival)).all()
    assert (tmp_path / "instances" / row.path).read_bytes() == path.read_bytes()
    assert (row.state, row.fetched_from, row.default_issuer) == ("received", "main", "REGION")
    assert row.transfer_syntax_uid == str(dcmread(path).file_meta.TransferSyntaxUID)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected the prefix DICM"),
        (b"<html>" * 100, "expected the prefix DICM"),
        (bytes(128) + b"DICM", "no DICOM Part 10 file with a complete file meta"),
        (bytes(128) + b"DICM" + b"\xff" * 200, "no DICOM Part 10 file with a complete file meta"),
    ],
)
def test_what_is_no_instance_is_refused_and_leaves_nothing(
    intake: Intake, database: Database, tmp_path: Path, content: bytes, reason: str
) -> None:
    """A login page, a cut file: the sender's fault, said so."""
    with pytest.raises(PeerError, match=reason):
        intake.take(content)
    assert list((tmp_path / "instances").glob("*/*.dcm")) == []
    with database.read() as ledger:
        assert ledger.execute(select(arrival)).all() == []


def test_an_instance_without_a_legal_uid_is_refused(intake: Intake, tmp_path: Path) -> None:
    """It could not be filed."""
    (ds,) = classic_series(np.zeros((1, 8, 8), dtype=np.uint16), np.eye(4))
    (path,) = write([ds], tmp_path / "pacs")
    content = path.read_bytes().replace(b"1.2.826", b"01.2.82", 1)
    with pytest.warns(UserWarning, match="Invalid value"), pytest.raises(PeerError, match="not legal"):
        intake.take(content)
