"""The status page over real HTTP and a real ledger: what is shown, to whom, and that nothing else gets out."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from dicom_node.ledger import cases, deliveries, orders, runs
from dicom_node.ledger.orders import OrderKind
from dicom_node.ledger.tables import DeliveryState, audit
from dicom_node.timeline.model import RunState
from dicom_node.web.headers import SECURITY_HEADERS
from dicom_node.web.sessions import MOST_FAILURES
from tests.factories.status_page import (
    ADMIN_TOKEN,
    DEAD_RUN,
    FAILED_RUN,
    HELD,
    IDENTITY,
    METRICS_TOKEN,
    NASTY,
    SICK,
    TASK,
    VIEWER_TOKEN,
    WAITING,
    StatusPage,
    form_token,
    served,
    set_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StatusPage]:
    """A served page over a ledger with three patients; tests that change something say so."""
    with pytest.MonkeyPatch.context() as environment:
        set_tokens(environment)
        with served(StatusPage(tmp_path_factory.mktemp("page") / "data")) as found:
            yield found


@pytest.fixture
def own_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusPage]:
    """A page of which a test may spoil logins and orders."""
    set_tokens(monkeypatch)
    with served(StatusPage(tmp_path / "data")) as found:
        yield found


@pytest.fixture(scope="module")
def admin(page: StatusPage) -> requests.Session:
    """Somebody who is logged in and may act."""
    return page.log_in()


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def raw(page: StatusPage, request: bytes) -> bytes:
    """Send bytes that no library would send; return everything that comes back."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection:
        connection.sendall(request)
        parts = []
        with suppress(ConnectionResetError):  # what was sent was not read to its end
            while part := connection.recv(65536):
                parts.append(part)
    return b"".join(parts)


def test_the_first_page_says_what_is_wrong_and_who_waits(page: StatusPage, admin: requests.Session) -> None:
    """A report given up, a held and a failed case, a refused caller, the latest reception, processes, disk."""
    text = page.get("/", admin).text
    assert "Something is wrong: archive main" in text
    for said in ("SENTINEL-2", "took several workers down", "refused: 0xA700", "STRANGER", "192.0.2.9", "SCANNER"):
        assert said in text
    for said in ("node process", "1 alive, 1 wanted", "GB free", "cases failed: 1", "host:worker:0"):
        assert said in text


def test_every_case_is_listed_with_state_and_reason(page: StatusPage, admin: requests.Session) -> None:
    """And by state, as `status --json` holds them."""
    text = page.get("/cases", admin).text
    assert [each for each in ("up to date with 4 follow-ups", "SENTINEL-2", "SENTINEL-3") if each not in text] == []
    held = page.get("/cases?state=held", admin).text
    assert "SENTINEL-2" in held
    assert "SENTINEL-3" not in held
    assert "No such case" in page.get("/cases?state=waiting", admin).text
    assert "No such case" in page.get("/cases?start=100", admin).text


def test_pages_load_themselves_anew_until_told_not_to(page: StatusPage, admin: requests.Session) -> None:
    """And show the same list either way."""
    lively = page.get("/cases?state=held", admin).text
    assert '<meta http-equiv="refresh" content="30">' in lively
    assert 'href="?state=held&amp;refresh=off"' in lively
    still = page.get("/cases?state=held&refresh=off", admin).text
    assert "http-equiv" not in still
    assert 'href="/cases?state=held"' in still


def test_a_patients_page_shows_the_time_line_the_reports_and_the_deliveries(
    page: StatusPage, admin: requests.Session
) -> None:
    """Every time point with its series, drawn to scale too."""
    text = page.get(f"/patient/{page.pseudonym(SICK)}", admin).text
    for said in ("2025-02-03", "2025-11-05", "FLAIR", "low-grade glioma", DEAD_RUN[:12], "out of resources", "<svg"):
        assert said in text
    assert text.count('class="used"') == 4


def test_a_patient_is_found_by_id_without_the_id_in_any_address(page: StatusPage, admin: requests.Session) -> None:
    """The form sends it in its body; two patients of one ID, or none, are told apart by the issuer."""
    token = form_token(page.get("/", admin).text)
    found = page.post("/find", admin, patient=SICK.patient_id, form_token=token)
    assert found.headers["Location"] == f"/patient/{page.pseudonym(SICK)}"
    named = page.post("/find", admin, patient="SENTINEL-3^^^CLINIC", form_token=token)
    assert named.headers["Location"] == f"/patient/{page.pseudonym(WAITING)}"
    missing = page.post("/find", admin, patient="SENTINEL-3^^^HOSPITAL", form_token=token)
    assert missing.headers["Location"] == "/cases?found=none"
    assert "No patient here has this ID" in page.get("/cases?found=none", admin).text


def test_what_came_from_outside_is_text_and_never_markup(page: StatusPage, admin: requests.Session) -> None:
    """Names, IDs, descriptions and reasons with tags and quotes in them."""
    pages = ["/", "/cases", "/deliveries", f"/patient/{page.pseudonym(SICK)}", "/cases?task=%3Cscript%3Ealert(1)"]
    for path in pages:
        text = page.get(path, admin).text
        assert "<script" not in text.lower()
        assert '<b>"' not in text
        assert " style=" not in text
        assert not re.search(r"\son\w+=", text)
    assert NASTY.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in page.get("/cases", admin).text


def test_without_login_there_is_health_and_a_form_and_nothing_else(page: StatusPage) -> None:
    """Every other address answers 401 with the form, and says nothing of anybody."""
    pseudonym = page.pseudonym(SICK)
    for path in ("/", "/cases", "/deliveries", f"/patient/{pseudonym}", f"/patient/{pseudonym}/hold?task={TASK}"):
        answer = page.get(path)
        assert answer.status_code == 401
        assert "SENTINEL" not in answer.text
    for path in ("/retry", "/find", "/logout", f"/patient/{pseudonym}/hold"):
        assert page.post(path, what=DEAD_RUN).status_code == 401
    assert page.get("/metrics").status_code == 401
    assert page.get("/health").json()["ready"] is True
    assert page.get("/health/live").json() == {"live": True}
    assert set(page.get("/health").json()) == {"checks", "live", "ready", "well"}


def test_a_wrong_token_is_refused_and_soon_nobody_from_there_is_heard(own_page: StatusPage) -> None:
    """After some failures even the right token waits; the token is in no log."""
    session = requests.Session()
    token = form_token(own_page.get("/", session).text)
    for _ in range(MOST_FAILURES):
        wrong = own_page.post("/login", session, token="wrong-token-of-somebody", form_token=token, next="/")
        assert wrong.status_code == 401
    last = own_page.post("/login", session, token=ADMIN_TOKEN, form_token=token, next="/")
    assert last.status_code == 429
    assert 0 < int(last.headers["Retry-After"]) <= 300
    assert own_page.get("/metrics", headers=bearer(METRICS_TOKEN)).status_code == 429
    told = own_page.logged.getvalue()
    assert told.count("login.refused") == MOST_FAILURES
    assert "token-of" not in told


def test_a_login_is_audited_and_its_cookie_is_out_of_reach_for_scripts(own_page: StatusPage) -> None:
    """HttpOnly and SameSite=Strict; after logging out it opens nothing."""
    session = requests.Session()
    token = form_token(own_page.get("/cases", session).text)
    done = own_page.post("/login", session, token=ADMIN_TOKEN, form_token=token, next="/cases")
    assert done.headers["Location"] == "/cases"
    cookie = next(each for each in done.raw.headers.getlist("Set-Cookie") if each.startswith("dicom_node_session"))
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    with own_page.database.read() as ledger:
        (row,) = ledger.execute(select(audit).where(audit.c.action == "login")).all()
    assert row.actor == "keeper"
    kept = dict(session.cookies)
    assert own_page.get("/", session).status_code == 200
    leave = own_page.post("/logout", session, form_token=form_token(own_page.get("/", session).text))
    assert leave.status_code == 303
    assert own_page.get("/", cookies=kept).status_code == 401


@pytest.mark.parametrize("elsewhere", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:1"])
def test_a_login_never_leads_to_another_site(page: StatusPage, elsewhere: str) -> None:
    """Whatever the hidden field says."""
    session = requests.Session()
    token = form_token(page.get("/", session).text)
    done = page.post("/login", session, token=VIEWER_TOKEN, form_token=token, next=elsewhere)
    assert done.status_code == 400 or done.headers["Location"] == "/"


def test_a_form_from_elsewhere_is_refused(own_page: StatusPage) -> None:
    """Without its token, with another visitor's, with none in the login, or sent by another site."""
    admin, other = own_page.log_in(), own_page.log_in()
    foreign = form_token(own_page.get("/", other).text)
    what = f"{DEAD_RUN}/main"
    assert own_page.post("/retry", admin, what=what).status_code == 403
    assert own_page.post("/retry", admin, what=what, form_token=foreign).status_code == 403
    assert own_page.post("/login", token=ADMIN_TOKEN, form_token=foreign).status_code == 403
    own = form_token(own_page.get("/", admin).text)
    crossed = admin.post(
        f"{own_page.url}/retry",
        data={"what": what, "form_token": own},
        headers={"Sec-Fetch-Site": "cross-site"},
        timeout=30,
    )
    assert crossed.status_code == 403
    sent_otherwise = admin.post(f"{own_page.url}/retry", json={"what": what, "form_token": own}, timeout=30)
    assert sent_otherwise.status_code == 415
    with own_page.database.read() as ledger:
        found = deliveries.get(ledger, DEAD_RUN, "main")
    assert found is not None
    assert found.state is DeliveryState.DEAD


def test_a_dead_delivery_and_a_failed_run_are_tried_again_by_name(own_page: StatusPage) -> None:
    """As `dicom-node retry` does it; a second press of the button is told that nothing is left to do."""
    admin = own_page.log_in()
    token = form_token(own_page.get("/deliveries?state=dead", admin).text)
    for what in (f"{DEAD_RUN}/main", FAILED_RUN):
        assert own_page.post("/retry", admin, what=what, form_token=token).status_code == 303
        assert own_page.post("/retry", admin, what=what, form_token=token).status_code == 409
    assert own_page.post("/retry", admin, what=DEAD_RUN[:12], form_token=token).status_code == 400
    with own_page.database.read() as ledger:
        delivery, run = deliveries.get(ledger, DEAD_RUN, "main"), runs.get(ledger, FAILED_RUN)
        rows = ledger.execute(select(audit.c.actor, audit.c.subject).where(audit.c.action == "retry")).all()
    assert delivery is not None
    assert delivery.state is DeliveryState.PENDING
    assert run is not None
    assert run.state is RunState.QUEUED
    assert [tuple(row) for row in rows] == [("keeper", f"{DEAD_RUN}/main"), ("keeper", FAILED_RUN)]


def test_a_case_is_held_and_released_after_being_asked_and_by_name(own_page: StatusPage) -> None:
    """The reason stands with the order and in the audit, and on the patient's page."""
    admin, path = own_page.log_in(), f"/patient/{own_page.pseudonym(SICK)}"
    asked = own_page.get(f"{path}/hold?task={TASK}", admin).text
    assert "Hold this case?" in asked
    done = own_page.post(f"{path}/hold", admin, task=TASK, reason=NASTY, form_token=form_token(asked))
    assert done.headers["Location"] == f"{path}?done=hold"
    with own_page.database.read() as ledger:
        order = orders.of_case(ledger, 1, TASK)[OrderKind.HOLD]
    assert (order.actor, order.reason) == ("keeper", NASTY)
    shown = own_page.get(f"{path}?done=hold", admin).text
    assert "The case is held until it is released." in shown
    assert "<script" not in shown
    asked = own_page.get(f"{path}/release?task={TASK}", admin).text
    assert "keeper" in asked
    assert own_page.post(f"{path}/release", admin, task=TASK, form_token=form_token(asked)).status_code == 303
    assert own_page.post(f"{path}/release", admin, task=TASK, form_token=form_token(asked)).status_code == 409
    with own_page.database.read() as ledger:
        assert orders.of_case(ledger, 1, TASK) == {}
        rows = ledger.execute(select(audit.c.action, audit.c.actor).where(audit.c.subject.startswith("SENTINEL"))).all()
    assert [tuple(row) for row in rows] == [("hold", "keeper"), ("release", "keeper")]


def test_a_viewer_sees_everything_and_changes_nothing(own_page: StatusPage) -> None:
    """No button is shown, and none can be made up."""
    viewer = own_page.log_in(VIEWER_TOKEN)
    path = f"/patient/{own_page.pseudonym(SICK)}"
    shown = own_page.get(path, viewer).text
    assert "2025-02-03" in shown
    assert "Retry" not in shown
    assert "Hold" not in shown
    token = form_token(shown)
    assert own_page.get(f"{path}/hold?task={TASK}", viewer).status_code == 403
    assert own_page.post(f"{path}/hold", viewer, task=TASK, form_token=token).status_code == 403
    assert own_page.post("/retry", viewer, what=f"{DEAD_RUN}/main", form_token=token).status_code == 403


def test_the_figures_are_read_with_a_token_and_name_nobody(page: StatusPage) -> None:
    """Prometheus' own parser reads them; a token for figures opens no page."""
    answer = page.get("/metrics", headers=bearer(METRICS_TOKEN))
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert values["dicom_node_cases", TASK, "held"] == 1
    assert values["dicom_node_deliveries", "dead", "main"] == 1
    assert values["dicom_node_refused_associations_total",] == 1
    assert values["dicom_node_good", "archive main"] == 0
    assert values["dicom_node_files", "indexed"] == 140
    assert [word for word in (*IDENTITY, "STRANGER", "192.0.2.9") if word in answer.text] == []
    assert page.get("/cases", headers=bearer(METRICS_TOKEN)).status_code == 401


def test_every_answer_carries_the_security_headers_errors_too(page: StatusPage, admin: requests.Session) -> None:
    """Pages, style, probes, figures, every error of ours, and those of the HTTP server itself."""
    answers = [
        page.get(path, admin)
        for path in ("/", "/cases", "/style.css", "/icon.svg", "/health", "/metrics", "/none", "/patient/0123456789ab")
    ]
    answers += [page.get("/"), page.get("/retry", admin)]
    answers += [page.post("/cases", admin), page.post("/retry", admin, what="1")]
    assert {each.status_code for each in answers} >= {200, 401, 403, 404, 405}
    for answer in answers:
        for name, value in SECURITY_HEADERS:
            assert answer.headers[name] == value
        assert "Server" not in answer.headers
    for request in (
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 17_000 + b"\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
    ):
        answer = raw(page, request)
        assert re.match(rb"HTTP/1\.[01] 4\d\d ", answer)
        assert b"Content-Security-Policy: default-src 'none'" in answer
        assert b"yyyy" not in answer


def test_a_host_name_that_is_not_ours_is_refused(page: StatusPage, admin: requests.Session) -> None:
    """So that no foreign name can be bound to our address."""
    assert page.get("/", admin, headers={"Host": "evil.example"}).status_code == 421
    assert page.get("/", headers={"Host": f"localhost:{page.port}"}).status_code == 401  # may log in
    assert page.get("/health", headers={"Host": "10.0.0.7"}).status_code == 200


def test_a_body_over_the_limit_is_refused(page: StatusPage, admin: requests.Session) -> None:
    """Before anything of it is looked at."""
    assert page.post("/find", admin, patient="x" * 20_000).status_code == 413


def test_a_page_that_fails_says_nothing_of_anybody_and_the_log_says_where(own_page: StatusPage) -> None:
    """A ledger row that cannot be read breaks one patient's page and no other."""
    admin = own_page.log_in()
    with own_page.database.write() as ledger:
        ledger.exec_driver_sql("UPDATE instance SET facts = '{\"SENTINEL\": 1}' WHERE patient = 1")
    broken = own_page.get(f"/patient/{own_page.pseudonym(SICK)}", admin)
    assert broken.status_code == 500
    assert [word for word in IDENTITY if word in broken.text] == []
    assert "request.failed" in own_page.logged.getvalue()
    assert own_page.get(f"/patient/{own_page.pseudonym(HELD)}", admin).status_code == 200


def test_a_ledger_that_is_away_is_a_bad_check_and_an_error_page(own_page: StatusPage) -> None:
    """Liveness stays, readiness goes, and both come back with the ledger."""
    admin = own_page.log_in()
    with own_page.database.write() as ledger:
        ledger.exec_driver_sql("ALTER TABLE task_case RENAME TO elsewhere")
    deadline = time.monotonic() + 60
    while own_page.get("/health/ready").status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert own_page.get("/health/live").status_code == 200
    assert own_page.get("/cases", admin).status_code == 503
    with own_page.database.write() as ledger:
        ledger.exec_driver_sql("ALTER TABLE elsewhere RENAME TO task_case")
    while own_page.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_readers_of_pages_keep_nobody_from_writing(page: StatusPage, admin: requests.Session) -> None:
    """While pages are read without a pause, the ledger takes every write; none waits for a page."""
    stop, read = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            read.append(page.get(f"/patient/{page.pseudonym(SICK)}", admin).status_code)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for each in readers:
        each.start()
    try:
        longest = 0.0
        while len(read) < 12:
            began = time.monotonic()
            with page.database.write() as ledger:
                cases.set_case(ledger, found_case(page))
            longest = max(longest, time.monotonic() - began)
    finally:
        stop.set()
        for each in readers:
            each.join()
    assert set(read) == {200}
    assert longest < 10  # a writer that had to wait for a reader's transaction would wait for busy_timeout


def found_case(page: StatusPage) -> cases.Case:
    """Return the case of the patient who is looked at."""
    with page.database.read() as ledger:
        found = cases.get(ledger, 1, TASK)
    assert found is not None
    return found


def test_slow_callers_hold_no_thread(page: StatusPage, admin: requests.Session) -> None:
    """A dozen requests that never end, and the page answers as before."""
    held = [socket.create_connection(("127.0.0.1", page.port), timeout=30) for _ in range(12)]
    try:
        for connection in held:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert page.get("/cases", admin).status_code == 200
        assert page.get("/health/live").status_code == 200
    finally:
        for connection in held:
            connection.close()


def test_no_identity_is_in_addresses_logs_or_what_needs_no_login(page: StatusPage, admin: requests.Session) -> None:
    """Runs last in this file: looks through every address that was asked for or linked, and through the log."""
    for path in ("/", "/cases", "/deliveries", f"/patient/{page.pseudonym(SICK)}"):
        page.get(path, admin)
    addresses = [each.url for each in page.seen] + [each.headers.get("Location", "") for each in page.seen]
    for answer in page.seen:
        addresses += re.findall(r'(?:href|action)="([^"]*)"', answer.text)
        title = re.search(r"<title>(.*?)</title>", answer.text)
        assert title is None or [word for word in IDENTITY if word in title[1]] == []
    assert len(addresses) > 100
    assert [word for word in IDENTITY if any(word in each for each in addresses)] == []
    logged = page.logged.getvalue()
    assert "web.started" in logged
    assert "login.accepted" in logged
    assert [word for word in (*IDENTITY, "token-of") if word in logged] == []
