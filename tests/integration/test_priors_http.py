"""What an HTTP archive answers, and who must act on it: wait, or ask in another way."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from dicom_node.demo_pacs import free_port
from dicom_node.errors import UpstreamError
from dicom_node.priors.archive import CannotBeAsked, FoundSeries
from dicom_node.priors.dicomweb import WebArchive, WebRetriever
from dicom_node.priors.orthanc_rest import OrthancArchive, OrthancRetriever
from dicom_node.settings import DicomWeb, Orthanc

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES = FoundSeries(study_instance_uid="1.2.3", series_instance_uid="1.2.3.4")
MULTIPART = 'multipart/related; type="application/dicom"; boundary=B'
WHOLE = b"--B\r\nContent-Type: application/dicom\r\n\r\nfirst\r\n--B\r\n\r\nsecond\r\n--B--\r\n"


class Script(ThreadingHTTPServer):
    """A real HTTP server that gives one answer to everything."""

    status = 200
    content_type = "application/dicom+json"
    body = b"[]"
    length: int | None = None  # claimed, where it differs
    authorization: str | None = None  # of the latest request
    path = ""

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Script

    def do_GET(self) -> None:
        """Answer as told."""
        self.server.authorization = self.headers.get("Authorization")
        self.server.path = self.path
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.content_type)
        self.send_header("Content-Length", str(self.server.length or len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET  # noqa: N815 - the name of the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Stay quiet."""


@pytest.fixture
def script() -> Iterator[Script]:
    """A serving script."""
    server = Script(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def operations(url: str) -> list[Any]:
    """Return every question and retrieval over HTTP, ready to be made."""
    web, orthanc = DicomWeb(url=url, timeout_s=2), Orthanc(url=url, timeout_s=2)
    return [
        lambda: WebArchive(web).find_studies("SENTINEL-1"),
        lambda: WebArchive(web).find_series("1.2.3"),
        lambda: WebRetriever(web).fetch(SERIES, lambda _content: None),
        lambda: OrthancArchive(orthanc).find_studies("SENTINEL-1"),
        lambda: OrthancRetriever(orthanc).fetch(SERIES, lambda _content: None),
    ]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, UpstreamError),
        (403, UpstreamError),
        (429, UpstreamError),
        (500, UpstreamError),
        (400, CannotBeAsked),
        (404, CannotBeAsked),
        (406, CannotBeAsked),
    ],
)
def test_each_http_status_has_its_consequence(script: Script, status: int, error: type[Exception]) -> None:
    """Credentials and a troubled server may be mended; what was understood and refused will be refused again."""
    script.status, script.body = status, b"{}"
    for operation in operations(script.url):
        with pytest.raises(error, match=f"HTTP status {status}"):
            operation()


def test_a_server_that_is_away_is_asked_later() -> None:
    """By every way over HTTP."""
    for operation in operations(f"http://127.0.0.1:{free_port()}"):
        with pytest.raises(UpstreamError, match="no connection"):
            operation()


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b'{"answer": 42}', b'["one"]'])
def test_a_page_that_is_no_answer_names_no_study(script: Script, body: bytes) -> None:
    """A login page is refused; JSON that is not DICOM's becomes answers that nobody believes."""
    script.body = body
    for operation in operations(script.url)[:2]:
        try:
            found = operation()
        except CannotBeAsked:
            continue
        assert all(not each.study_instance_uid or each.study_instance_uid == "1.2.3" for each in found)
    with pytest.raises(CannotBeAsked):
        operations(script.url)[3]()


def test_each_part_of_a_series_is_taken_as_it_came(script: Script) -> None:
    """With the transfer syntax it is stored in, at the series' own address."""
    script.content_type, script.body = MULTIPART, WHOLE
    taken: list[bytes] = []
    fetched = WebRetriever(DicomWeb(url=f"{script.url}/dicom-web/")).fetch(SERIES, taken.append)
    assert (fetched.instances, taken) == (2, [b"first", b"second"])
    assert script.path == "/dicom-web/studies/1.2.3/series/1.2.3.4"


def test_a_series_that_breaks_off_is_fetched_later_and_keeps_what_came(script: Script) -> None:
    """The cut part does not count."""
    first = bytes(1 << 17)
    whole = WHOLE.replace(b"first", first)
    script.content_type, script.body, script.length = MULTIPART, whole[:-10] + first, len(whole) + 2 * len(first)
    taken: list[bytes] = []
    with pytest.raises(UpstreamError, match="broke off"):
        WebRetriever(DicomWeb(url=script.url, timeout_s=2)).fetch(SERIES, taken.append)
    assert taken == [first]


def test_user_and_password_come_from_the_environment(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of variables, in every request."""
    monkeypatch.setenv("ARCHIVE_USER", "node")
    monkeypatch.setenv("ARCHIVE_PASSWORD", "secret")
    names = {"username_env": "ARCHIVE_USER", "password_env": "ARCHIVE_PASSWORD"}
    WebArchive(DicomWeb(url=script.url, **names)).find_studies("SENTINEL-1")
    assert script.authorization == "Basic bm9kZTpzZWNyZXQ="
    script.authorization = None
    OrthancArchive(Orthanc(url=script.url, **names)).find_studies("SENTINEL-1")
    assert script.authorization == "Basic bm9kZTpzZWNyZXQ="
