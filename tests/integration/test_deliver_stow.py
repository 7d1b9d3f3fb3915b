"""Delivery by STOW-RS: what a server's answer means for the report, from a real HTTP server that answers as told."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, MRImageStorage

from dicom_node.deliver import stow
from dicom_node.deliver.outcome import Load, Outcome, Parcel, Verdict
from dicom_node.demo_pacs import free_port
from dicom_node.settings import DicomWeb
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAILED, REFERENCED = "00081198", "00081199"
CLASS_NOT_SUPPORTED, OUT_OF_RESOURCES, COERCED = 0x0122, 0xA700, 0xB000


@dataclass
class Answer:
    """What the server says to one request: a status, and what became of objects by SOP Instance UID."""

    status: int
    failed: dict[str, int] = field(default_factory=dict)
    stored: tuple[str, ...] = ()
    warned: dict[str, int] = field(default_factory=dict)
    body: bytes | None = None

    def content(self) -> bytes:
        """Return it as DICOM JSON."""
        if self.body is not None:
            return self.body
        ds: dict[str, Any] = {}
        if self.failed:
            ds[FAILED] = _sequence({uid: ("00081197", reason) for uid, reason in self.failed.items()})
        if self.stored or self.warned:
            there: dict[str, Any] = dict.fromkeys(self.stored)
            ds[REFERENCED] = _sequence(there | {uid: ("00081196", reason) for uid, reason in self.warned.items()})
        return json.dumps(ds).encode()


def _sequence(items: dict[str, tuple[str, int] | None]) -> dict[str, Any]:
    value = []
    for uid, said in items.items():
        item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if said is not None:
            item[said[0]] = {"vr": "US", "Value": [said[1]]}
        value.append(item)
    return {"vr": "SQ", "Value": value}


class Server:
    """An HTTP server with an answer for each request."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.requests.append(_whole(self))
                answer = outer.answers.pop(0)
                content = answer.content()
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/dicom+json; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.destination = DicomWeb(url=f"http://127.0.0.1:{self._http.server_address[1]}", timeout_s=5)
        self._thread = threading.Thread(target=self._http.serve_forever)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _whole(handler: BaseHTTPRequestHandler) -> bytes:
    """Read a request, of a given length or in chunks."""
    length = handler.headers.get("Content-Length")
    if length is not None:
        return handler.rfile.read(int(length))
    found = b""
    while size := int(handler.rfile.readline(), 16):
        found += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    """A serving server."""
    found = Server()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """An image, and a report in two classes; small objects stand for them."""
    series = classic_series(np.zeros((3, 8, 8), dtype=np.uint16), np.eye(4))
    classes = (MRImageStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage)
    parcels = [
        Parcel(path=path, sop_class_uid=sop_class_uid, sop_instance_uid=str(ds.SOPInstanceUID))
        for path, ds, sop_class_uid in zip(write(series, tmp_path / "outbox"), series, classes, strict=True)
    ]
    return Load(objects=(parcels[0],), reports=tuple(parcels[1:]))


def uids(load: Load) -> tuple[str, str, str]:
    """Return image, report, and report in the other class."""
    image, report, other = (each.sop_instance_uid for each in load.parcels)
    return image, report, other


def send(server: Server, load: Load, *answers: Answer) -> Outcome:
    """Send to a server that answers like this."""
    server.answers = list(answers)
    return stow.send(load, server.destination)


def test_everything_goes_in_one_request(server: Server, load: Load) -> None:
    """The first class of the report with the images; 200 means stored."""
    image, report, other = uids(load)
    outcome = send(server, load, Answer(200, stored=(image, report)))
    assert (outcome.verdict, outcome.taken) == (Verdict.DELIVERED, (image, report))
    assert outcome.report_class == Comprehensive3DSRStorage
    (request,) = server.requests
    assert image.encode() in request
    assert report.encode() in request
    assert other.encode() not in request


def test_a_warning_is_a_delivery(server: Server, load: Load) -> None:
    """202 with a Warning Reason: the object is there, some of it changed."""
    image, report, _ = uids(load)
    outcome = send(server, load, Answer(202, stored=(image,), warned={report: COERCED}))
    assert outcome.verdict is Verdict.DELIVERED


@pytest.mark.parametrize("status", [202, 409])
def test_a_report_whose_class_is_not_supported_goes_in_the_next(server: Server, load: Load, status: int) -> None:
    """In a second request, without the images, which are there."""
    image, report, other = uids(load)
    refused = Answer(status, stored=(image,), failed={report: CLASS_NOT_SUPPORTED})
    outcome = send(server, load, refused, Answer(200, stored=(other,)))
    assert (outcome.verdict, outcome.taken) == (Verdict.DELIVERED, (image, other))
    assert outcome.report_class == ComprehensiveSRStorage
    assert image.encode() not in server.requests[1]


def test_what_no_class_helps_is_told(server: Server, load: Load) -> None:
    """The report was refused in each class: a dead letter with the reason."""
    image, report, other = uids(load)
    outcome = send(
        server,
        load,
        Answer(202, stored=(image,), failed={report: CLASS_NOT_SUPPORTED}),
        Answer(409, failed={other: CLASS_NOT_SUPPORTED}),
    )
    assert (outcome.verdict, outcome.taken, outcome.report_class) == (Verdict.FAILED, (image,), None)
    assert "0x0122" in outcome.reason


def test_a_server_without_room_is_tried_again(server: Server, load: Load) -> None:
    """0xA700 in the response passes, as in DIMSE; what was stored is noted."""
    image, report, _ = uids(load)
    outcome = send(server, load, Answer(202, stored=(image,), failed={report: OUT_OF_RESOURCES}))
    assert (outcome.verdict, outcome.taken) == (Verdict.RETRY, (image,))


def test_an_object_that_the_answer_leaves_out_is_not_there(server: Server, load: Load) -> None:
    """A server that names some objects has said nothing good of the others."""
    image, _, _ = uids(load)
    outcome = send(server, load, Answer(200, stored=(image,)))
    assert (outcome.verdict, outcome.taken) == (Verdict.RETRY, (image,))


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (401, Verdict.RETRY),
        (403, Verdict.RETRY),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
        (503, Verdict.RETRY),
        (400, Verdict.FAILED),
        (404, Verdict.FAILED),
        (415, Verdict.FAILED),
    ],
)
def test_each_http_status_has_its_consequence(server: Server, load: Load, status: int, verdict: Verdict) -> None:
    """Credentials, load and a server's trouble may be mended; a request that is wrong stays wrong."""
    outcome = send(server, load, Answer(status, body=b"<html>no</html>"))
    assert outcome.verdict is verdict
    assert str(status) in outcome.reason
    assert outcome.taken == (None if status >= 500 else ())


def test_a_conflict_without_a_reason_is_tried_again(server: Server, load: Load) -> None:
    """409 and nothing that could be read: a processing failure of unknown cause, nothing is there."""
    outcome = send(server, load, Answer(409, body=b""))
    assert (outcome.verdict, outcome.taken) == (Verdict.RETRY, ())


def test_a_server_that_is_away_is_tried_again(load: Load) -> None:
    """Nobody knows what it got."""
    outcome = stow.send(load, DicomWeb(url=f"http://127.0.0.1:{free_port()}", timeout_s=2))
    assert (outcome.verdict, outcome.taken) == (Verdict.RETRY, None)
