"""Storage commitment: asked for after sending, answered at once, late, twice or never; nobody is committed to by us."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import deliveries
from dicom_node.ledger.tables import DeliveryState
from dicom_node.receive import statuses
from dicom_node.receive.listener import Listener
from tests.factories.archives import ScriptedArchive
from tests.factories.outgoing import Outgoing
from tests.factories.peers import NODE_AE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.factories.peers import Orthanc

SENT, COMMITTED, RETRYING, DEAD = (
    DeliveryState.SENT,
    DeliveryState.COMMITTED,
    DeliveryState.RETRYING,
    DeliveryState.DEAD,
)


@pytest.fixture
def listening(encoded: Path, tmp_path: Path, log: StringIO) -> Iterator[Callable[..., tuple[Outgoing, int]]]:
    """Make a node whose report waits for an archive, and whose listener serves; return it and the port."""
    stops: list[Callable[[], None]] = []

    def make(entry: dict[str, Any], *, port: int | None = None, ae_title: str = "NODE") -> tuple[Outgoing, int]:
        node = Outgoing(encoded, tmp_path / "node", [entry], log, ae_title=ae_title)
        port = port or free_port()
        receive = node.settings.receive.model_copy(update={"allow_unknown_peers": False, "min_free_disk_gb": 0.0})
        served = node.settings.node.model_copy(update={"port": port})
        settings = node.settings.model_copy(update={"node": served, "receive": receive})
        listener = Listener(settings, node.bench.database, node.bench.instances, node.log, clock=node.clock)
        listener.start()
        stops.extend((node.bench.database.close, listener.stop))
        return node, port

    yield make
    for stop in reversed(stops):
        stop()


@pytest.fixture
def archive() -> Iterator[ScriptedArchive]:
    """An archive that takes requests for commitment, and reports when it is told to."""
    found = ScriptedArchive(commitment=True).start()
    yield found
    found.stop()


def sent_and_asked(make: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive) -> tuple[Outgoing, int]:
    """Return a node that sent its report and asked for its commitment."""
    node, port = make(archive.configuration)
    node.later()
    assert (node.delivery().state, archive.requests) == (SENT, [])
    node.later()
    assert len(archive.requests) == 1
    return node, port


def test_what_is_asked_for_is_what_was_sent(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """Every object that the archive took and no other, the report in its one class; until the answer it is sent."""
    node, _ = sent_and_asked(listening, archive)
    assert archive.requested() == archive.uids
    assert node.delivery().state is SENT
    assert node.delivery().error is None


def test_the_next_days_report_commits(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive, log: StringIO
) -> None:
    """Over an association that the archive opens, roles reversed, to a node that knows it from its settings."""
    node, port = sent_and_asked(listening, archive)
    node.later(hours=23)
    assert archive.report(port) == statuses.SUCCESS
    assert node.delivery().state is COMMITTED
    assert node.delivery().committed_at is not None
    assert "delivery.committed" in log.getvalue()
    node.later(hours=100)
    assert len(archive.requests) == 1


def test_a_report_that_comes_twice_changes_nothing(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """The second one is a success too, whatever it says."""
    node, port = sent_and_asked(listening, archive)
    assert archive.report(port) == statuses.SUCCESS
    at = node.delivery().committed_at
    assert archive.report(port) == statuses.SUCCESS
    assert archive.report(port, failed=archive.uids[:1]) == statuses.SUCCESS
    assert (node.delivery().state, node.delivery().committed_at) == (COMMITTED, at)


def test_a_report_on_the_association_of_the_request_commits(
    listening: Callable[..., tuple[Outgoing, int]],
) -> None:
    """Some archives answer at once and on the same association (PS3.4 J.3.3)."""
    archive = ScriptedArchive(commitment=True, at_once=True).start()
    try:
        node, _ = listening(archive.configuration)
        node.later()
        node.later()
        assert node.delivery().state is COMMITTED
    finally:
        archive.stop()


def test_what_the_archive_lost_is_sent_again_and_asked_for_anew(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """A failed reference says why; everything goes again, and the next answer commits."""
    node, port = sent_and_asked(listening, archive)
    count = len(archive.received)
    assert archive.report(port, failed=archive.uids[1:2]) == statuses.SUCCESS
    assert node.delivery().state is RETRYING
    assert "not committed to 1 of" in (node.delivery().error or "")
    assert "0x0112" in (node.delivery().error or "")
    node.later(seconds=100)
    assert (node.delivery().state, len(archive.received)) == (SENT, 2 * count)
    node.later()
    assert archive.report(port) == statuses.SUCCESS
    assert node.delivery().state is COMMITTED


def test_a_success_that_leaves_objects_out_is_none(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """Event type 1 with fewer objects than were asked for commits to nothing."""
    node, port = sent_and_asked(listening, archive)
    del archive.requests[0].ReferencedSOPSequence[0]
    assert archive.report(port) == statuses.SUCCESS
    assert node.delivery().state is RETRYING


def test_an_archive_that_loses_everything_again_and_again_comes_to_an_end(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """After `most_requests` the delivery is dead, and a person acts."""
    node, port = sent_and_asked(listening, archive)
    for _ in range(2):
        archive.report(port, failed=archive.requested())
        node.later(seconds=100)
        node.later()
    archive.report(port, failed=archive.requested())
    assert (node.delivery().state, len(archive.requests)) == (DEAD, 3)


def test_an_archive_that_never_commits_is_asked_again_and_then_left(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """Each time under a new transaction; the report stays sent and says what is missing, and `retry` asks anew."""
    node, port = sent_and_asked(listening, archive)
    node.later(hours=25)
    assert node.delivery().error == "not committed, asked 2 times"
    for _ in range(4):
        node.later(hours=25)
    assert (node.delivery().state, len(archive.requests)) == (SENT, 3)
    assert "not committed after 3 requests" in (node.delivery().error or "")
    assert len({str(each.TransactionUID) for each in archive.requests}) == 3
    with node.bench.database.write() as ledger:
        deliveries.revive(ledger, node.delivery(), node.bench.now)
    node.later()
    assert len(archive.requests) == 4
    assert archive.report(port, index=0) == statuses.SUCCESS
    assert node.delivery().state is COMMITTED  # the first request's answer, days late


def test_a_transaction_that_is_not_ours_is_refused(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive, log: StringIO
) -> None:
    """Nobody can make a report committed by guessing."""
    node, port = sent_and_asked(listening, archive)
    assert archive.report(port, transaction_uid="2.25.1") == statuses.INVALID_ARGUMENT_VALUE
    assert node.delivery().state is SENT
    assert "unknown transaction" in log.getvalue()


def test_an_archive_without_the_service_leaves_the_report_sent(
    listening: Callable[..., tuple[Outgoing, int]],
) -> None:
    """It says why, and is asked again in case that it learns."""
    archive = ScriptedArchive(commitment=False).start()
    try:
        node, _ = listening({**archive.configuration, "storage_commitment": True})
        node.later()
        node.later()
        assert node.delivery().state is SENT
        assert node.delivery().error == "not committed: the archive offers no storage commitment"
    finally:
        archive.stop()


def test_nobody_is_committed_to(listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive) -> None:
    """A scanner that asks us, in whatever role it comes, is refused: it must never delete on our word."""
    _, port = listening(archive.configuration)
    for roles in ([], [build_role(StorageCommitmentPushModel, scu_role=True, scp_role=True)]):
        ae = AE(ae_title="MAIN")
        ae.add_requested_context(StorageCommitmentPushModel)
        association = ae.associate("127.0.0.1", port, ae_title="NODE", ext_neg=roles)
        assert association.is_established
        ds = Dataset()
        ds.TransactionUID = "1.2.3"
        try:
            response, _ = association.send_n_action(
                ds, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            assert response.Status == statuses.UNRECOGNIZED_OPERATION
        except ValueError:
            assert roles  # the role was not granted, so that the request cannot even be sent
        association.release()


def test_an_event_that_the_service_does_not_know_is_refused(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """Types 1 and 2 are all there are (PS3.4 table J.3-2)."""
    node, port = sent_and_asked(listening, archive)
    assert archive.report(port, event_type=3) == statuses.NO_SUCH_EVENT_TYPE
    assert node.delivery().state is SENT


def test_a_report_without_a_transaction_is_refused(
    listening: Callable[..., tuple[Outgoing, int]], archive: ScriptedArchive
) -> None:
    """What names nothing of ours changes nothing, and the listener lives on."""
    node, port = sent_and_asked(listening, archive)
    del archive.requests[0].ReferencedSOPSequence
    known = str(archive.requests[0].TransactionUID)
    archive.requests[0] = Dataset()
    archive.requests[0].TransactionUID = ""
    archive.requests[0].ReferencedSOPSequence = []
    assert archive.report(port, transaction_uid=" ") == statuses.INVALID_ARGUMENT_VALUE
    assert node.delivery().state is SENT
    assert archive.report(port, transaction_uid=known) == statuses.SUCCESS  # a report that commits to nothing
    assert node.delivery().state is RETRYING


@pytest.mark.peer
def test_orthanc_commits(listening: Callable[..., tuple[Outgoing, int]], orthanc: Orthanc) -> None:
    """A real archive, which reports on an association of its own."""
    orthanc.stop()
    orthanc.node_port = free_port()
    orthanc.start()
    dimse = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port}
    entry = {"name": "main", "dimse": dimse, "storage_commitment": True}
    node, _ = listening(entry, port=orthanc.node_port, ae_title=NODE_AE)
    node.later()
    node.later()
    assert node.delivery().error is None
    wait_until("Orthanc to commit", lambda: node.delivery().state is COMMITTED, timeout_s=20)
