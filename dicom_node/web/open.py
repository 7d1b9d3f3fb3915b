"""Puts the status page together from what a node process has."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from sqlalchemy.engine import make_url

from dicom_node import events
from dicom_node.ledger.database import Database
from dicom_node.web.names import Names
from dicom_node.web.rendering import Pages
from dicom_node.web.server import WebServer
from dicom_node.web.sessions import Sessions, Throttle, Tokens
from dicom_node.web.site import Site
from dicom_node.web.visit import Examination, Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from datetime import datetime

    from dicom_node.errors import NodeError
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Settings
    from dicom_node.timeline.selection import Selection
    from dicom_node.work.tasks import ServedTask

CONNECT_S: Final = 5
STATEMENT_S: Final = 15


def impatient(url: str) -> str:
    """Return the URL of a ledger that is given up soon: four pages that wait would leave no thread for a probe.

    A reader of SQLite waits for nobody, so only a server gets limits, where the URL sets none.
    """
    found = make_url(url)
    if found.get_backend_name() != "postgresql":
        return url
    limits = {"connect_timeout": str(CONNECT_S), "options": f"-c statement_timeout={STATEMENT_S}s"}
    return found.set(query=limits | dict(found.query)).render_as_string(hide_password=False)


def open_web(
    settings: Settings,
    tasks: Mapping[str, ServedTask],
    selection: Selection,
    log: Log,
    stack: ExitStack,
    *,
    clock: Callable[[], datetime],
) -> WebServer:
    """Serve the page until the stack is closed.

    It has connections to the ledger of its own, so that reception never waits for one.
    """

    def unusable(error: NodeError) -> None:
        log.failure(events.WEB_FAILED, error, port=settings.web.port)

    database = Database(impatient(settings.ledger_url))
    stack.callback(database.close)
    parts = Parts(
        settings=settings,
        database=database,
        tasks=tasks,
        selection=selection,
        examination=Examination(settings, database, clock),
        names=Names(log),
        pages=Pages(ae_title=settings.node.ae_title, shadow=settings.mode == "shadow"),
        sessions=Sessions(settings.web.session_h * 3600),
        tokens=Tokens(settings.web.users, unusable),
        throttle=Throttle(),
        one_time_line=threading.Semaphore(1),
        clock=clock,
        log=log,
    )
    server = WebServer(settings.web, Site(parts), log)
    server.start()
    stack.callback(server.stop)
    return server
