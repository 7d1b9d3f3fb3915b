"""Older studies from real archives: each way of asking and fetching, what is refused, and what comes of a bad day."""

from __future__ import annotations

import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless, MRSpectroscopyStorage

from dicom_node.demo_pacs import free_port
from dicom_node.receive.files import InstanceFiles, NewFile
from tests.factories.library import ISSUER, Library, a_study
from tests.factories.peers import DICOMWEB_PLUGIN, Orthanc, QueryRetrieveScp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.peer

DAYS = (date(2025, 3, 1), date(2025, 6, 1), date(2025, 9, 1))
TODAY = date(2026, 2, 20)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    """A running Orthanc with its DICOMweb plug-in."""
    if shutil.which("Orthanc") is None or not Path(DICOMWEB_PLUGIN).is_file():
        pytest.skip("Orthanc with DICOMweb is not installed (Debian packages orthanc, orthanc-dicomweb)")
    folder = tmp_path / "orthanc"
    folder.mkdir()
    server = Orthanc(folder, node_port=free_port(), dicomweb=True)
    server.start()
    yield server
    if server.process is not None:
        server.kill()  # its own end takes three seconds


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[QueryRetrieveScp]:
    """A running dcmqrscp."""
    if not Path("/usr/bin/dcmqrscp").is_file():
        pytest.skip("DCMTK is not installed (Debian package dcmtk)")
    folder = tmp_path / "dcmqrscp"
    folder.mkdir()
    server = QueryRetrieveScp(folder, node_port=free_port())
    server.start()
    yield server
    server.stop()


def orthanc_as_pacs(archive: Orthanc, *methods: str, **rules: Any) -> dict[str, Any]:
    """Return the configuration of an Orthanc that can be asked in every way."""
    return {
        "name": "main",
        "dimse": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": archive.dicom_port, "timeout_s": 10},
        "dicomweb": {"url": f"http://127.0.0.1:{archive.http_port}/dicom-web", "timeout_s": 10},
        "orthanc": {"url": f"http://127.0.0.1:{archive.http_port}", "timeout_s": 10},
        "default_issuer": ISSUER,
        "priors": {"methods": list(methods), **rules},
        "retry": {"first_s": 1, "longest_s": 60, "give_up_after_h": 1},
    }


def upload(archive: Orthanc, paths: list[Path]) -> None:
    """Put files into an Orthanc."""
    for path in paths:
        archive.client.upload_file(str(path))


def uids(paths: list[Path]) -> set[str]:
    """Return the SOP Instance UIDs of files."""
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


@pytest.mark.parametrize("method", ["c-move", "c-get", "dicomweb", "orthanc"])
def test_each_method_brings_the_studies_that_lie_only_in_orthanc(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path, method: str
) -> None:
    """One study is sent to us; the three before it are found, fetched once, and never asked for again."""
    older = [path for day in DAYS for path in a_study(tmp_path / "pacs", day)]
    newest = a_study(tmp_path / "scanner", TODAY)
    upload(archive, [*older, *newest])
    library = open_library(orthanc_as_pacs(archive, method), port=archive.node_port)
    library.receive(newest)
    assert library.look().open
    library.ensure()
    assert library.work() == 1 + 3
    assert library.instances() == uids([*older, *newest])
    assert library.sources() == {None, "main"}
    state = library.look()
    assert (state.open, state.failed) == (False, False)
    assert state.text == "prior lookup at 2026-03-01 12:01: found 4, held 1, fetched 3"
    assert {series["method"] for each in library.summary()[0]["studies"] for series in each["series"]} == {method, None}
    assert sorted(library.counts().values()) == [3, 3, 3, 3]  # the archive's, of what it sent and of what we held
    library.now += timedelta(seconds=90)
    library.ensure()
    assert library.due() == []


@pytest.mark.parametrize("method", ["c-move", "c-get"])
def test_dcmtk_is_asked_and_sends(
    dcmqrscp: QueryRetrieveScp, open_library: Callable[..., Library], tmp_path: Path, method: str
) -> None:
    """The same from another implementation: C-FIND at STUDY and SERIES level, C-MOVE and C-GET."""
    older = [path for day in DAYS for path in a_study(tmp_path / "pacs", day)]
    newest = a_study(tmp_path / "scanner", TODAY)
    dcmqrscp.store(older)
    library = open_library(dcmtk_as_pacs(dcmqrscp, method), port=dcmqrscp.node_port)
    library.receive(newest)
    library.ensure()
    library.work()
    assert library.instances() == uids([*older, *newest])
    assert library.look().text == "prior lookup at 2026-03-01 12:01: found 3, fetched 3"


def dcmtk_as_pacs(server: QueryRetrieveScp, *methods: str) -> dict[str, Any]:
    """Return the configuration of a dcmqrscp."""
    return {
        "name": "main",
        "dimse": {"ae_title": "QRSCP", "host": "127.0.0.1", "port": server.port, "timeout_s": 10},
        "default_issuer": ISSUER,
        "priors": {"methods": list(methods)},
        "retry": {"first_s": 1, "longest_s": 60, "give_up_after_h": 1},
    }


def test_a_method_that_does_not_work_is_followed_by_the_next(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """An archive that does not know us as a move destination, and whose web server is away, still answers C-GET."""
    older, newest = a_study(tmp_path / "pacs", DAYS[0]), a_study(tmp_path / "scanner", TODAY)
    upload(archive, older)
    pacs = orthanc_as_pacs(archive, "c-move", "dicomweb", "c-get")
    pacs["dicomweb"]["url"] = f"http://127.0.0.1:{free_port()}/dicom-web"
    library = open_library(pacs)  # listens elsewhere than the archive thinks
    library.receive(newest)
    library.ensure()
    library.work()
    (study,) = library.summary()[0]["studies"]
    assert [each["method"] for each in study["series"]] == ["c-get"]
    assert library.instances() == uids([*older, *newest])


def test_questions_go_through_the_door_that_is_open(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """With the DICOM port away, QIDO-RS answers and WADO-RS brings the images."""
    older, newest = a_study(tmp_path / "pacs", DAYS[0]), a_study(tmp_path / "scanner", TODAY)
    upload(archive, older)
    pacs = orthanc_as_pacs(archive, "c-move", "dicomweb")
    pacs["dimse"] |= {"port": free_port(), "timeout_s": 1}
    library = open_library(pacs)
    library.receive(newest)
    library.ensure()
    library.work()
    assert library.instances() == uids([*older, *newest])


@pytest.mark.parametrize("method", ["c-move", "c-get", "dicomweb", "orthanc"])
def test_the_archives_copy_of_what_we_hold_is_the_same_instance(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path, method: str
) -> None:
    """Two of six slices came from the scanner; the archive's are compressed, with its own meta and coerced attributes.

    All six are fetched, four are new, two are recognised by their content, and nothing is a contradiction.
    """
    slices = a_study(tmp_path / "scanner", DAYS[0], slices=6)
    upload(archive, [coerced(path, tmp_path / "pacs" / path.name) for path in slices])
    library = open_library(orthanc_as_pacs(archive, method), port=archive.node_port)
    library.receive(slices[:2])
    library.ensure()
    library.work()
    assert library.states() == {"indexed": 6, "duplicate": 2}
    assert library.instances() == uids(slices)
    assert library.look().text.endswith("found 1, fetched 1")


def coerced(path: Path, into: Path) -> Path:
    """Write an archive's copy of a file: JPEG-LS, another writer, other texts at patient and study level."""
    into.parent.mkdir(exist_ok=True)
    subprocess.run(["/usr/bin/dcmcjpls", str(path), str(into)], check=True)
    ds = dcmread(into)
    assert ds.file_meta.TransferSyntaxUID == JPEGLSLossless
    ds.file_meta.ImplementationVersionName = "ARCHIVE"
    ds.PatientName, ds.AccessionNumber, ds.InstitutionName = "SENTINEL^COERCED", "A1", "ELSEWHERE"
    ds.save_as(into)
    return into


class StopsInTheMiddle(InstanceFiles):
    """Files that take their archive down when the sixth one is begun."""

    archive: Orthanc
    written = 0

    def create(self) -> NewFile:
        """Begin, and count."""
        self.written += 1
        if self.written == 6:
            self.archive.kill()
        return super().create()


@pytest.mark.parametrize("method", ["c-move", "c-get", "dicomweb", "orthanc"])
def test_an_archive_that_stops_in_the_middle_of_a_retrieval_delays_and_loses_nothing(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path, method: str
) -> None:
    """What came stays; when the archive is back, the rest comes."""
    older, newest = a_study(tmp_path / "pacs", DAYS[0], slices=40, rows=400), a_study(tmp_path / "scanner", TODAY)
    upload(archive, older)
    library = open_library(orthanc_as_pacs(archive, method), port=archive.node_port, files=StopsInTheMiddle)
    assert isinstance(library.files, StopsInTheMiddle)
    library.files.archive = archive
    library.receive(newest)
    library.ensure()
    library.work(most=2)
    assert archive.process is None
    assert len(library.instances()) < len(uids([*older, *newest]))
    assert library.look().open
    assert library.due() == []
    library.now += timedelta(seconds=2)
    library.work(most=1)  # still away
    archive.start()
    library.now += timedelta(seconds=60)
    library.work()
    assert library.instances() == uids([*older, *newest])
    assert not library.look().open


def test_an_archive_that_is_away_is_asked_again_and_given_up_at_last(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """A question stays open while the archive is down, ends as failed, and is asked anew while a case waits."""
    upload(archive, a_study(tmp_path / "pacs", DAYS[0]))
    newest = a_study(tmp_path / "scanner", TODAY)
    archive.stop()
    library = open_library(orthanc_as_pacs(archive, "orthanc"))
    library.receive(newest)
    library.ensure()
    library.work(most=1)
    assert "not answered, 1 attempts (no connection" in library.look().text
    library.now += timedelta(hours=2)
    library.work()
    state = library.look()
    assert (state.open, state.failed) == (False, True)
    assert "given up: " in state.text
    archive.start()
    library.ensure(waiting=True)
    assert library.due() == []  # not before the interval is over
    library.now += timedelta(hours=6, minutes=1)
    library.ensure(waiting=False)
    assert library.due() == []  # nobody waits
    library.ensure(waiting=True)
    library.work()
    assert library.look().text.endswith("found 1, fetched 1")


def test_what_the_rules_refuse_is_not_fetched_and_says_why(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """Another birth date, too old, no MR, and more than wanted: each with its reason."""
    upload(archive, a_study(tmp_path / "pacs", DAYS[0], PatientBirthDate="19800101"))
    upload(archive, a_study(tmp_path / "pacs", date(2014, 3, 1)))
    upload(archive, a_study(tmp_path / "pacs", DAYS[1], Modality="CT"))
    upload(archive, a_study(tmp_path / "pacs", DAYS[2]))
    upload(archive, a_study(tmp_path / "pacs", date(2025, 8, 1)))
    newest = a_study(tmp_path / "scanner", TODAY)
    library = open_library(orthanc_as_pacs(archive, "orthanc", max_studies=1))
    library.receive(newest)
    library.ensure()
    library.work()
    reasons = {each["day"]: (each["state"], each["reason"]) for each in library.summary()[0]["studies"]}
    assert reasons == {
        "2014-03-01": ("refused", "older than 3650 days"),
        "2025-03-01": ("refused", "birth date differs"),
        "2025-06-01": ("refused", "modality CT"),
        "2025-08-01": ("refused", "not among the newest 1 studies"),
        "2025-09-01": ("fetched", ""),
    }
    assert "SENTINEL" not in library.log.getvalue()
    assert "4711" not in library.log.getvalue()


@pytest.mark.parametrize("method", ["c-move", "c-get"])
def test_a_series_of_a_class_we_do_not_accept_is_refused_and_not_failed(
    archive: Orthanc, open_library: Callable[..., Library], tmp_path: Path, method: str
) -> None:
    """Spectra and vendors' protocols have Modality MR too; that they cannot come is no reason to doubt the search."""
    (path,) = a_study(tmp_path / "pacs", DAYS[0], slices=1)
    ds = dcmread(path)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRSpectroscopyStorage
    ds.save_as(path)
    upload(archive, [path])
    library = open_library(orthanc_as_pacs(archive, method), port=archive.node_port)
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    library.work()
    (study,) = library.summary()[0]["studies"]
    reason = f"SOP class {MRSpectroscopyStorage} is not accepted here (receive.sop_classes)"
    assert (study["state"], study["reason"]) == ("refused", reason)
    assert not library.look().failed
