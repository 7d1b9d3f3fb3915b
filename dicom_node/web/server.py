"""The HTTP server: waitress in a thread of the node process, bounded in everything it takes from that process.

It reads a request whole before a thread works on it, so a slow caller holds a connection and no thread; connections are
few, and one whose request takes too long is ended. It never keeps reception from starting: where the port is taken it
tries again until it is free.
"""

from __future__ import annotations

import logging
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from dicom_node import events
from dicom_node.web.headers import SECURITY_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.observe.logs import Log
    from dicom_node.web.settings import Web

THREADS: Final = 4
MOST_CONNECTIONS: Final = 64  # each holds a file descriptor that reception might need
MOST_HEADER_BYTES: Final = 16 * 1024
MOST_BODY_BYTES: Final = 16 * 1024
MOST_ANSWER_BYTES: Final = 64 * 1024 * 1024  # above, waitress would keep the answer in a file
LONGEST_REQUEST_S: Final = 20.0
IDLE_S: Final = 30
TRY_AGAIN_S: Final = 5.0
LOOK_S: Final = 0.5


class _ErrorTask(ErrorTask):  # type: ignore[misc] # waitress has no types
    """Answers what is no HTTP, with the headers of every answer and without the words of the request."""

    def execute(self) -> None:
        code = int(self.request.error.code)
        self.status = f"{code} {HTTPStatus(code).phrase}"
        body = f"{self.status}\n".encode()
        self.response_headers.extend([("Content-Type", "text/plain; charset=utf-8"), *SECURITY_HEADERS])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc] # waitress has no types
    """A connection that knows since when its request is on the way."""

    error_task_class = _ErrorTask
    since: float | None = None

    def received(self, data: bytes) -> Any:
        """Take what came; a request that is complete needs no more watching."""
        taken = super().received(data)
        self.since = None if self.request is None else self.since or time.time()
        return taken


class _Server(TcpWSGIServer):  # type: ignore[misc] # waitress has no types
    """Ends connections that are silent, and those whose request takes too long."""

    channel_class = _Channel

    def maintenance(self, now: float) -> None:
        """Look at every connection."""
        super().maintenance(now)
        for channel in self.active_channels.values():
            if channel.since is not None and channel.since < now - LONGEST_REQUEST_S:
                channel.will_close = True


class WebServer:
    """Serves a WSGI application. `start()` returns at once; what goes wrong is logged and tried again."""

    def __init__(self, web: Web, application: Callable[..., Any], log: Log) -> None:
        self._web = web
        self._application = application
        self._log = log
        self._stopping = threading.Event()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Serve as soon as the port is free."""
        self._thread.start()

    def wait_until_serving(self, timeout_s: float) -> bool:
        """Wait until it can be reached; say whether it can."""
        return self._serving.wait(timeout_s)

    def stop(self) -> None:
        """Take no new requests, and let those at work end within some seconds."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        logging.getLogger("waitress").setLevel(logging.CRITICAL)  # what goes wrong in a request is logged by the site
        told = False
        while not self._stopping.is_set():
            try:
                server = self._open()
            except OSError as error:
                if not told:
                    self._log.failure(events.WEB_FAILED, error, port=self._web.port)
                told = True
                self._stopping.wait(TRY_AGAIN_S)
                continue
            self._serve(server)
            self._stopping.wait(TRY_AGAIN_S)

    def _open(self) -> _Server:
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(THREADS)
        try:
            return _Server(
                self._application,
                map={},
                dispatcher=dispatcher,
                host=f"[{self._web.host}]" if ":" in self._web.host else self._web.host,
                port=self._web.port,
                ident=None,
                clear_untrusted_proxy_headers=False,  # the site judges them itself
                connection_limit=MOST_CONNECTIONS,
                backlog=MOST_CONNECTIONS,
                channel_timeout=IDLE_S,
                cleanup_interval=5,
                max_request_header_size=MOST_HEADER_BYTES,
                max_request_body_size=MOST_BODY_BYTES,
                inbuf_overflow=2 * MOST_BODY_BYTES,
                outbuf_overflow=MOST_ANSWER_BYTES,
                log_socket_errors=False,
            )
        except OSError:
            dispatcher.shutdown(timeout=1)
            raise

    def _serve(self, server: _Server) -> None:
        """Serve until told to stop. It polls: select() fails where the process has over 1024 files open."""
        connections = server._map  # noqa: SLF001 - there is no public way to them
        self._serving.set()
        self._log.info(events.WEB_STARTED, address=self._web.host, port=self._web.port)
        try:
            while not self._stopping.is_set():
                wasyncore.loop(timeout=LOOK_S, use_poll=True, map=connections, count=1)
        except Exception as error:  # noqa: BLE001 - the edge: the page starts anew, the node goes on
            self._log.failure(events.WEB_FAILED, error, port=self._web.port)
        finally:
            self._serving.clear()
            server.task_dispatcher.shutdown(timeout=5)
            server.close()
            wasyncore.close_all(connections, ignore_all=True)
