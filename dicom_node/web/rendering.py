"""Templates to pages: everything is escaped, nothing is filled in that a page did not get."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import jinja2
from werkzeug import Response

if TYPE_CHECKING:
    from dicom_node.web.visit import Visit

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86400


class Pages:
    """The templates that ship with the program."""

    def __init__(self, *, ae_title: str, shadow: bool) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("dicom_node.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(clock=clock, ago=ago, duration=duration)
        self._templates.globals.update(ae_title=ae_title, shadow=shadow)

    def render(self, template: str, visit: Visit, *, status: int = 200, **values: object) -> Response:
        """Return a page."""
        request = visit.request
        asked = {name: value for name, value in request.args.items() if name != "refresh"}
        text = self._templates.get_template(template).render(
            visitor=visit.visitor,
            path=request.path,
            still=f"?{urlencode({**asked, 'refresh': 'off'})}",
            lively=f"{request.path}?{urlencode(asked)}",
            now=visit.parts.clock(),
            **values,
        )
        return Response(text, status=status, content_type="text/html; charset=utf-8")

    def error(self, status: int, text: str) -> Response:
        """Return a page that says what went wrong, and nothing of anybody."""
        phrase = HTTPStatus(status).phrase
        page = self._templates.get_template("error.html").render(
            visitor=None, path="", now=None, status=status, phrase=phrase, text=text
        )
        return Response(page, status=status, content_type="text/html; charset=utf-8")


def clock(moment: datetime | None) -> str:
    """Write a moment on the site's clock."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def ago(moment: datetime | None, now: datetime) -> str:
    """Say how long ago a moment was, or that it is to come."""
    if moment is None:
        return "never"
    passed = now - moment
    if passed < timedelta(0):
        return f"in {duration(-passed)}" if passed < timedelta(seconds=-1) else "just now"
    return f"{duration(passed)} ago"


def duration(length: timedelta) -> str:
    """Write a length of time in its largest unit."""
    seconds = int(length.total_seconds())
    for unit_s, one in ((DAY_S, "day"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit_s:
            count = seconds // unit_s
            return f"{count} {one}s" if one == "day" and count != 1 else f"{count} {one}"
    return f"{seconds} s"
