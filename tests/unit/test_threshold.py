"""What the threshold relies on in pynetdicom, and how it reads from a connection; what it is for, hostile peers try."""

from __future__ import annotations

import inspect
import socket
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pynetdicom import fsm
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket, RequestHandler

from dicom_node.receive import threshold
from dicom_node.receive.threshold import (
    HEADER_BYTES,
    LONGEST_REQUEST,
    LOOK_S,
    AnnouncedTooMuchError,
    _Asleep,
    _Bounded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PDU_BYTES = 5000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def bounded(connection: socket.socket, *, established: bool, idle_timeout_s: float = 60) -> _Bounded:
    """Return what reads from this connection."""
    assoc: Any = SimpleNamespace(is_established=established)
    transport: Any = SimpleNamespace(socket=connection)
    return _Bounded(assoc, transport, MAX_PDU_BYTES, idle_timeout_s)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (
            DULServiceProvider._read_pdu_data,
            ("self.socket.recv(6)", "self.socket.recv(pdu_length)", "OSError", "Evt17"),
        ),
        (DULServiceProvider._is_transport_event, ("self.socket.ready", "self._read_pdu_data()")),
        (DULServiceProvider.run_reactor, ("self._process_recv_primitive()", "elif self._is_transport_event()")),
        (DULServiceProvider.receive_pdu, ("self.to_user_queue.get(",)),
        (Association.run_reactor, ("self.dul.receive_pdu(wait=True", "if primitive is None:", "EVT_REQUESTED")),
        (fsm.AA_5, ("EVT_CONN_CLOSE", "dul.kill_dul()")),
        (ACSE.send_reject, ("is_rejected = True",)),
        (RequestHandler.handle, ("EVT_CONN_OPEN", "assoc.start()")),
        (AssociationSocket._shutdown_socket, ("shutdown",)),
    ],
    ids=lambda each: getattr(each, "__qualname__", ""),
)
def test_pynetdicom_is_inside_as_the_threshold_expects(member: Any, words: tuple[str, ...]) -> None:
    """Written for the pinned version: another one that does these things elsewhere has to be looked at."""
    source = inspect.getsource(member)
    assert [word for word in words if word not in source] == []


def looks(ends: tuple[socket.socket, socket.socket], state: str) -> float:
    """Return how long a look takes at a connection on which nothing comes."""
    looked: list[float] = []
    dul: Any = SimpleNamespace(
        state_machine=SimpleNamespace(current_state=state), _is_transport_event=lambda: looked.append(1) is None
    )
    transport: Any = SimpleNamespace(socket=ends[0], ready=False)
    began = time.monotonic()
    assert _Asleep(SimpleNamespace(dul=dul), transport)()  # type: ignore[arg-type]
    assert looked == [1]
    return time.monotonic() - began


def test_a_connection_that_has_asked_for_nothing_costs_no_looking(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps until something comes, and not at all once it is an association."""
    assert looks(ends, "Sta2") >= LOOK_S
    monkeypatch.setattr(threshold, "LOOK_S", 3600)
    assert looks(ends, "Sta6") < 3600
    ends[1].sendall(b"x")
    assert looks(ends, "Sta2") < 3600


def test_all_bytes_asked_for_are_read(ends: tuple[socket.socket, socket.socket]) -> None:
    """However they come in pieces."""
    ours, theirs = ends
    content = bytes(range(250)) * 10
    sender = threading.Thread(target=lambda: [theirs.sendall(content[at : at + 100]) for at in range(0, 2500, 100)])
    sender.start()
    assert bounded(ours, established=True)(len(content)) == content
    sender.join()
    assert ours.gettimeout() is None


def test_what_the_peer_left_is_returned_when_it_has_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    """Fewer bytes than asked for tell pynetdicom that the connection is closed."""
    ours, theirs = ends
    theirs.sendall(b"abc")
    theirs.close()
    assert bounded(ours, established=True)(10) == b"abc"


@pytest.mark.parametrize(("established", "longest"), [(True, MAX_PDU_BYTES + HEADER_BYTES), (False, LONGEST_REQUEST)])
def test_more_than_anything_we_take_is_not_read(
    ends: tuple[socket.socket, socket.socket], *, established: bool, longest: int
) -> None:
    """Nothing is read of it; `OSError` is what pynetdicom closes a connection for."""
    ours, theirs = ends
    theirs.sendall(b"abc")
    with pytest.raises(AnnouncedTooMuchError) as told:
        bounded(ours, established=established)(longest + 1)
    assert isinstance(told.value, OSError)
    assert ours.recv(10) == b"abc"


def test_a_pdu_that_does_not_come_in_time_is_given_up(ends: tuple[socket.socket, socket.socket]) -> None:
    """Every byte may come before the timeout, and the whole still too late."""
    ours, theirs = ends
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            theirs.sendall(b"\0")

    sender = threading.Thread(target=trickle)
    sender.start()
    with pytest.raises(TimeoutError):
        bounded(ours, established=True, idle_timeout_s=0.3)(100)
    stop.set()
    sender.join()
