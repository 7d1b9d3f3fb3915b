"""Archives called over TLS: DCMTK's storescp and dcmqrscp, whose certificates are believed, and what is told of it."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_node.deliver import dimse
from dicom_node.deliver.outcome import Load, Parcel, Verdict
from dicom_node.demo_pacs import free_port
from dicom_node.errors import UpstreamError
from dicom_node.observe import doctor
from dicom_node.priors.dimse_find import DimseArchive
from dicom_node.settings import Dimse, Settings
from dicom_node.tls import server_context
from dicom_node.tls_settings import Tls
from tests.factories.certificates import Authority
from tests.factories.mr import classic_series, write
from tests.factories.peers import is_listening, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.factories.certificates import Pair

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("dcmtk")]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The one that both sides believe."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """An object of an outbox."""
    (ds,) = classic_series(np.zeros((1, 8, 8), dtype=np.uint16), np.eye(4))
    (path,) = write([ds], tmp_path / "outbox")
    return Load(objects=(Parcel(path=path, sop_class_uid=MRImageStorage, sop_instance_uid=str(ds.SOPInstanceUID)),))


class Archive:
    """DCMTK's storescp with TLS; it demands a certificate of whoever calls."""

    def __init__(self, folder: Path, shows: Pair, believes: Path) -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir()
        command = ["/usr/bin/storescp", *shows.as_dcmtk(believes), "-aet", "ARCHIVE", "-od", str(folder), "+B"]
        environment = os.environ | {"TCP_NODELAY": "1"}
        self.process = subprocess.Popen([*command, str(self.port)], env=environment, stderr=subprocess.DEVNULL)
        wait_until("storescp to answer", lambda: is_listening(self.port), timeout_s=30, every_s=0.05)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=30)

    def destination(self, tls: dict[str, Any] | None, host: str = "127.0.0.1") -> Dimse:
        """Say how the node calls it."""
        return Dimse.model_validate(
            {"ae_title": "ARCHIVE", "host": host, "port": self.port, "timeout_s": 15, "tls": tls}
        )


@pytest.fixture
def make(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Archive]]:
    """Make archives that show this certificate."""
    made: list[Archive] = []

    def make_archive(shows: Pair, believes: Path = authority.ca) -> Archive:
        made.append(Archive(tmp_path / f"archive-{len(made)}", shows, believes))
        return made[-1]

    yield make_archive
    for each in made:
        each.stop()


def test_an_object_is_delivered_over_tls(make: Callable[..., Archive], authority: Authority, load: Load) -> None:
    """With our certificate shown; the archive's own must bear its host name."""
    archive = make(authority.issue("archive"))
    ours = authority.issue("node").as_settings(authority.ca)
    assert dimse.send(load, archive.destination(ours), "NODE").verdict is Verdict.DELIVERED
    (stored,) = archive.folder.iterdir()
    assert str(dcmread(stored).SOPInstanceUID) == load.objects[0].sop_instance_uid
    assert dimse.send(load, archive.destination(None), "NODE").verdict is Verdict.RETRY  # plain, to its secure port


def test_an_archive_may_be_known_by_its_fingerprint_or_another_name(
    make: Callable[..., Archive], authority: Authority, load: Load
) -> None:
    """Whatever its host is called; and then nobody else is believed, though the authority signed for it."""
    shows = authority.issue("pacs.example")
    archive = make(shows)
    ours = authority.issue("node")
    for identity in (shows.fingerprint, "PACS.example"):
        section = ours.as_settings(authority.ca, certificate_identity=identity)
        assert dimse.send(load, archive.destination(section), "NODE").verdict is Verdict.DELIVERED
    section = ours.as_settings(authority.ca, certificate_identity=ours.fingerprint)
    outcome = dimse.send(load, archive.destination(section), "NODE")
    assert outcome.verdict is Verdict.RETRY
    assert outcome.reason == "TLS with the archive failed: the certificate shown is not the expected one"


def test_an_archive_that_cannot_be_believed_gets_nothing_and_is_told_of(
    make: Callable[..., Archive], authority: Authority, load: Load, tmp_path: Path
) -> None:
    """Another authority's, an expired one, one of another host: tried again later, each with its reason."""
    ours = authority.issue("node").as_settings(authority.ca)
    stranger = Authority(tmp_path / "stranger", name="Stranger")
    for shows, host, reason in (
        (stranger.issue("archive"), "127.0.0.1", "unable to get local issuer certificate"),
        (authority.issue("expired", days=-1), "127.0.0.1", "certificate has expired"),
        (authority.issue("elsewhere"), "127.0.0.2", "not valid for '127.0.0.2'"),
    ):
        archive = make(shows)
        outcome = dimse.send(load, archive.destination(ours, host), "NODE")
        assert outcome.verdict is Verdict.RETRY
        assert "TLS with the archive failed" in outcome.reason
        assert reason in outcome.reason
        assert list(archive.folder.iterdir()) == []


def test_an_archive_that_does_not_believe_us_is_told_of(
    make: Callable[..., Archive], authority: Authority, load: Load, tmp_path: Path
) -> None:
    """In TLS 1.3 it says so only after our side has finished."""
    stranger = Authority(tmp_path / "stranger", name="Stranger").issue("node")
    archive = make(authority.issue("archive"))
    for section in (stranger.as_settings(authority.ca), {"ca": str(authority.ca)}):
        outcome = dimse.send(load, archive.destination(section), "NODE")
        assert outcome.verdict is Verdict.RETRY
        assert "alert" in outcome.reason
        assert list(archive.folder.iterdir()) == []


def test_key_files_that_go_bad_stop_nothing_but_their_archive(authority: Authority, load: Load) -> None:
    """The delivery is tried again; nothing is sent in plain instead."""
    ours = authority.issue("node")
    section = ours.as_settings(authority.ca)
    ours.key.write_text("gone", encoding="ascii")
    away = Dimse.model_validate({"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": free_port(), "tls": section})
    outcome = dimse.send(load, away, "NODE")
    assert outcome.verdict is Verdict.RETRY
    assert "dicom-node check" in outcome.reason
    with pytest.raises(UpstreamError, match="dicom-node check"):
        DimseArchive(away, "NODE").find_studies("PATIENT")


def test_an_archive_is_asked_for_studies_over_tls(authority: Authority) -> None:
    """C-FIND, over the association that C-MOVE and C-GET use too; DCMTK's dcmqrscp 3.6.7 knows no TLS."""

    def answer(_event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        study = Dataset()
        study.PatientID, study.StudyInstanceUID = "PATIENT", "1.2.3"
        yield 0xFF00, study

    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    shown = authority.issue("archive").as_settings(authority.ca, enabled=True)
    context = server_context(Tls.model_validate(shown))
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_FIND, answer)]
    )
    try:
        ours = authority.issue("node").as_settings(authority.ca)
        where = {"ae_title": "ARCHIVE", "host": "localhost", "port": server.server_address[1], "tls": ours}
        (study,) = DimseArchive(Dimse.model_validate(where), "NODE").find_studies("PATIENT")
        assert study.study_instance_uid == "1.2.3"
    finally:
        server.shutdown()


def test_doctor_tells_how_long_certificates_last(make: Callable[..., Archive], authority: Authority) -> None:
    """Ours, the authority's and the archive's, which it shows; 30 days before the end it is an alarm."""
    archive = make(authority.issue("archive", days=12.5))
    ours = authority.issue("node", days=100.5)
    settings = Settings.model_validate(
        {
            "node": {"ae_title": "NODE", "port": free_port(), "data_dir": "."},
            "receive": {"allow_unknown_peers": True, "tls": ours.as_settings(authority.ca, enabled=True)},
            "pacs": [{"name": "main", "dimse": archive.destination(ours.as_settings(authority.ca)).model_dump()}],
            "tasks": ["glioma-recurrence"],
        }
    )
    found = doctor._archive(settings.pacs[0], settings)
    assert found.found.endswith("over TLS; its certificate ends in 12 days")
    assert not found.good
    own, trusted = doctor._certificates(settings)
    assert (own.what, own.found, own.good) == (
        "receive.tls.certificate",
        f"{ours.certificate}: ends in 100 days",
        True,
    )
    assert trusted.what == "receive.tls.ca"
    assert trusted.good
    assert not doctor._lasts(datetime.now(UTC) + timedelta(days=29))
    assert doctor._days(datetime.now(UTC) - timedelta(days=2.5)) == "ended 3 days ago"
