"""Older studies from real archives: each way of asking and fetching, what is refused, and what comes of a bad day."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread

from tests.factories.library import ISSUER, Library, a_study
from tests.factories.peers import DICOMWEB_PLUGIN, Orthanc, QueryRetrieveScp, free_port

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
    server.stop()


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


@pytest.fixture
def open_library(tmp_path: Path) -> Iterator[Callable[..., Library]]:
    """Return a maker of running libraries; every one is stopped at the end."""
    made: list[Library] = []

    def make(*pacs: dict[str, Any], **options: Any) -> Library:
        library = Library(tmp_path / f"library-{len(made)}", *pacs, **options)
        library.start()
        made.append(library)
        return library

    yield make
    for library in made:
        library.stop()


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
    library.now += timedelta(seconds=90)
    library.ensure()
    assert library.due() == []
