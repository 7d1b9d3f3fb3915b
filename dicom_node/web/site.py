"""The status page as a WSGI application: who may see what, and what is said where something goes wrong.

Every request goes the same way: Host header, address, transport, login, form token, role, page. Every answer, errors
among them, carries the security headers; no error says anything of a patient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError
from werkzeug import Request, Response
from werkzeug.exceptions import Forbidden, HTTPException, MisdirectedRequest, NotFound
from werkzeug.routing import Map, Rule

from dicom_node import events
from dicom_node.web import callers, login, orders, pages, probes
from dicom_node.web.headers import BEHIND_TLS, SECURITY_HEADERS
from dicom_node.web.server import MOST_BODY_BYTES
from dicom_node.web.visit import Visit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dicom_node.web.visit import Parts

    View = Callable[..., Response]

OPEN: Final = {"live", "ready", "health", "style", "icon"}  # without login and over any transport: nobody is named
BY_TOKEN: Final = {"metrics"}  # a token in a header, no session
LOGIN: Final = "login"

RULES: Final = Map(
    [
        Rule("/health", endpoint="health", methods=["GET"]),
        Rule("/health/live", endpoint="live", methods=["GET"]),
        Rule("/health/ready", endpoint="ready", methods=["GET"]),
        Rule("/metrics", endpoint="metrics", methods=["GET"]),
        Rule("/style.css", endpoint="style", methods=["GET"]),
        Rule("/icon.svg", endpoint="icon", methods=["GET"]),
        Rule("/login", endpoint=LOGIN, methods=["GET", "POST"]),
        Rule("/logout", endpoint="logout", methods=["POST"]),
        Rule("/", endpoint="overview", methods=["GET"]),
        Rule("/cases", endpoint="cases", methods=["GET"]),
        Rule("/deliveries", endpoint="deliveries", methods=["GET"]),
        Rule("/find", endpoint="find", methods=["POST"]),
        Rule("/retry", endpoint="retry", methods=["POST"]),
        Rule("/patient/<string(length=12):pseudonym>", endpoint="patient", methods=["GET"]),
        Rule("/patient/<string(length=12):pseudonym>/<any(hold,release):order>", endpoint="confirm", methods=["GET"]),
        Rule("/patient/<string(length=12):pseudonym>/<any(hold,release):order>", endpoint="order", methods=["POST"]),
    ],
    strict_slashes=False,
    redirect_defaults=False,
    merge_slashes=False,
)
VIEWS: Final[dict[str, View]] = {
    "health": probes.health,
    "live": probes.live,
    "ready": probes.ready,
    "metrics": probes.metrics,
    "style": pages.style,
    "icon": pages.icon,
    LOGIN: login.login_page,
    "logout": login.log_out,
    "overview": pages.overview,
    "cases": pages.cases,
    "deliveries": pages.deliveries,
    "find": pages.find,
    "retry": orders.retry,
    "patient": pages.patient,
    "confirm": orders.confirm,
    "order": orders.carry_out,
}
ACTS: Final = {"retry", "confirm", "order"}  # for admins only


class _Request(Request):
    """A request that is small."""

    max_content_length = MOST_BODY_BYTES
    max_form_memory_size = MOST_BODY_BYTES
    max_form_parts = 20


class Site:
    """Answers requests. Never raises: what goes wrong is an error page here, and a line in the log."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        request = _Request(environ)
        caller = callers.identify(request, self._parts.settings.web)
        try:
            response = self._answer(request, caller)
        except HTTPException as error:
            response = self._told(error)
        except SQLAlchemyError as error:
            self._parts.log.failure(events.REQUEST_FAILED, error, status=503)
            response = self._parts.pages.error(503, "The database does not answer. The node goes on trying.")
        except Exception as error:  # noqa: BLE001 - the edge: the node goes on, whatever a page does
            self._parts.log.failure(events.REQUEST_FAILED, error, status=500)
            response = self._parts.pages.error(500, "This page failed. The log says where, under request.failed.")
        for name, value in (*SECURITY_HEADERS, *([BEHIND_TLS] if caller.over_tls else [])):
            response.headers[name] = value
        return response(environ, start_response)

    def _answer(self, request: Request, caller: callers.Caller) -> Response:
        endpoint, values = RULES.bind(server_name="node").match(request.path, method=request.method)
        visit = Visit(parts=self._parts, request=request, caller=caller, visitor=None)
        if endpoint in OPEN:
            return VIEWS[endpoint](visit, **values)
        web = self._parts.settings.web
        if not callers.is_ours(request.headers.get("Host", ""), web):
            raise MisdirectedRequest(description="Nobody is served under this host name; see web.names.")
        if not caller.may_be_served(plain_http=web.allow_plain_http):
            raise Forbidden(description="This page is shown over TLS only; see web.trusted_proxy.")
        if endpoint in BY_TOKEN:
            return login.bearer_refused(visit) or VIEWS[endpoint](visit, **values)
        if endpoint == LOGIN and request.method == "POST":
            return login.log_in(visit)
        visitor = login.visitor_of(request, caller, self._parts)
        visit = Visit(parts=self._parts, request=request, caller=caller, visitor=visitor)
        if visitor is None:
            return login.login_page(visit)
        if endpoint == LOGIN:
            return pages.home()
        if request.method == "POST":
            visit.require_own_form(visitor.form_token)
        if endpoint in ACTS and not visitor.may_act:
            raise Forbidden(description="You may look and not act here.")
        return VIEWS[endpoint](visit, **values)

    def _told(self, error: HTTPException) -> Response:
        code = error.code or NotFound.code
        response = self._parts.pages.error(code, error.description or "")
        for name, value in error.get_headers():
            if name not in {"Content-Type", "Content-Length"}:
                response.headers[name] = value
        return response
