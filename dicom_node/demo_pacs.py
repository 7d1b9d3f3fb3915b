"""The demo's archive: an embedded one (pynetdicom's qrscp, its own process) or a given one, and what it holds."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from dicom_node.errors import UpstreamError
from dicom_node.requestor import PREPARED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.events import Event

START_S: Final = 30.0
PORTS: Final = range(20_000, 32_000)
PENDING: Final = (0xFF00, 0xFF01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where an archive is and what it is called."""

    host: str
    port: int
    ae_title: str

    @classmethod
    def parse(cls, text: str) -> Archive:
        """Read HOST:PORT:AET.

        Raises:
            ValueError: if it has another form.
        """
        host, port, ae_title = text.split(":")
        return cls(host=host, port=int(port), ae_title=ae_title)


def free_port() -> int:
    """Return a port on the loopback interface that nobody uses at the moment.

    It lies below those that the system gives to outgoing connections, one of which could take it before it is used.
    """
    while True:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for_echo(archive: Archive, calling_ae_title: str) -> None:
    """Return when the archive answers C-ECHO.

    Raises:
        UpstreamError: if it does not within half a minute.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = 5
    ae.add_requested_context(Verification)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        association = ae.associate(archive.host, archive.port, ae_title=archive.ae_title, evt_handlers=[*PREPARED])
        if association.is_established:
            association.send_c_echo()
            association.release()
            return
        time.sleep(0.2)
    msg = f"{archive.ae_title} at {archive.host}:{archive.port} did not answer C-ECHO within {START_S:.0f} s"
    raise UpstreamError(msg)


@contextmanager
def embedded_archive(folder: Path) -> Iterator[Archive]:
    """Run pynetdicom's qrscp for as long as the block lasts."""
    archive = Archive(host="127.0.0.1", port=free_port(), ae_title="DEMOPACS")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "qrscp.ini"
    config.write_text(
        "[DEFAULT]\n"
        f"ae_title: {archive.ae_title}\nport: {archive.port}\nbind_address: {archive.host}\n"
        "max_pdu: 131072\nacse_timeout: 30\ndimse_timeout: 30\nnetwork_timeout: 60\nlog_identifier: False\n"
        f"instance_location: {folder / 'instances'}\ndatabase_location: {folder / 'qrscp.sqlite'}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-W", "ignore", "-m", "pynetdicom", "qrscp", "--quiet", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as process:  # noqa: S603 - a fixed command
        try:
            wait_for_echo(archive, "DEMO")
            yield archive
        finally:
            process.terminate()
            process.wait(timeout=10)


def fetch(archive: Archive, calling_ae_title: str, study_uid: str, sop_classes: Sequence[str]) -> list[Dataset]:
    """Return the objects of these SOP classes that the archive holds in a study: C-FIND for series, C-GET each.

    Raises:
        UpstreamError: if the archive cannot be asked.
    """
    received: list[Dataset] = []

    def keep(event: Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        received.append(ds)
        return 0x0000

    ae = AE(ae_title=calling_ae_title)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    for uid in sop_classes:
        ae.add_requested_context(uid)
    association = ae.associate(
        archive.host,
        archive.port,
        ae_title=archive.ae_title,
        ext_neg=[build_role(uid, scp_role=True) for uid in sop_classes],
        evt_handlers=[*PREPARED, (evt.EVT_C_STORE, keep)],
    )
    if not association.is_established:
        msg = f"{archive.ae_title} at {archive.host}:{archive.port} refused to be queried"
        raise UpstreamError(msg)
    for series_uid in _series(association, study_uid):
        _get(association, study_uid, series_uid)
    association.release()
    return [ds for ds in received if ds.SOPClassUID in sop_classes]


def _series(association: Association, study_uid: str) -> list[str]:
    """Return the SR and secondary capture series of a study."""
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_uid
    query.SeriesInstanceUID = ""
    query.Modality = ""
    responses = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
    found = [each for status, each in responses if each is not None and status.Status in PENDING]
    return [str(each.SeriesInstanceUID) for each in found if each.get("Modality") in {"SR", "OT"}]


def _get(association: Association, study_uid: str, series_uid: str) -> None:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_uid
    query.SeriesInstanceUID = series_uid
    for _ in association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet):
        pass  # the objects come in by C-STORE on this association
