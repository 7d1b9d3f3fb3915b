"""Logging in and out: by token and cookie, or by a proxy that names the user."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Final

from werkzeug.exceptions import BadRequest
from werkzeug.utils import redirect

from dicom_node import events
from dicom_node.ledger import cohort, presence
from dicom_node.web.sessions import Visitor
from dicom_node.web.settings import Role

if TYPE_CHECKING:
    from werkzeug import Request, Response

    from dicom_node.web.callers import Caller
    from dicom_node.web.visit import Parts, Visit

SESSION: Final = "dicom_node_session"
BEFORE_LOGIN: Final = "dicom_node_before_login"
BEARER: Final = "Bearer "
LONGEST_TOKEN: Final = 512
STATUS_PAGE: Final = "(status page)"  # where callers are counted by their AE titles


def visitor_of(request: Request, caller: Caller, parts: Parts) -> Visitor | None:
    """Return who is logged in, None for nobody."""
    if caller.user is not None:
        role = parts.settings.web.trusted_proxy.role_of(caller.user)
        return Visitor(name=caller.user, role=role, form_token=parts.sessions.form_token(f"proxy {caller.user}"))
    session = request.cookies.get(SESSION)
    return parts.sessions.get(session) if session else None


def login_page(visit: Visit, status: int = 401, problem: str = "") -> Response:
    """Return the form for the token; where it was the answer to a page, that page comes after it."""
    nonce = visit.request.cookies.get(BEFORE_LOGIN) or secrets.token_urlsafe(32)
    wanted = visit.field("next") if visit.request.method == "POST" else visit.request.path
    response = visit.page(
        "login.html",
        status=status,
        problem=problem,
        next=_path(wanted),
        by_token=any(user.role is not Role.METRICS for user in visit.parts.settings.web.users),
        form_token=visit.parts.sessions.form_token(f"login {nonce}"),
    )
    _set_cookie(response, BEFORE_LOGIN, nonce, visit)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def log_in(visit: Visit) -> Response:
    """Check a token and open a session; the ledger's audit knows of it before the visitor does."""
    nonce = visit.request.cookies.get(BEFORE_LOGIN, "")
    visit.require_own_form(visit.parts.sessions.form_token(f"login {nonce}") if nonce else secrets.token_hex())
    throttled = _throttled(visit)
    if throttled is not None:
        return throttled
    user = visit.parts.tokens.owner(visit.field("token", LONGEST_TOKEN))
    if user is None or user.role is Role.METRICS:
        _refuse(visit)
        return login_page(visit, problem="This token is not known.")
    parts = visit.parts
    with parts.database.write() as ledger:
        cohort.write_audit(
            ledger,
            at=parts.clock(),
            actor=user.name,
            action="login",
            subject="status page",
            details={"address": visit.caller.address, "role": str(user.role)},
        )
    parts.throttle.succeeded(visit.caller.key)
    parts.log.info(events.LOGIN_ACCEPTED, address=visit.caller.address, role=str(user.role))
    opened = parts.sessions.open(user.name, user.role)
    response = redirect(_path(visit.field("next")), 303)
    _set_cookie(response, SESSION, opened.session or "", visit)
    response.delete_cookie(BEFORE_LOGIN, path="/", httponly=True, samesite="Strict")
    return response


def log_out(visit: Visit) -> Response:
    """End a session."""
    if visit.who.session is not None:
        visit.parts.sessions.close(visit.who.session)
    response = redirect("/", 303)
    response.delete_cookie(SESSION, path="/", httponly=True, samesite="Strict")
    return response


def bearer_refused(visit: Visit) -> Response | None:
    """Return why a caller with a token in a header may not see the figures, None if it may."""
    throttled = _throttled(visit)
    if throttled is not None:
        return throttled
    said = visit.request.headers.get("Authorization", "")
    if said.startswith(BEARER) and len(said) <= LONGEST_TOKEN:
        if visit.parts.tokens.owner(said.removeprefix(BEARER).strip()) is not None:
            return None
        _refuse(visit)
    response = visit.parts.pages.error(401, "The figures need a token: Authorization: Bearer TOKEN.")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _throttled(visit: Visit) -> Response | None:
    """Return the answer to a caller who failed too often, whatever the token says now."""
    wait_s = visit.parts.throttle.wait_s(visit.caller.key)
    if wait_s <= 0:
        return None
    response = visit.parts.pages.error(429, "Too many refused logins from this address. Try again in some minutes.")
    response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response


def _refuse(visit: Visit) -> None:
    visit.parts.throttle.failed(visit.caller.key)
    visit.parts.log.warning(events.LOGIN_REFUSED, address=visit.caller.address, count=visit.parts.throttle.refused)
    with visit.parts.database.write() as ledger:
        presence.refused(
            ledger,
            calling_ae_title=STATUS_PAGE,
            address=visit.caller.address,
            reason=presence.FAILED_LOGIN,
            now=visit.parts.clock(),
        )


def _path(wanted: str) -> str:
    """Return where to go after the login: a page of ours, never another site's."""
    if not wanted.startswith("/") or wanted.startswith("//") or wanted in {"/login", "/logout"}:
        return "/"
    if not wanted.isascii() or not wanted.isprintable() or "\\" in wanted:
        raise BadRequest
    return wanted


def _set_cookie(response: Response, name: str, value: str, visit: Visit) -> None:
    response.set_cookie(name, value, path="/", httponly=True, samesite="Strict", secure=visit.caller.over_tls)
