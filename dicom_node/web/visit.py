"""One request with everything an answer to it is made of."""

from __future__ import annotations

import hmac
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from werkzeug.exceptions import BadRequest, Forbidden, UnsupportedMediaType

from dicom_node.observe import health

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from werkzeug import Request, Response

    from dicom_node.ledger.database import Database
    from dicom_node.observe.health import Vitals
    from dicom_node.observe.logs import Log
    from dicom_node.settings import Settings
    from dicom_node.timeline.selection import Selection
    from dicom_node.web.callers import Caller
    from dicom_node.web.names import Names
    from dicom_node.web.rendering import Pages
    from dicom_node.web.sessions import Sessions, Throttle, Tokens, Visitor
    from dicom_node.work.tasks import ServedTask

KEPT_S: Final = 5.0  # so long an examination is told again, whoever asks
FORM: Final = "application/x-www-form-urlencoded"
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a form's field


class Examination:
    """The node's vital signs, looked at anew after some seconds, by one thread at a time."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._guard = threading.Lock()
        self._latest: tuple[float, Vitals] | None = None

    def vitals(self) -> Vitals:
        """Return what was found within the last seconds."""
        with self._guard:
            if self._latest is None or time.monotonic() - self._latest[0] > KEPT_S:
                found = health.examine(self._settings, self._database, self._clock())
                self._latest = (time.monotonic(), found)
            return self._latest[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the pages are made from; `one_time_line` is held while a time line is read, the costliest of all pages."""

    settings: Settings
    database: Database
    tasks: Mapping[str, ServedTask]
    selection: Selection
    examination: Examination
    names: Names
    pages: Pages
    sessions: Sessions
    tokens: Tokens
    throttle: Throttle
    one_time_line: threading.Semaphore
    clock: Callable[[], datetime]
    log: Log


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request, who makes it, and what it may be answered from."""

    parts: Parts
    request: Request
    caller: Caller
    visitor: Visitor | None

    @property
    def who(self) -> Visitor:
        """Who is logged in; only pages behind the login ask."""
        assert self.visitor is not None  # noqa: S101 - the site lets nobody else get there
        return self.visitor

    def page(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Return a page made for this visitor."""
        return self.parts.pages.render(template, self, status=status, **values)

    def field(self, name: str, longest: int = 200) -> str:
        """Return a field of the form, empty where it is missing.

        Raises:
            BadRequest: if it is too long.
        """
        found = self.request.form.get(name, "").strip()
        if len(found) > longest:
            raise BadRequest(description=f"The field {name} may have {longest} characters at most.")
        return found

    def argument(self, name: str) -> str | None:
        """Return an argument of the address, None where it is missing or empty."""
        return self.request.args.get(name) or None

    def start(self) -> int:
        """Return from which row on a list is shown."""
        text = self.request.args.get("start", "0")
        return min(int(text), 10_000_000) if text.isdecimal() and text.isascii() else 0

    def require_own_form(self, expected: str) -> None:
        """Refuse a form that was not made by us for this visitor.

        Raises:
            Forbidden: if it comes from elsewhere.
            UnsupportedMediaType: if it is no simple form.
        """
        if self.request.mimetype != FORM:
            raise UnsupportedMediaType
        foreign = self.request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}
        given = self.request.form.get(FORM_TOKEN, "")
        if foreign or not hmac.compare_digest(given.encode(), expected.encode()):
            raise Forbidden(description="This form is too old or was not made here. Load the page anew and try again.")
