"""OHIF in headless Chromium over an Orthanc: what a radiologist sees, as text and as pixels."""

from __future__ import annotations

import json
import mimetypes
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
)
SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "dicomweb",
    "configuration": {
        "friendlyName": "Orthanc",
        "name": "orthanc",
        "wadoUriRoot": "/wado",
        "qidoRoot": "/dicom-web",
        "wadoRoot": "/dicom-web",
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsWildcard": True,
        "singlepart": "bulkdata,video,pdf",
        "bulkDataURI": {"enabled": True},
        "omitQuotationForMultipartRequest": True,
    },
}
CONFIG = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showCPUFallbackMessage": False,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "dicomweb",
    "dataSources": [SOURCE],
}


@contextmanager
def ohif(dist: Path, orthanc_port: int) -> Iterator[str]:
    """Serve OHIF's files and Orthanc's DICOMweb under one origin on the loopback interface; give its URL."""
    mimetypes.add_type("application/wasm", ".wasm")
    mimetypes.add_type("text/javascript", ".js")
    root = dist.resolve()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(("/dicom-web", "/wado")):
                self._pass_on()
            elif path == "/app-config.js":
                self._answer(200, f"window.config = {json.dumps(CONFIG)};".encode(), "text/javascript")
            else:
                file = (root / path.lstrip("/")).resolve()
                shown = file if file.is_file() and file.is_relative_to(root) else root / "index.html"
                kind = mimetypes.guess_type(shown.name)[0] or "application/octet-stream"
                self._answer(200, shown.read_bytes(), kind)

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {key: value for key, value in self.headers.items() if key.lower() in {"accept", "content-type"}}
            headers["Forwarded"] = f"host={self.headers['Host']};proto=http"
            url = f"http://127.0.0.1:{orthanc_port}{self.path}"
            body = self.rfile.read(length) if length else None
            request = urllib.request.Request(url, data=body, headers=headers, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    kind = answer.headers.get("Content-Type", "application/octet-stream")
                    self._answer(answer.status, answer.read(), kind)
            except urllib.error.HTTPError as error:
                self._answer(error.code, error.read(), "text/plain")

        def _answer(self, code: int, content: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def browser_page() -> Iterator[Page]:
    """Give a page of a headless Chromium."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where a viewer is tested

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser.new_page(viewport={"width": 1600, "height": 1000})
        finally:
            browser.close()


def open_study(page: Page, url: str, study_instance_uid: str) -> None:
    """Open a study; the tour that OHIF greets with is put away whenever it stands in the way."""
    tour = page.get_by_text("Skip all")
    page.add_locator_handler(tour, tour.click)
    page.goto(f"{url}/viewer?StudyInstanceUIDs={study_instance_uid}", wait_until="load", timeout=60_000)
    page.get_by_text("RUO", exact=False).first.wait_for(timeout=60_000)
