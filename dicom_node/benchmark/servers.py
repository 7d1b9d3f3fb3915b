"""What receives in a benchmark: our node and its peers, each as its own processes, started on an empty folder.

DCMTK's tools and Orthanc, as Debian installs them, leave Nagle's algorithm on and write a PDU in two parts. With the
delayed acknowledgements of the other side that costs 40 ms an instance, a hundred times what is measured here; with
TCP_NODELAY=1 in their environment it is gone. So every comparison says which of the two it is.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

import yaml

from dicom_node.benchmark.images import ISSUER
from dicom_node.demo_pacs import free_port
from dicom_node.errors import NodeError, UpstreamError
from dicom_node.settings import Receive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

SENDER_AE: Final = "BENCHSCU"
STORESCU: Final = "/usr/bin/storescu"  # DCMTK's, not the one of the same name that pynetdicom installs
STORESCP: Final = "/usr/bin/storescp"
START_S: Final = 600.0
STOP_S: Final = 600.0
QUIET_PERIOD_S: Final = 3600  # nothing is decided on what is still arriving


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A receiver: how it is called, how it is started, and where it keeps what it received."""

    name: str
    ae_title: str
    program: str  # without it on this machine the server is left out
    configure: Callable[[Path, int], list[str]]  # (folder, port) -> command
    stored: str  # the Part 10 files, as a pattern under the folder
    is_ours: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether it can be started here."""
        return shutil.which(self.program) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that serves."""

    server: Server
    folder: Path
    port: int
    pid: int

    def files(self) -> list[Path]:
        """Return the Part 10 files that it stored."""
        found = (path for path in self.folder.glob(self.server.stored) if path.is_file())
        return [path for path in found if _is_part_10(path)]


def engines() -> tuple[str, ...]:
    """Return the engines of reception that a configuration may name, the default one first."""
    field = Receive.model_fields["engine"]
    return tuple(dict.fromkeys([str(field.default), *map(str, get_args(field.annotation))]))


def node(engine: str, *, role: str = "listener", **sections: Mapping[str, Any] | Sequence[Any]) -> Server:
    """Return our node with an engine; `sections` are merged into its configuration."""

    def configure(folder: Path, port: int) -> list[str]:
        path = write_config(folder, port, engine, sections)
        return [sys.executable, "-m", "dicom_node", "run", "--config", str(path), "--role", role]

    return Server(
        name=f"node-{engine}",
        ae_title="TEMPORALNODE",
        program=sys.executable,
        configure=configure,
        stored="data/instances/[0-9a-f][0-9a-f]/*.dcm",
        is_ours=True,
    )


def write_config(folder: Path, port: int, engine: str, sections: Mapping[str, Any]) -> Path:
    """Write the configuration of a node that takes whatever the benchmark sends."""
    receive = {
        "peers": [{"ae_title": SENDER_AE, "hosts": ["127.0.0.1"], "default_issuer": ISSUER}],
        "engine": engine,
        "quiet_period_s": QUIET_PERIOD_S,
        "max_wait_s": QUIET_PERIOD_S,
        "min_free_disk_gb": 0.1,
    }
    content: dict[str, Any] = {
        "node": {"ae_title": "TEMPORALNODE", "host": "127.0.0.1", "port": port, "data_dir": "data"},
        "tasks": ["glioma-recurrence"],
        "logging": {"format": "json"},
        **sections,
        "receive": {**receive, **sections.get("receive", {})},
    }
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def orthanc() -> Server:
    """Return Debian's Orthanc with its defaults, but for ports and folders; without plug-ins."""
    return Server(
        name="orthanc", ae_title="ORTHANC", program="Orthanc", configure=_configure_orthanc, stored="db/??/??/*"
    )


def _configure_orthanc(folder: Path, port: int) -> list[str]:
    config = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": free_port(),
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowFind": True,
        "Plugins": [],
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return ["Orthanc", str(path)]


def storescp() -> Server:
    """Return DCMTK's storescp: a process per association, data sets written as they come, nothing synced."""

    def configure(folder: Path, port: int) -> list[str]:
        (folder / "stored").mkdir()
        return [STORESCP, "--fork", "+B", "-od", str(folder / "stored"), str(port)]

    return Server(name="storescp", ae_title="STORESCP", program=STORESCP, configure=configure, stored="stored/*")


def pynetdicom() -> Server:
    """Return pynetdicom's own storescp application: decodes and encodes again, nothing synced."""

    def configure(folder: Path, port: int) -> list[str]:
        (folder / "stored").mkdir()
        application = [sys.executable, "-W", "ignore", "-m", "pynetdicom", "storescp"]
        return [*application, "-ba", "127.0.0.1", "-od", str(folder / "stored"), str(port)]

    return Server(
        name="pynetdicom", ae_title="STORESCP", program=sys.executable, configure=configure, stored="stored/*"
    )


PEERS: Final[Mapping[str, Callable[[], Server]]] = {
    "orthanc": orthanc,
    "storescp": storescp,
    "pynetdicom": pynetdicom,
}


@contextmanager
def serving(server: Server, folder: Path, *, nagle: bool = False) -> Iterator[Running]:
    """Run a server on a new folder for as long as the block lasts.

    Raises:
        UpstreamError: if it does not listen in time.
        OSError: if it cannot be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = server.configure(folder, port)
    log = (folder / "server.log").open("ab")
    with log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment(nagle=nagle)) as process:  # noqa: S603 - servers that we know
        try:
            _wait_until_it_listens(server, port, process)
            yield Running(server=server, folder=folder, port=port, pid=process.pid)
        finally:
            process.terminate()
            _wait_for_the_end(server, process)


def environment(*, nagle: bool) -> dict[str, str]:
    """Return the environment of a peer: with Nagle's algorithm as it is installed, or without it."""
    found = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return found if nagle else found | {"TCP_NODELAY": "1"}


def _wait_until_it_listens(server: Server, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            msg = f"{server.name}: expected it to serve, found it ended with exit code {process.returncode}"
            raise UpstreamError(msg)
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    msg = f"{server.name}: did not listen within {START_S:.0f} s"
    raise UpstreamError(msg)


def _wait_for_the_end(server: Server, process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.wait()
        msg = f"{server.name}: did not end within {STOP_S:.0f} s of SIGTERM"
        raise NodeError(msg) from error


def _is_part_10(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
