"""Whatever an archive says of a report, when and how often, and whenever it is withdrawn, its delivery ends well.

Node, listener, archive and network are real; the clock is the test's. Beside them runs a model of a delivery that knows
no table and no code: deploy/conformance.md as a few lines. Nothing is lost, nothing is sent twice without the archive
having said that it does not keep it, and a withdrawn run never ends as open.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node.cli import main as program
from dicom_node.demo_pacs import free_port
from dicom_node.ledger import deliveries
from dicom_node.ledger.tables import DeliveryState
from dicom_node.receive import statuses
from dicom_node.receive.listener import Listener
from dicom_node.timeline.model import RunState
from tests.factories.archives import ScriptedArchive
from tests.factories.flair import flair_studies
from tests.factories.outgoing import Outgoing, encode_report

if TYPE_CHECKING:
    from collections.abc import Iterator

PENDING, SENT, COMMITTED = DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.COMMITTED
RETRYING, DEAD, VOID = DeliveryState.RETRYING, DeliveryState.DEAD, DeliveryState.VOID
MOST_REQUESTS = 3  # as every scripted archive is configured
FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # durability is not the question
Kept = Literal["everything", "nothing", "all but one"]


@dataclass(frozen=True)
class Later:
    """Time passes, and what is due is attempted once."""

    hours: int


@dataclass(frozen=True)
class Report:
    """The archive reports on one of the requests that it has, be it old or answered; without any it says nothing."""

    request: int
    kept: Kept


@dataclass(frozen=True)
class Withdraw:
    """An admin withdraws the run; a second time that is refused."""


Step = Later | Report | Withdraw
STEPS = st.one_of(
    st.builds(Later, hours=st.sampled_from((1, 25))),
    st.builds(Report, request=st.integers(0, 3), kept=st.sampled_from(("everything", "nothing", "all but one"))),
    st.builds(Report, request=st.just(-1), kept=st.sampled_from(("everything", "nothing", "all but one"))),
    st.just(Withdraw()),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Draw what happens; most begin with a report that was sent and asked about, for there orders begin to matter."""
    begun: list[Step] = [Later(1)] * draw(st.sampled_from((0, 1, 2, 2, 2)))
    return [*begun, *draw(st.lists(STEPS, max_size=9))]


@dataclass
class Model:
    """What is to become of the one delivery."""

    state: DeliveryState = PENDING
    withdrawn: bool = False
    sends: Counter[bool] = field(default_factory=Counter)  # of the report (False), and of its note (True)
    subjects: list[bool] = field(default_factory=list)  # what each request of the archive is about
    answered: set[int] = field(default_factory=set)

    def later(self) -> None:
        """What is open is sent."""
        if self.state in {PENDING, RETRYING}:
            self.state = SENT
            self.sends[self.withdrawn] += 1

    def report(self, request: int, kept: Kept) -> None:
        """The first answer to a request counts while what it is about is sent and not committed."""
        first = request not in self.answered
        self.answered.add(request)
        if not first or self.state is not SENT or self.subjects[request] is not self.withdrawn:
            return
        if kept == "everything":
            self.state = COMMITTED
        else:
            asked_often = self.subjects.count(self.withdrawn) >= MOST_REQUESTS
            self.state = DEAD if asked_often else RETRYING

    def withdraw(self) -> None:
        """What was sent is followed by a note; what was not is not sent any more."""
        if not self.withdrawn:
            self.state = PENDING if self.sends[False] else VOID
            self.withdrawn = True


@dataclass
class World:
    """A node, an archive, and the model of what is between them."""

    node: Outgoing
    archive: ScriptedArchive
    port: int
    model: Model = field(default_factory=Model)

    def happen(self, step: Step) -> None:
        """Let one thing happen here and in the model, and compare."""
        if isinstance(step, Later):
            self.model.later()
            self.node.later(hours=step.hours)
            self.model.subjects += [self.model.withdrawn] * (len(self.archive.requests) - len(self.model.subjects))
        elif isinstance(step, Report):
            self._report(step)
        else:
            self._withdraw()
        assert self.node.delivery().state is self.model.state, step

    def _report(self, step: Report) -> None:
        count = len(self.archive.requests)
        if count == 0:
            return
        request = step.request % count
        asked = self.archive.requested(request)
        failed = {"everything": [], "nothing": asked, "all but one": asked[:1]}[step.kept]
        self.model.report(request, step.kept)
        assert self.archive.report(self.port, index=request, failed=failed) == statuses.SUCCESS

    def _withdraw(self) -> None:
        done = CliRunner().invoke(
            program, ["withdraw", self.node.run.run_key, "--config", str(self.node.folder / "node.yaml")]
        )
        assert done.exit_code == (1 if self.model.withdrawn else 0), done.output
        self.model.withdraw()
        self.node.bench.now = max(self.node.bench.now, datetime.now(UTC) + timedelta(minutes=3))  # the verb's clock

    def received(self, *, notes: bool) -> list[str]:
        """Return what the archive took, each as often as it did."""
        is_note = [ds.SOPClassUID == KeyObjectSelectionDocumentStorage for ds in self.archive.received]
        return [uid for uid, each in zip(self.archive.uids, is_note, strict=True) if each is notes]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a node whose report waits for an archive."""
    folder = tmp_path_factory.mktemp("encoded") / "node"
    encode_report(folder, flair_studies(tmp_path_factory.mktemp("studies")))
    return folder


@contextmanager
def a_world(encoded: Path) -> Iterator[World]:
    """Serve a fresh copy of the node, and an archive that reports when it is told to."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=FAST))) / "node"
        archive = ScriptedArchive(commitment=True).start()
        stack.callback(archive.stop)
        node = Outgoing(encoded, folder, [archive.configuration], StringIO())
        stack.callback(node.bench.database.close)
        config = {
            "node": {"ae_title": "NODE", "data_dir": str(folder)},
            "receive": {"allow_unknown_peers": True},
            "tasks": ["glioma-recurrence"],
        }
        (folder / "node.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        port = free_port()
        receive = node.settings.receive.model_copy(update={"min_free_disk_gb": 0.0})
        served = node.settings.node.model_copy(update={"port": port})
        served_settings = node.settings.model_copy(update={"node": served, "receive": receive})
        listener = Listener(served_settings, node.bench.database, node.bench.instances, node.log, clock=node.clock)
        listener.start()
        stack.callback(listener.stop)
        yield World(node, archive, port)


SENT_AND_ASKED = [Later(1), Later(1)]


@given(history=histories())
@example(history=[*SENT_AND_ASKED, Report(0, "nothing"), Later(1), Report(0, "everything")])
@example(history=[*SENT_AND_ASKED, Withdraw(), Later(1), Report(0, "everything"), Withdraw()])
@settings(max_examples=6, deadline=None)
def test_every_order_of_reports_and_withdrawal_ends_well(history: list[Step], encoded: Path) -> None:
    """The node does at every step what the model says, and comes to rest when the archive says nothing more."""
    with a_world(encoded) as world:
        for step in history:
            world.happen(step)
        for _ in range(MOST_REQUESTS + 3):
            world.happen(Later(25))
        node, model = world.node, world.model
        end = node.delivery()
        assert not deliveries.is_open(end)
        assert node.run.state is (RunState.WITHDRAWN if model.withdrawn else RunState.REPORTED)
        assert end.error or end.state in {COMMITTED, VOID}  # what is not as wished says why

        objects, notes = Counter(world.received(notes=False)), Counter(world.received(notes=True))
        assert set(objects.values()) == {model.sends[False]} - {0}
        assert set(notes.values()) == {model.sends[True]} - {0}
        assert len(notes) == (1 if model.withdrawn and objects else 0)
        if notes:
            assert named(world.archive) == set(objects)
        assert Counter(model.subjects)[model.withdrawn] <= MOST_REQUESTS

        before = len(world.archive.received), len(world.archive.requests)
        node.later(days=365)
        assert (len(world.archive.received), len(world.archive.requests)) == before


def named(archive: ScriptedArchive) -> set[str]:
    """Return what the rejection note in an archive takes back."""
    note = next(ds for ds in archive.received if ds.SOPClassUID == KeyObjectSelectionDocumentStorage)
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
