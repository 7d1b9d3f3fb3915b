"""Real peers for the node: Orthanc, DCMTK, and the node itself as its own processes on the loopback interface."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from orthanc_api_client import OrthancApiClient
from pydicom import dcmread

from dicom_node.demo_pacs import free_port
from dicom_node.ledger.database import Database
from dicom_node.observe import overview

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.phantom import PhantomPatient

NODE_AE = "TEMPORALNODE"
SCANNER_AE = "SCANNER1"
ISSUER = "PHANTOM"
DICOMWEB_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
DICOM_NODE = (sys.executable, "-m", "dicom_node")


def wait_until(what: str, true: Callable[[], object], *, timeout_s: float = 180.0, every_s: float = 0.2) -> Any:
    """Return the first true value, or fail naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = true()
        if value:
            return value
        time.sleep(every_s)
    pytest.fail(f"waited {timeout_s:.0f} s for: {what}")


def is_listening(port: int) -> bool:
    """Say whether somebody answers on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Orthanc:
    """A real Orthanc with its own folder."""

    folder: Path
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    node_port: int = 11112  # where it moves to
    node_ae_title: str = NODE_AE
    dicomweb: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> OrthancApiClient:
        """Its REST API."""
        return OrthancApiClient(f"http://127.0.0.1:{self.http_port}")

    def start(self) -> None:
        """Serve; return when both ports answer."""
        config = {
            "Name": "TEST",
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "HttpPort": self.http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowStore": False,
            "DicomAlwaysAllowEcho": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"node": [self.node_ae_title, "127.0.0.1", self.node_port]},
            "OverwriteInstances": False,
            "Plugins": [DICOMWEB_PLUGIN] if self.dicomweb else [],
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        environment = os.environ | {"TCP_NODELAY": "1"}
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(["Orthanc", str(path)], stdout=log, stderr=log, env=environment)
        wait_until(
            "Orthanc to answer", lambda: is_listening(self.http_port) and is_listening(self.dicom_port), timeout_s=30
        )

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)
            self.process = None

    def kill(self) -> None:
        """End it without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=30)
        self.process = None

    def instances(self, sop_class_uid: str) -> list[Any]:
        """Return every instance of a SOP class that it holds, as data sets."""
        client = self.client
        return [
            dcmread(io.BytesIO(client.instances.get_file(orthanc_id)))
            for orthanc_id in client.instances.get_all_ids()
            if client.instances.get_tags(orthanc_id)["SOPClassUID"] == sop_class_uid
        ]


@dataclass
class QueryRetrieveScp:
    """DCMTK's archive, dcmqrscp, with its own folder."""

    folder: Path
    port: int = field(default_factory=free_port)
    node_port: int = 11112  # where it moves to
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve; return when it answers."""
        storage = self.folder / "images"
        storage.mkdir(exist_ok=True)
        lines = [
            f"NetworkTCPPort = {self.port}",
            "MaxPDUSize = 16384",
            "MaxAssociations = 8",
            "HostTable BEGIN",
            f"node = ({NODE_AE}, 127.0.0.1, {self.node_port})",
            "HostTable END",
            "VendorTable BEGIN",
            "VendorTable END",
            "AETable BEGIN",
            f"QRSCP {storage} RW (100, 1024mb) ANY",
            "AETable END",
        ]
        path = self.folder / "dcmqrscp.cfg"
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        with (self.folder / "dcmqrscp.log").open("ab") as log:
            command = ["/usr/bin/dcmqrscp", "-c", str(path)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TCP_NODELAY": "1"})
        wait_until("dcmqrscp to answer", lambda: is_listening(self.port), timeout_s=30)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)
            self.process = None

    def store(self, paths: list[Path]) -> None:
        """Send it files."""
        command = ["/usr/bin/storescu", "-aec", "QRSCP", "-R", "127.0.0.1", str(self.port), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@dataclass
class Node:
    """`dicom-node run` as its own processes."""

    folder: Path
    config: dict[str, Any]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config_path(self) -> Path:
        """The configuration file."""
        return self.folder / "node.yaml"

    @property
    def log_path(self) -> Path:
        """The log of all its processes."""
        return self.folder / "node.jsonl"

    def write_config(self) -> None:
        """Write the configuration."""
        self.config["node"]["port"] = self.port
        self.config_path.write_text(yaml.safe_dump(self.config), encoding="utf-8")

    def start(self) -> None:
        """Serve; return when the listener answers."""
        self.write_config()
        with self.log_path.open("ab") as log:
            command = [*DICOM_NODE, "run", "--config", str(self.config_path)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_until("the listener to answer", lambda: is_listening(self.port), timeout_s=60)

    def kill(self) -> None:
        """Kill the supervisor and every child at once, as a power failure of the process would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        wait_until("the children to be gone", lambda: not is_listening(self.port), timeout_s=10, every_s=0.01)

    def stop(self) -> None:
        """End it with SIGTERM, which drains."""
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(timeout=90) == 0
            self.process = None

    def verb(self, *arguments: str) -> str:
        """Run a verb of the command line on this node and return what it prints."""
        command = [*DICOM_NODE, *arguments, "--config", str(self.config_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """Return what `dicom-node status --json` prints, read from the ledger without a process for each look."""
        url = self.config.get("database", {}).get("url")
        database = Database(url or f"sqlite:///{self.folder / 'data' / 'ledger.sqlite'}")
        try:
            with database.read() as ledger:
                return overview.status(ledger)
        finally:
            database.close()

    def case(self) -> dict[str, Any]:
        """Return the only case, empty where there is none yet."""
        cases = self.status()["cases"]
        assert len(cases) <= 1
        return cases[0] if cases else {}

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log, line by line; a line cut off by a kill is left out."""
        lines = []
        for line in self.log_path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return lines

    def import_cohort(self, *rows: str) -> None:
        """Import cohort lines."""
        path = self.folder / "cohort.csv"
        path.write_text("\n".join(("patient_id,issuer,diagnosis,surgeries", *rows)) + "\n", encoding="utf-8")
        self.verb("cohort", "import", str(path))


def storescu(folders: list[Path], node: Node, *, calling: str = SCANNER_AE) -> None:
    """Send folders with DCMTK's storescu, in the order given."""
    command = ["/usr/bin/storescu", "-R", "-aet", calling, "-aec", NODE_AE, "+sd", "+r", "127.0.0.1", str(node.port)]
    done = subprocess.run(
        [*command, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TCP_NODELAY": "1"},
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class PhantomStudies:
    """A synthetic patient, a folder of DICOM per visit, and a cohort line."""

    patient: PhantomPatient
    folders: list[Path]

    @property
    def cohort_row(self) -> str:
        """The patient's line of a cohort file."""
        return f"{self.patient.patient_id},{ISSUER},glioma,{self.patient.surgery.isoformat()}"


def destination(orthanc: Orthanc) -> dict[str, Any]:
    """Return the configuration of an Orthanc as a destination, retried quickly."""
    return {
        "name": "main",
        "dimse": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port},
        "retry": {"first_s": 0.5, "longest_s": 2},
    }


def study_uid(folder: Path) -> str:
    """Return the study of a folder."""
    return str(dcmread(next(folder.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)


def flair_uids(folder: Path) -> set[str]:
    """Return the SOP Instance UIDs of a folder's FLAIR series."""
    headers = [dcmread(path, stop_before_pixels=True) for path in folder.rglob("*.dcm")]
    return {str(ds.SOPInstanceUID) for ds in headers if "flair" in str(ds.SeriesDescription).lower()}


def wait_for_report(node: Node) -> dict[str, Any]:
    """Wait until the case is reported and return it."""
    case: dict[str, Any] = wait_until(
        "the case to be reported", lambda: (found := node.case()).get("state") == "reported" and found
    )
    return case
