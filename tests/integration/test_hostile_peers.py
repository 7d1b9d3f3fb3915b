"""Hostile peers: whatever they do to a listening node, limits hold, and a good peer is served beside them and after."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.factories.peers import wait_until
from tests.fuzz import pdus
from tests.fuzz.pdus import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, GoodPeer, associate, image, pdu, pdv
from tests.fuzz.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator

PLENTY_S = 150.0  # for an answer, however busy the machine is
NUMBERS = count(700)  # of images
IDLE_S = 4.0  # receive.idle_timeout_s of these nodes


@pytest.fixture(params=["stock", "fast"], scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A listening node in its own process, under either engine, with five associations at most."""
    found = Served(
        tmp_path_factory.mktemp(request.param), engine=request.param, idle_timeout_s=IDLE_S, max_associations=5
    )
    found.store()
    found.calibrate()
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def serves_on(node: Served) -> Iterator[None]:
    """Whatever was done to it: a good C-STORE succeeds, and threads, open files and memory are as they were."""
    yield
    node.expect_alive()
    node.store()
    node.expect_settled()


def connect(node: Served) -> socket.socket:
    """Open a connection and say nothing."""
    return socket.create_connection(("127.0.0.1", node.port), timeout=PLENTY_S)


def associated(node: Served) -> socket.socket:
    """Open an association for storage."""
    connection = connect(node)
    connection.sendall(associate())
    assert pdus.read_pdu(connection)[0] == ASSOCIATE_AC
    return connection


def closes(connection: socket.socket) -> bool:
    """Read until the node closes; say whether it did in time."""
    try:
        while connection.recv(65536):
            continue
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_silent_connections_take_no_place_of_an_association(node: Served) -> None:
    """More connections that ask for nothing than there may be associations, and scanners still come in."""
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connect(node))
        time.sleep(0.2)
        for _ in range(3):
            node.store()


def test_silent_connections_from_many_unlisted_addresses_keep_no_scanner_out(node: Served) -> None:
    """Six addresses that no peer calls from, each with as many as one may have: half of the room is not theirs."""
    with contextlib.ExitStack() as stack:
        for host in range(2, 8):
            for _ in range(16):
                silent = socket.create_connection(("127.0.0.1", node.port), source_address=(f"127.0.0.{host}", 0))
                stack.enter_context(silent)
                time.sleep(0.02)  # so that the system's own queue does not overflow
        for _ in range(3):
            node.store()


def test_connections_that_were_closed_without_a_word_are_forgotten_at_once(node: Served) -> None:
    """A load balancer asks every second whether the port is open: each time it gives its place back."""
    for _ in range(30):
        connect(node).close()
    node.store()
    wait_until(
        "their threads to end", lambda: node.threads() <= node.threads_when_idle + 1, timeout_s=20, every_s=0.1
    )  # not after the 30 s that a request may take


def test_too_many_silent_connections_of_one_address_are_closed(node: Served) -> None:
    """Seventeen from one address: the last one is closed at once, the others wait."""
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(node)) for _ in range(24)]
        closed = []
        for each in waiting:
            each.setblocking(False)

        def some_closed() -> bool:
            for each in waiting:
                with contextlib.suppress(BlockingIOError):
                    if each not in closed and each.recv(1) == b"":
                        closed.append(each)
            return len(closed) >= 24 - 16

        wait_until("the surplus to be closed", some_closed, timeout_s=20, every_s=0.1)
        assert len(closed) < 24


def test_an_association_request_that_announces_gigabytes_is_closed_unread(node: Served) -> None:
    """Four GiB are announced, and sent as long as somebody reads: the node closes and its memory stays."""
    with connect(node) as connection:
        connection.sendall(struct.pack(">BxI", pdus.ASSOCIATE_RQ, 0xFFFFFFFF))
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(bytes(1 << 20))
            pytest.fail("the node read 200 MB of one association request")
    node.expect_alive()


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 200_000, 5, 0])
def test_a_data_pdu_of_impossible_length_ends_its_association(node: Served, length: int) -> None:
    """More than was agreed upon, or less than an item's head: aborted or closed."""
    with associated(node) as connection:
        connection.sendall(pdu(DATA, bytes(64), length=length))
        with contextlib.suppress(OSError):
            connection.sendall(pdu(DATA, bytes(64)) * 4)
        assert closes(connection)


def test_an_unknown_pdu_ends_its_association(node: Served) -> None:
    """What is no PDU is aborted (PS3.8 9.2.3, AA-8)."""
    with associated(node) as connection:
        connection.sendall(pdu(0x42, bytes(4)))
        assert closes(connection)


@pytest.mark.parametrize("cut", [1, 5, 6, 9, 12, 40, 200])
def test_a_peer_that_is_gone_in_mid_message_costs_nothing(node: Served, cut: int) -> None:
    """The connection ends within a header, an item, a command, a data set: no answer, no file, no thread is left."""
    sent = image()
    with associated(node) as connection:
        connection.sendall(pdus.store(sent.uid, sent.data_set)[:cut])


def test_an_abort_in_mid_message_ends_it(node: Served) -> None:
    """A-ABORT between the fragments of a data set."""
    sent = image()
    with associated(node) as connection:
        connection.sendall(pdu(DATA, pdv(pdus.command(sent.uid), command=True)))
        connection.sendall(pdu(DATA, pdv(sent.data_set[:100], last=False)))
        connection.sendall(pdu(ABORT, bytes(4)))
        assert closes(connection)


def test_one_byte_at_a_time_ends_within_the_time_of_a_message(node: Served) -> None:
    """A sender that never is silent and never gets on is ended, while others are served at full speed."""
    ended = threading.Event()

    def trickle() -> None:
        with associated(node) as connection, contextlib.suppress(OSError):
            connection.sendall(struct.pack(">BxI", DATA, 10_000))  # ten seconds at the slowest
            deadline = time.monotonic() + PLENTY_S
            while time.monotonic() < deadline:
                connection.sendall(b"\0")
                time.sleep(0.05)
            return
        ended.set()

    sender = threading.Thread(target=trickle, daemon=True)
    sender.start()
    node.store()
    sender.join(PLENTY_S + 30)
    assert ended.is_set()


def test_a_silent_association_is_ended(node: Served) -> None:
    """Nothing for longer than the idle timeout: the node ends it by itself."""
    with associated(node) as connection:
        assert closes(connection)


def test_more_associations_than_allowed_are_rejected_and_those_open_go_on(node: Served) -> None:
    """Five are open; ten others are rejected as "local limit exceeded" (PS3.8 9.3.4), and the five store between."""
    peers = [GoodPeer(node.port)]
    for _ in range(4):
        peers.append(GoodPeer(node.port))
        assert {peer.store(next(NUMBERS)) for peer in peers} == {0x0000}  # none falls silent, however slow the others
    for _ in range(10):
        with connect(node) as connection:
            connection.sendall(associate())
            kind, content = pdus.read_pdu(connection)
            assert (kind, content[1:4]) == (ASSOCIATE_RJ, bytes((2, 3, 2)))
        assert {peer.store(next(NUMBERS)) for peer in peers} == {0x0000}
    for peer in peers:
        peer.release()


@pytest.mark.parametrize(
    ("titles", "diagnostic"),
    [({"calling": b"STRANGER"}, 3), ({"called": b"SOMEBODY"}, 7), ({"calling": b"\xff" * 16}, 3)],
    ids=["unknown caller", "not our title", "no title at all"],
)
def test_wrong_titles_are_rejected(node: Served, titles: dict[str, bytes], diagnostic: int) -> None:
    """A-ASSOCIATE-RJ by the service user, with its reason; an illegal title may be closed as well."""
    with connect(node) as connection:
        connection.sendall(associate(**titles))
        try:
            kind, content = pdus.read_pdu(connection)
        except ConnectionError:
            assert titles.get("calling", b"").startswith(b"\xff")
            return
    assert kind in {ASSOCIATE_RJ, ABORT}
    if kind == ASSOCIATE_RJ:
        assert content[3] == diagnostic


def test_a_transfer_syntax_that_nobody_knows_is_not_accepted(node: Served) -> None:
    """The presentation context is refused; a C-STORE in spite of that ends the association."""
    sent = image()
    with connect(node) as connection:
        connection.sendall(associate(contexts=[(3, pdus.MR, (b"1.2.3.4",)), (1, pdus.VERIFICATION, (pdus.IMPLICIT,))]))
        kind, content = pdus.read_pdu(connection)
        assert kind == ASSOCIATE_AC
        results = content.split(b"\x21\x00")[1:]
        assert [each[4] for each in results if each[2] == 3] != [0]
        connection.sendall(pdus.store(sent.uid, sent.data_set))
        assert closes(connection)


def test_a_data_set_that_contradicts_its_command_is_kept_and_never_believed(node: Served) -> None:
    """Another UID in the data set than in the command: stored, for it is not parsed here; the reader sets it aside."""
    sent = image()
    with associated(node) as connection:
        connection.sendall(pdus.store(b"1.2.3.4.5", sent.data_set))
        kind, content = pdus.read_pdu(connection)
        assert kind == DATA
        assert pdus.status_of(content[6:]) == 0x0000


def test_a_command_for_another_class_than_its_context_is_refused(node: Served) -> None:
    """What was agreed on is MR: a CT image by its command is not taken (PS3.4 B.2.3), and the next MR image is."""
    sent = image()
    ct = b"1.2.840.10008.5.1.4.1.1.2"
    with associated(node) as connection:
        for sop_class, status in ((ct, 0xA900), (pdus.MR, 0x0000)):
            connection.sendall(pdu(DATA, pdv(pdus.command(sent.uid, _0002=sop_class), command=True)))
            connection.sendall(pdu(DATA, pdv(sent.data_set)))
            _, content = pdus.read_pdu(connection)
            assert pdus.status_of(content[6:]) == status


def test_a_command_whose_uid_is_none_is_not_stored(node: Served) -> None:
    """A UID that is none as Affected SOP Instance UID: refused, and the association goes on or ends."""
    sent = image()
    with associated(node) as connection:
        connection.sendall(pdu(DATA, pdv(pdus.command(b"../../etc/passwd"), command=True)))
        connection.sendall(pdu(DATA, pdv(sent.data_set)))
        with contextlib.suppress(ConnectionError):
            kind, content = pdus.read_pdu(connection)
            assert kind == ABORT or pdus.status_of(content[6:]) != 0x0000
