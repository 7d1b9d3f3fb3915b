"""The status page in a real browser: it obeys its own policy, works without scripts, and is legible on a phone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.factories.ohif import CHROMIUM, browser_page
from tests.factories.status_page import ADMIN_TOKEN, SICK, StatusPage, served, set_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

pytestmark = pytest.mark.peer

SHOTS = "DICOM_NODE_SCREENSHOTS"
PHONE = {"width": 390, "height": 844}
TIMEOUT_MS = 120_000


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusPage]:
    """A served page over a ledger with three patients."""
    set_tokens(monkeypatch)
    with served(StatusPage(tmp_path / "data")) as found:
        yield found


@pytest.fixture
def browser() -> Iterator[Page]:
    """A page of a headless Chromium."""
    pytest.importorskip("playwright", reason="playwright is not installed (extra dev)")
    if not Path(CHROMIUM).is_file():
        pytest.skip("not installed: /usr/bin/chromium (Debian package chromium)")
    with browser_page() as found:
        found.set_default_timeout(TIMEOUT_MS)
        yield found


def test_an_admin_logs_in_looks_round_and_holds_a_case(site: StatusPage, browser: Page, tmp_path: Path) -> None:
    """No violation of the policy, nothing from elsewhere, nothing of a patient in address, title or history."""
    shots = Path(os.environ.get(SHOTS) or tmp_path)
    said: list[str] = []
    asked: list[str] = []
    browser.on("console", lambda message: said.append(message.text))
    browser.on("pageerror", lambda error: said.append(f"Content Security Policy or script: {error}"))
    browser.on("request", lambda request: asked.append(request.url))
    browser.goto(site.url)
    browser.get_by_label("Token").fill(ADMIN_TOKEN)
    browser.get_by_role("button", name="Log in").click()
    browser.get_by_role("heading", name="Something is wrong").wait_for()
    browser.screenshot(path=shots / "status-overview.png", full_page=True)
    browser.get_by_label("Patient ID").fill(SICK.patient_id)
    browser.get_by_role("button", name="Find").click()
    browser.get_by_role("heading", name="Time line for").wait_for()
    assert browser.url.endswith(f"/patient/{site.pseudonym(SICK)}")
    assert browser.title() == f"Patient {site.pseudonym(SICK)} · NODE"
    ground = "getComputedStyle(document.body).backgroundColor"
    assert browser.evaluate(ground) == "rgb(244, 246, 248)"  # the style sheet was taken
    browser.emulate_media(color_scheme="dark")
    assert browser.evaluate(ground) == "rgb(15, 20, 25)"
    browser.set_viewport_size(PHONE)
    assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    browser.screenshot(path=shots / "status-patient-phone.png", full_page=True)
    browser.get_by_role("link", name="Hold").click()
    browser.get_by_label("Why", exact=False).fill("asked by neurosurgery")
    browser.get_by_role("button", name="Hold").click()
    browser.get_by_text("The case is held until it is released.").wait_for()
    assert browser.get_by_text("asked by neurosurgery").count() == 1
    assert [each for each in said if "Content Security Policy" in each] == []
    assert [each for each in asked if not each.startswith(site.url)] == []
    assert [each for each in asked if "SENTINEL" in each] == []
