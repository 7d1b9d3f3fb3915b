"""Ask our own status page from outside, as a probe does; for `dicom-node doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import requests

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from dicom_node.web.settings import User, Web

TIMEOUT_S: Final = 5
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared only


def ask(web: Web) -> tuple[str, bool]:
    """Return what was found of the page, and whether that is good."""
    if not web.enabled:
        return "switched off", True
    problems = [problem for problem in map(_token_problem, web.users) if problem]
    host = EVERYWHERE.get(web.host, web.host)
    url = f"http://[{host}]:{web.port}" if ":" in host else f"http://{host}:{web.port}"
    try:
        answer = requests.get(f"{url}/health/live", timeout=TIMEOUT_S)
    except requests.RequestException as error:
        problems.insert(0, f"no answer: {type(error).__name__}")
    else:
        if answer.status_code != requests.codes.ok:
            problems.insert(0, f"HTTP {answer.status_code}")
    who = f"{len(web.users)} users" if web.users else "no users"
    proxy = f", logins of a proxy in {web.trusted_proxy.user_header}" if web.trusted_proxy.user_header else ""
    return f"{url}: {'; '.join(problems) or 'answers'}; {who}{proxy}", not problems


def _token_problem(user: User) -> str:
    try:
        user.token()
    except NodeError as error:
        return str(error)
    return ""
