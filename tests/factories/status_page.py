"""A status page over a real ledger: a few invented patients in different states, served on the loopback interface."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import requests

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import cases, cohort, deliveries, presence, runs
from dicom_node.ledger.cases import Case
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import CaseState
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging, Settings
from dicom_node.timeline.model import Inputs, InputTimePoint, PatientFacts, Reason, RunState, TimePointKind
from dicom_node.web.open import open_web
from dicom_node.work.tasks import load_tasks
from tests.factories.facts import FLAIR, SELECTION, a_cohort, a_series
from tests.factories.ledger import a_proposal, arrive_all
from tests.factories.results import answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest

    from dicom_node.observe.logs import Log
    from dicom_node.work.tasks import ServedTask

TASK = "glioma-recurrence"
ADMIN_TOKEN = "admin-token-of-a-test-0001"
VIEWER_TOKEN = "viewer-token-of-a-test-001"
METRICS_TOKEN = "metrics-token-of-a-test-01"
USERS = (
    {"name": "keeper", "token_env": "WEB_TEST_ADMIN"},
    {"name": "guest", "role": "viewer", "token_env": "WEB_TEST_VIEWER"},
    {"name": "prometheus", "role": "metrics", "token_env": "WEB_TEST_METRICS"},
)
NASTY = "<script>document.title='owned'</script>"
DESCRIPTION = f"dark-fluid {NASTY}"
SICK = PatientFacts(
    issuer="HOSPITAL", patient_id='SENTINEL-<b>"1"', name=f"SENTINEL^{NASTY}", birth_date="19990317", sex="F"
)
HELD = PatientFacts(issuer="HOSPITAL", patient_id="SENTINEL-2", name="SENTINEL^HELD", birth_date="19880218", sex="M")
WAITING = PatientFacts(issuer="CLINIC", patient_id="SENTINEL-3", name="SENTINEL^WAITING", birth_date="", sex="")
IDENTITY = ("SENTINEL", "owned", "19990317", "19880218", "dark-fluid", "2025-11-05")  # names, IDs, dates, descriptions
DEAD_RUN = "d" * 64
FAILED_RUN = "f" * 64
DAYS = (date(2025, 2, 3), date(2025, 5, 6), date(2025, 8, 4), date(2025, 11, 5))


def set_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the users' tokens into the environment."""
    for name, token in (("ADMIN", ADMIN_TOKEN), ("VIEWER", VIEWER_TOKEN), ("METRICS", METRICS_TOKEN)):
        monkeypatch.setenv(f"WEB_TEST_{name}", token)


@cache
def filled_ledger() -> bytes:
    """Return a ledger of three patients as the bytes of its file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        database = Database(f"sqlite:///{path}")
        database.migrate()
        fill(database, datetime.now(UTC))
        database.close()
        return path.read_bytes()


@cache
def served_tasks() -> Mapping[str, ServedTask]:
    """Return the tasks with their bundles, digested once."""
    return load_tasks([TASK])


def fill(database: Database, now: datetime) -> None:
    """Enter three patients: one reported whose report cannot be sent, one held by hand, one whose run failed."""
    with database.write() as ledger:
        for person, days in ((SICK, DAYS), (HELD, DAYS[:2]), (WAITING, DAYS[2:3])):
            instances = [
                each
                for day in days
                for each in a_series(day, {**FLAIR, "SeriesDescription": DESCRIPTION}, patient=person, slices=20)
            ]
            arrive_all(ledger, instances, now - timedelta(hours=2))
            cohort.replace(ledger, person.issuer, person.patient_id, a_cohort())
        enter_run(ledger, DEAD_RUN, 1, now)
        runs.freeze(ledger, DEAD_RUN, answer(0.88).to_json(), now)
        runs.set_state(ledger, DEAD_RUN, RunState.REPORTED)
        deliveries.create(ledger, DEAD_RUN, ["main", "second"], now)
        for name in ("main", "second"):
            found = deliveries.get(ledger, DEAD_RUN, name)
            assert found is not None
            if name == "main":
                deliveries.dead(ledger, found, error="refused: 0xA700 (out of resources)")
            else:
                deliveries.sent(ledger, found, now - timedelta(minutes=7))
        enter_run(ledger, FAILED_RUN, 3, now)
        runs.set_state(ledger, FAILED_RUN, RunState.FAILED, "took several workers down")
        for row, state, reason, key in (
            (1, CaseState.REPORTED, "up to date with 4 follow-ups", DEAD_RUN),
            (2, CaseState.HELD, f"held by hand since 2026-02-27: {NASTY}", None),
            (3, CaseState.FAILED, "took several workers down", FAILED_RUN),
        ):
            reasons = (Reason(code="told", text=reason),)
            cases.set_case(
                ledger, Case(patient_row=row, task=TASK, state=state, reasons=reasons, decided_at=now, run_key=key)
            )
        for name in ("host:node:0", "host:worker:0"):  # stay alive however long the tests take
            presence.beat(ledger, name, now + timedelta(hours=1))
        presence.refused(
            ledger, calling_ae_title="STRANGER", address="192.0.2.9", reason="calling AE title not known", now=now
        )


def enter_run(ledger: Any, key: str, patient_row: int, now: datetime) -> None:
    """Propose a run on a patient's time points."""
    points = tuple(
        InputTimePoint(acquired_on=day, acquired_time=None, kind=TimePointKind.FOLLOW_UP, studies=(), series=())
        for day in DAYS
    )
    runs.propose(
        ledger,
        replace(a_proposal(key, patient_row=patient_row), task=TASK, inputs=Inputs(time_points=points)),
        now,
    )


@dataclass
class StatusPage:
    """A served page, and a browser's part: cookies are kept, forms are sent as they were shown."""

    folder: Path
    web: Mapping[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    logged: StringIO = field(default_factory=StringIO)
    seen: list[requests.Response] = field(default_factory=list)  # every answer, to be looked through at the end
    settings: Settings = field(init=False)
    database: Database = field(init=False)
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        """Make a ledger with patients."""
        self.settings = Settings.model_validate(
            {
                "node": {"ae_title": "NODE", "data_dir": self.folder},
                "receive": {
                    "peers": [{"ae_title": "SCANNER", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}],
                    "min_free_disk_gb": 0.001,
                },
                "pacs": [
                    {"name": name, "dimse": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
                    for name in ("main", "second")
                ],
                "tasks": [TASK],
                "web": {"enabled": True, "port": self.port, "users": USERS, **self.web},
            }
        )
        self.folder.mkdir()
        (self.folder / "ledger.sqlite").write_bytes(filled_ledger())
        self.database = Database(self.settings.ledger_url)
        self.log = open_log(Logging(format="json"), b"key", self.logged)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def pseudonym(self, person: PatientFacts) -> str:
        """Return the name of a patient's page."""
        return self.log.pseudonym(person.issuer, person.patient_id)

    def get(self, path: str, session: requests.Session | None = None, **options: Any) -> requests.Response:
        """Ask for a page; redirections are not followed."""
        return self._keep((session or requests).get(self.url + path, allow_redirects=False, timeout=30, **options))

    def post(self, path: str, session: requests.Session | None = None, **fields: str) -> requests.Response:
        """Send a form; redirections are not followed."""
        sender = session or requests
        return self._keep(sender.post(self.url + path, data=fields, allow_redirects=False, timeout=30))

    def log_in(self, token: str = ADMIN_TOKEN) -> requests.Session:
        """Log in by the form, as a browser does."""
        session = requests.Session()
        shown = self.get("/", session)
        done = self.post("/login", session, token=token, form_token=form_token(shown.text), next="/")
        assert done.status_code == 303, done.text
        return session

    def _keep(self, answer: requests.Response) -> requests.Response:
        self.seen.append(answer)
        return answer


def form_token(page: str) -> str:
    """Return the token of the last form on a page, which only that form's reader can know."""
    found: list[str] = re.findall(r'name="form_token" value="([0-9a-f]{64})"', page)
    return found[-1]


@contextmanager
def served(page: StatusPage) -> Iterator[StatusPage]:
    """Serve a page until the end."""
    with ExitStack() as stack:
        stack.callback(page.database.close)
        server = open_web(page.settings, served_tasks(), SELECTION, page.log, stack, clock=lambda: datetime.now(UTC))
        assert server.wait_until_serving(30)
        yield page
