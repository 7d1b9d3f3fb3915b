"""A reverse proxy before the status page: what it says is believed from its own address, and from nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from sqlalchemy import select

from dicom_node.ledger.tables import audit
from dicom_node.web.sessions import MOST_FAILURES
from tests.factories.status_page import (
    ADMIN_TOKEN,
    DEAD_RUN,
    METRICS_TOKEN,
    StatusPage,
    form_token,
    served,
    set_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.1, 203.0.113.5"}


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StatusPage]]:
    """Serve a page that believes a proxy at these addresses."""
    set_tokens(monkeypatch)
    open_pages = []

    def make(**proxy: Any) -> StatusPage:
        page = served(StatusPage(tmp_path / f"data-{len(open_pages)}", web={"trusted_proxy": proxy}))
        open_pages.append(page)
        return page.__enter__()

    yield make
    for each in open_pages:
        each.__exit__(None, None, None)


def test_the_proxy_says_who_is_logged_in(behind: Callable[..., StatusPage]) -> None:
    """By its header, in whose name orders are audited; who is no admin may look."""
    page = behind(hosts=["127.0.0.1"], user_header="X-Remote-User", admins=["keeper"])
    keeper, guest = ({**HTTPS, "X-Remote-User": name} for name in ("keeper", "guest"))
    shown = page.get("/deliveries", headers=keeper)
    assert shown.status_code == 200
    assert shown.headers["Strict-Transport-Security"] == "max-age=31536000"
    fields = {"what": f"{DEAD_RUN}/main", "form_token": form_token(shown.text)}
    foreign = {**fields, "form_token": form_token(page.get("/", headers=guest).text)}
    for sent, headers, status in ((foreign, keeper, 403), (foreign, guest, 403), (fields, keeper, 303)):
        done = requests.post(f"{page.url}/retry", data=sent, headers=headers, allow_redirects=False, timeout=30)
        assert done.status_code == status
    with page.database.read() as ledger:
        assert ledger.scalar(select(audit.c.actor).where(audit.c.action == "retry")) == "keeper"


@pytest.mark.parametrize("name", ["", "keeper, guest", "x" * 65])
def test_a_header_that_names_nobody_logs_nobody_in(behind: Callable[..., StatusPage], name: str) -> None:
    """Empty, given twice, or longer than a name."""
    page = behind(hosts=["127.0.0.1"], user_header="X-Remote-User")
    assert page.get("/", headers={**HTTPS, "X-Remote-User": name}).status_code == 401


def test_from_any_other_address_a_proxys_headers_are_nothing(behind: Callable[..., StatusPage]) -> None:
    """No login, no other caller's address, no TLS."""
    page = behind(hosts=["192.0.2.1"], user_header="X-Remote-User")
    answer = page.get("/", headers={**HTTPS, "X-Remote-User": "keeper"})
    assert answer.status_code == 401
    assert "Strict-Transport-Security" not in answer.headers
    for number in range(MOST_FAILURES):
        forged = {"X-Forwarded-For": f"203.0.113.{number}", "Authorization": "Bearer wrong-token-of-somebody"}
        assert page.get("/metrics", headers=forged).status_code == 401
    last = {"X-Forwarded-For": "203.0.113.99", "Authorization": f"Bearer {METRICS_TOKEN}"}
    assert page.get("/metrics", headers=last).status_code == 429


def test_nothing_goes_to_another_machine_without_tls(behind: Callable[..., StatusPage]) -> None:
    """Pages, forms and figures are refused; the answer to a probe names nobody and is given."""
    page = behind(hosts=["127.0.0.1"])
    plain = {"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "http"}
    assert page.get("/", headers=plain).status_code == 403
    assert page.get("/metrics", headers={**plain, "Authorization": f"Bearer {METRICS_TOKEN}"}).status_code == 403
    assert page.get("/health", headers=plain).status_code == 200


def test_behind_tls_the_cookie_is_secure_and_failures_count_by_the_callers_address(
    behind: Callable[..., StatusPage],
) -> None:
    """One caller who guesses tokens locks nobody else out."""
    page = behind(hosts=["127.0.0.1"])
    for _ in range(MOST_FAILURES):
        page.get("/metrics", headers={**HTTPS, "Authorization": "Bearer wrong-token-of-somebody"})
    assert page.get("/metrics", headers={**HTTPS, "Authorization": f"Bearer {METRICS_TOKEN}"}).status_code == 429
    other = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.77"}
    shown = page.get("/", headers=other)
    done = requests.post(
        f"{page.url}/login",
        data={"token": ADMIN_TOKEN, "form_token": form_token(shown.text), "next": "/"},
        headers={**other, "Cookie": shown.headers["Set-Cookie"].split(";")[0]},
        allow_redirects=False,
        timeout=30,
    )
    assert done.status_code == 303
    assert "Secure" in done.headers["Set-Cookie"]
