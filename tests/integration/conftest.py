"""Real peers for the node: Orthanc, DCMTK, and the node itself as its own processes on the loopback interface."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inference.phantom import make_patient
from inference.phantom.study import StudyOptions, write_study
from tests.factories.peers import ISSUER, NODE_AE, SCANNER_AE, Node, Orthanc, PhantomStudies, destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudies:
    """Five post-operative studies of one synthetic patient: FLAIR and T1c each, the newest three days ago."""
    folder = tmp_path_factory.mktemp("phantom")
    last = date.today() - timedelta(days=3)  # noqa: DTZ011 - a scanner's calendar day
    patient = make_patient(11, n_visits=5, last_visit=last)
    folders = []
    for visit in range(5):
        folders.append(folder / f"visit-{visit}")
        write_study(patient, visit, folders[-1], StudyOptions(roles=("FLAIR", "T1c"), enhanced=visit == 2, truth=False))
    return PhantomStudies(patient=patient, folders=folders)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """A running Orthanc that knows the node."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed (Debian package orthanc)")
    folder = tmp_path / "orthanc"
    folder.mkdir()
    server = Orthanc(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def dcmtk() -> None:
    """DCMTK's storescu, not the one of the same name that pynetdicom installs."""
    if not Path("/usr/bin/storescu").is_file():
        pytest.skip("DCMTK is not installed (Debian package dcmtk)")


@pytest.fixture(scope="session")
def volume_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Preprocessed volumes, kept over the nodes of all tests: the same scans are registered once, not in every test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_node(tmp_path: Path, volume_cache: Path) -> Iterator[Callable[..., Node]]:
    """Return a maker of nodes; every one is stopped at the end."""
    made: list[Node] = []

    def make(**sections: Any) -> Node:
        config = {
            "node": {"ae_title": NODE_AE, "host": "127.0.0.1", "data_dir": "data"},
            "receive": {
                "peers": [{"ae_title": SCANNER_AE, "hosts": ["127.0.0.1"], "default_issuer": ISSUER}],
                "quiet_period_s": 2,
                "min_free_disk_gb": 0.1,
            },
            "tasks": ["glioma-recurrence"],
            "logging": {"format": "json"},
        }
        folder = tmp_path / f"node-{len(made)}"
        (folder / "data").mkdir(parents=True, mode=0o700)
        (folder / "data" / "cache").symlink_to(volume_cache)
        node = Node(folder, config | sections)
        node.write_config()
        made.append(node)
        return node

    yield make
    for node in made:
        if node.process is not None:
            node.kill()


@pytest.fixture
def node(orthanc: Orthanc, make_node: Callable[..., Node], phantom: PhantomStudies) -> Node:
    """A running node that delivers to Orthanc, the synthetic patient in its cohort."""
    found = make_node(pacs=[destination(orthanc)])
    found.import_cohort(phantom.cohort_row)
    found.start()
    return found
