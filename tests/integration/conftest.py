"""Real peers for the node: Orthanc, DCMTK, and the node itself as its own processes on the loopback interface."""

from __future__ import annotations

import os
import shutil
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dicom_node.resources import task_file
from inference.phantom import make_patient
from inference.phantom.study import StudyOptions, write_study
from tests.factories.archives import ScriptedArchive
from tests.factories.flair import flair_studies
from tests.factories.library import Library
from tests.factories.outgoing import Outgoing, encode_report
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
    """Preprocessed volumes, kept over the nodes of all tests: the same scans are registered once, not in every test.

    Processes of tests side by side share it, as the processes of a node do: a volume appears there in one step.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "volume-cache"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


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
            "tasks": ["task.yaml"],
            "inference": {"nice": 0},  # it is waited for
            "logging": {"format": "json"},
        }
        folder = tmp_path / f"node-{len(made)}"
        (folder / "data").mkdir(parents=True, mode=0o700)
        task = yaml.safe_load(task_file("glioma-recurrence").read_text(encoding="utf-8"))
        task["saliency"]["deliver"] = "always"  # whatever a check of the shipped bundle's maps found
        (folder / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
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


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies of one patient, oldest first, a file per slice: to be read, never changed."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory, studies: list[Path]) -> Path:
    """The data folder of a node whose report waits for two destinations; `outgoing` works on copies of it."""
    folder = tmp_path_factory.mktemp("encoded") / "node"
    encode_report(folder, studies)
    return folder


@pytest.fixture
def log() -> StringIO:
    """What the node of `outgoing` logs."""
    return StringIO()


@pytest.fixture
def outgoing(encoded: Path, tmp_path: Path, log: StringIO) -> Iterator[Callable[..., Outgoing]]:
    """Make a node whose report waits for these archives."""
    made: list[Outgoing] = []

    def make(*entries: dict[str, Any], ae_title: str = "NODE") -> Outgoing:
        made.append(Outgoing(encoded, tmp_path / f"node-{len(made)}", entries, log, ae_title=ae_title))
        return made[-1]

    yield make
    for each in made:
        each.bench.database.close()


@pytest.fixture
def archive() -> Iterator[Callable[..., ScriptedArchive]]:
    """Make a scripted archive that serves."""
    made: list[ScriptedArchive] = []

    def make(**script: Any) -> ScriptedArchive:
        made.append(ScriptedArchive(**script).start())
        return made[-1]

    yield make
    for each in made:
        each.stop()


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
