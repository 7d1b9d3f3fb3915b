"""A report's second life: read back out of a real archive in every way there is, and withdrawn from there.

The archive is Orthanc. The node of each life is a bench with its real network: postman, listener, librarian, reader.
"""

from __future__ import annotations

import io
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
)

from dicom_node.cli import main as program
from dicom_node.deliver.consignment import job_key
from dicom_node.deliver.postman import Postman
from dicom_node.demo_pacs import free_port
from dicom_node.ledger import deliveries, patients, priors, runs
from dicom_node.ledger.tables import CaseState, DeliveryState
from dicom_node.observe import overview
from dicom_node.observe.logs import open_log
from dicom_node.priors import search
from dicom_node.priors.librarian import Librarian
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.listener import Listener
from dicom_node.receive.reader import Reader
from dicom_node.receive.recovery import Recovery
from dicom_node.settings import Logging
from dicom_node.timeline.model import RunState
from sr_templates.read_report import read_report
from tests.factories.bench import Bench, no_archive
from tests.factories.flair import DAYS, ISSUER, flair_study
from tests.factories.peers import DICOMWEB_PLUGIN, Orthanc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydicom import Dataset

    from tests.factories.outgoing import Outgoing

pytestmark = pytest.mark.peer

NODE = "NODE"  # the AE title of every bench
NEXT = timedelta(days=90)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """A running Orthanc that can be asked in every way."""
    if shutil.which("Orthanc") is None or not Path(DICOMWEB_PLUGIN).is_file():
        pytest.skip("Orthanc with DICOMweb is not installed (Debian packages orthanc, orthanc-dicomweb)")
    folder = tmp_path / "orthanc"
    folder.mkdir()
    server = Orthanc(folder, node_port=free_port(), node_ae_title=NODE, dicomweb=True)
    server.start()
    yield server
    if server.process is not None:
        server.kill()  # its own end takes three seconds


def entry(orthanc: Orthanc, *methods: str) -> dict[str, Any]:
    """Return the configuration of the archive; where it is only asked by DICOMweb, it is sent to by STOW-RS too."""
    dimse = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port, "timeout_s": 10}
    web = {"url": f"http://127.0.0.1:{orthanc.http_port}/dicom-web", "timeout_s": 10}
    door = {"dicomweb": web} if methods == ("dicomweb",) else {"dimse": dimse}
    return {"name": "main", "default_issuer": ISSUER, "priors": {"methods": list(methods)}, **door}


class SecondLife(Bench):
    """A node whose data folder is new, with its network."""

    def __init__(self, folder: Path, pacs: dict[str, Any], port: int) -> None:
        super().__init__(folder, pacs=[pacs])
        self.now += timedelta(hours=2)
        self._config = folder / "node.yaml"
        content = {
            "node": {"ae_title": NODE, "port": port, "data_dir": str(folder)},
            "receive": {"allow_unknown_peers": True, "min_free_disk_gb": 0},
            "tasks": ["glioma-recurrence"],
            "pacs": [pacs],
        }
        self._config.write_text(yaml.safe_dump(content), encoding="utf-8")
        node = self.settings.node.model_copy(update={"port": port})
        receive = self.settings.receive.model_copy(update={"min_free_disk_gb": 0.0})
        settings = self.settings.model_copy(update={"node": node, "receive": receive})
        self.log = io.StringIO()
        log = open_log(Logging(level="info", format="json"), b"key", self.log)
        self.postman = Postman(
            settings, self.database, self.folders.outbox, log, clock=lambda: self.now, archive_for=no_archive
        )
        self.librarian = Librarian(settings, self.database, self.instances, log, lambda: self.now)
        self._listener = Listener(settings, self.database, self.instances, log)
        self._reader = Reader()
        recovery = Recovery(
            ae_title=NODE, outbox=self.folders.outbox, database=self.database, clock=lambda: self.now, log=log
        )
        self._indexer = Indexer(self.database, self.instances, self._reader, log, recovery)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._index)

    def start(self) -> None:
        """Listen and read."""
        self._listener.start()
        self._thread.start()

    def stop(self) -> None:
        """End both."""
        self._stop.set()
        self._thread.join()
        self._listener.stop()
        self._reader.close()
        self.database.close()

    def _index(self) -> None:
        while not self._stop.wait(0.02):
            self._indexer.run_once()

    def verb(self, *arguments: str) -> str:
        """Run a verb of the command line on this node."""
        done = CliRunner().invoke(program, [*arguments, "--config", str(self._config)])
        assert done.exit_code == 0, done.output
        return done.output

    def search(self) -> None:
        """Have the archive asked about the patient, whom nobody here knows; ask and fetch until nothing is due."""
        with self.database.write() as ledger:
            row = patients.patient_row(ledger, ISSUER, "PHANTOM-1")
            priors.open_lookup(ledger, patient_row=row, pacs="main", held=set(), now=self.now)
        while jobs := self._due():
            for kind, key in jobs:
                (self.librarian.look_up if kind == search.LOOKUP else self.librarian.fetch)(key)

    def _due(self) -> list[tuple[str, str]]:
        with self.database.read() as ledger:
            return search.due(ledger, settings=self.settings, now=self.now)

    def deliver(self) -> None:
        """Attempt everything that is due by the wall's clock, which `withdraw` looks at."""
        before, self.now = self.now, max(self.now, datetime.now(UTC)) + timedelta(minutes=1)
        with self.database.read() as ledger:
            keys = [job_key(each.delivery) for each in deliveries.due(ledger, self.now)]
        for key in keys:
            self.postman.deliver(key)
        self.now = before

    def settle(self) -> None:
        """Let the quiet period pass and decide."""
        for _ in range(2):
            self.now += timedelta(minutes=5)
            self.tick()

    def runs(self) -> list[runs.Run]:
        """Return every run, oldest version first."""
        with self.database.read() as ledger:
            return sorted(runs.of_patient(ledger, 1), key=lambda each: each.version or 0)

    def delivery(self) -> deliveries.Delivery:
        """Return where the first report stands with the archive."""
        with self.database.read() as ledger:
            (found,) = deliveries.of_run(ledger, self.runs()[0].run_key)
        return found

    def case(self) -> dict[str, Any]:
        """Return the only case as it is shown."""
        with self.database.read() as ledger:
            (found,) = overview.status(ledger)["cases"]
        return dict(found)


@pytest.fixture
def second_life(tmp_path: Path) -> Iterator[Callable[..., SecondLife]]:
    """Make nodes with empty ledgers that serve; every one is stopped at the end."""
    made: list[SecondLife] = []

    def make(pacs: dict[str, Any], port: int) -> SecondLife:
        made.append(SecondLife(tmp_path / f"life-{len(made)}", pacs, port))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture(scope="session")
def scans(studies: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The scans of the first report, the newest study apart, and those of a later study."""
    newest = [each for each in studies if each.parent.name == "3"]
    later = flair_study(tmp_path_factory.mktemp("later"), DAYS[-1] + NEXT, name="later")
    return {"older": [each for each in studies if each not in newest], "newest": newest, "later": later}


@pytest.fixture
def first(orthanc: Orthanc, outgoing: Callable[..., Outgoing], scans: dict[str, list[Path]]) -> Outgoing:
    """The node that issued the report: it lies in the archive with its newest study."""
    upload(orthanc, scans["newest"])
    node = outgoing(entry(orthanc, "c-get"))
    node.later()
    assert node.delivery().state is DeliveryState.SENT, node.delivery().error
    return node


def upload(orthanc: Orthanc, paths: list[Path]) -> None:
    """Put scans into the archive, as the scanner does."""
    for path in paths:
        orthanc.client.upload_file(str(path))


def ours(orthanc: Orthanc) -> set[str]:
    """Return what the archive holds beside the scans and rejection notes."""
    tags = [orthanc.client.instances.get_tags(each) for each in orthanc.client.instances.get_all_ids()]
    others = {MRImageStorage, KeyObjectSelectionDocumentStorage}
    return {str(each["SOPInstanceUID"]) for each in tags if each["SOPClassUID"] not in others}


@pytest.mark.parametrize("method", ["c-get", "c-move", "dicomweb"])
def test_the_report_is_read_back_out_of_orthanc(
    orthanc: Orthanc, first: Outgoing, second_life: Callable[..., SecondLife], method: str
) -> None:
    """Byte for byte as it was issued, once, however often the archive is asked."""
    node = second_life(entry(orthanc, method), orthanc.node_port)
    for _ in range(2):
        node.search()
    (run,) = node.runs()
    assert (run.run_key, run.state, run.version) == (first.run.run_key, RunState.REPORTED, 1)
    assert (run.issued_at, run.inputs.dates) == (first.run.issued_at, DAYS)
    (sent,) = first.objects("report")
    kept = (node.folders.outbox / f"{run.run_key}-recovered.dcm").read_bytes()
    assert dcmread(io.BytesIO(kept)) == dcmread(first.bench.folders.outbox / sent.path)
    with node.database.read() as ledger:
        held = {each.sop_instance_uid for each in deliveries.held_by(ledger, node.delivery())}
    assert (node.delivery().destination, node.delivery().state) == ("main", DeliveryState.SENT)
    assert held == ours(orthanc)
    assert "PHANTOM-1" not in node.log.getvalue()


@pytest.mark.parametrize("method", ["c-get", "dicomweb"])
def test_a_report_that_was_read_back_is_withdrawn_from_the_archive(
    orthanc: Orthanc, first: Outgoing, second_life: Callable[..., SecondLife], scans: dict[str, list[Path]], method: str
) -> None:
    """The note lists report, saliency and summary; the scans are not reported again, and the next report is the first.

    A third life reads report and note back, and knows that the one was withdrawn.
    """
    node = second_life(entry(orthanc, method), orthanc.node_port)
    node.search()
    node.receive(*scans["older"])
    node.settle()
    assert node.case()["state"] == CaseState.REPORTED
    issued = ours(orthanc)
    assert len(issued) == 3

    said = node.verb("withdraw", first.run.run_key[:12], "--reason", "safety")
    assert "main: rejection note for 3 objects" in said
    node.deliver()
    assert node.delivery().state is DeliveryState.SENT, node.delivery().error
    (note,) = orthanc.instances(KeyObjectSelectionDocumentStorage)
    assert named(note) == issued
    (report,) = orthanc.instances(Comprehensive3DSRStorage)
    assert (note.StudyInstanceUID, note.PatientID) == (report.StudyInstanceUID, report.PatientID)
    node.settle()
    assert node.case()["state"] == CaseState.WITHDRAWN
    assert [each.state for each in node.runs()] == [RunState.WITHDRAWN]

    node.now += NEXT
    upload(orthanc, scans["later"])
    node.receive(*scans["later"])
    node.settle()
    node.deliver()
    assert [(each.state, each.version, each.predecessor) for each in node.runs()] == [
        (RunState.WITHDRAWN, 1, None),
        (RunState.REPORTED, 2, None),
    ]
    (newest,) = [ds for ds in orthanc.instances(Comprehensive3DSRStorage) if ds.SOPInstanceUID not in issued]
    assert read_report(newest).predecessor_sop_instance_uid is None
    assert read_report(newest).tracking_uid == read_report(report).tracking_uid

    third = second_life(entry(orthanc, method), orthanc.node_port + 1)
    third.search()
    assert [(each.state, each.version) for each in third.runs()] == [(RunState.WITHDRAWN, 1), (RunState.REPORTED, 2)]


def named(note: Dataset) -> set[str]:
    """Return the instances that a note's content lists, which are those of its evidence."""
    evidence = {
        str(item.ReferencedSOPInstanceUID)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    content = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in note.ContentSequence
        if item.ValueType in {"IMAGE", "COMPOSITE"}
    }
    assert evidence == content
    return content
