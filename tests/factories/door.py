"""A listening node in this process with either engine, what it stored, and a peer that sends what it was told to."""

from __future__ import annotations

import json
import socket
import struct
from typing import TYPE_CHECKING, Any

from pydicom.uid import MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from sqlalchemy import select

from dicom_node.demo_pacs import free_port
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import arrival
from dicom_node.observe.logs import open_log
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.listener import Listener
from dicom_node.settings import Logging, Settings
from tests.factories.peers import NODE_AE, SCANNER_AE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset
    from pynetdicom.association import Association

A_ABORT = struct.pack(">BxIxxBB", 0x07, 4, 0, 0)  # by the service user, PS3.8 9.3.8
A_ASSOCIATE_AC, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, ABORTED = 0x02, 0x04, 0x05, 0x06, 0x07
PATIENCE_S = 120.0  # for an answer, on a machine that has other things to do


class Served:
    """A listener with its ledger and its files."""

    def __init__(self, folder: Path, engine: str, **receive: Any) -> None:
        self.engine = engine
        self.port = free_port()
        titles = (SCANNER_AE, "ORTHANC")
        peers = [{"ae_title": title, "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"} for title in titles]
        self.settings = Settings.model_validate(
            {
                "node": {"ae_title": NODE_AE, "port": self.port, "data_dir": folder},
                "receive": {"peers": peers, "min_free_disk_gb": 0, "engine": engine} | receive,
                "tasks": ["glioma-recurrence"],
            }
        )
        self.log_path = folder / "log.jsonl"
        self._log_file = self.log_path.open("w", encoding="utf-8")
        self.database = Database(self.settings.ledger_url)
        self.database.migrate()
        self.files = InstanceFiles(folder / "instances")
        self.files.prepare()
        log = open_log(Logging(format="json"), b"key", self._log_file)
        self.listener = Listener(self.settings, self.database, self.files, log)
        self.listener.start()

    def close(self) -> None:
        """Stop listening and give everything back."""
        self.listener.stop()
        self.database.close()
        self._log_file.close()

    def stored(self, sop_instance_uid: str) -> list[Path]:
        """Return the files that the ledger promises for an instance."""
        with self.database.read() as ledger:
            query = select(arrival.c.path).where(arrival.c.sop_instance_uid == sop_instance_uid)
            return [self.files.path(path) for path in ledger.scalars(query)]

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """Return what the log says of an event."""
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        return [line for each in lines if (line := json.loads(each))["event"] == event]

    def expect_no_leftovers(self) -> None:
        """Wait until no file lies under a temporary name, and every other has its row."""

        def settled() -> bool:
            with self.database.read() as ledger:
                rows = set(ledger.scalars(select(arrival.c.path)))
            files = (path for path in self.files.folder.rglob("*") if path.is_file())
            return {str(path.relative_to(self.files.folder)) for path in files} == rows

        wait_until("only files with a row to be there", settled, timeout_s=PATIENCE_S, every_s=0.05)

    def associate(self, *syntaxes: str, calling: str = SCANNER_AE, called: str = NODE_AE, **more: Any) -> Association:
        """Call the listener as a scanner that stores MR and echoes."""
        ae = AE(ae_title=calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = PATIENCE_S
        ae.maximum_pdu_size = more.pop("maximum_pdu_size", 16382)
        ae.add_requested_context(Verification)
        ae.add_requested_context(MRImageStorage, list(syntaxes) or None)
        return ae.associate("127.0.0.1", self.port, ae_title=called, **more)

    def record(self, ds: Dataset, *, pdu_bytes: int) -> list[bytes]:
        """Return every PDU that a scanner sends to store one object: association, messages, release."""
        pdus: list[bytes] = []
        handlers = [(evt.EVT_DATA_SENT, lambda event: pdus.append(bytes(event.data)))]
        association = self.associate(evt_handlers=handlers)
        assert association.send_c_store(ds).Status == 0x0000
        association.release()
        request, *messages, release = pdus
        items = [item for pdu in messages for item in items_of(pdu)]
        context_id = items[0][0]
        command = b"".join(content for _, control, content in items if control & 1)
        data = b"".join(content for _, control, content in items if not control & 1)
        size = pdu_bytes - 6  # of an item's content, PS3.8 D.1.1
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        cut = [p_data((context_id, 0, each)) for each in pieces[:-1]] + [p_data((context_id, 2, pieces[-1]))]
        return [request, p_data((context_id, 3, command)), *cut, release]


class RawPeer:
    """A peer on a socket that sends bytes as they are, and reads whole PDUs."""

    def __init__(self, port: int, request: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(request)
        kind, _ = self.read()
        assert kind == A_ASSOCIATE_AC

    def send(self, *pdus: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(b"".join(pdus))

    def read(self) -> tuple[int, bytes]:
        """Return kind and content of the next PDU; kind 0: the connection was closed."""
        try:
            head = self._exactly(6)
            kind, length = struct.unpack(">BxI", head)
            return kind, self._exactly(length)
        except (ConnectionError, EOFError):
            return 0, b""

    def status(self) -> int:
        """Return the status of the response that comes next (PS3.7 annex E.1)."""
        kind, content = self.read()
        assert kind == P_DATA_TF
        return int(struct.unpack_from("<H", content, content.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8)[0])

    def close(self) -> None:
        """Close the connection without a word."""
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._socket.recv(size - len(found))
            if not piece:
                raise EOFError
            found += piece
        return found


def items_of(pdu: bytes) -> list[tuple[int, int, bytes]]:
    """Return context, message control header and content of the items of a P-DATA-TF PDU (PS3.8 9.3.5)."""
    found, at = [], 6
    while at < len(pdu):
        size, context_id, control = struct.unpack_from(">IBB", pdu, at)
        found.append((context_id, control, pdu[at + 6 : at + 4 + size]))
        at += 4 + size
    return found


def p_data(*items: tuple[int, int, bytes]) -> bytes:
    """Return a P-DATA-TF PDU with these items."""
    content = b"".join(struct.pack(">IBB", len(each[2]) + 2, each[0], each[1]) + each[2] for each in items)
    return struct.pack(">BxI", P_DATA_TF, len(content)) + content
