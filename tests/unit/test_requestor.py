"""A reactor that is let go says so in the same moment, so that no request takes it for stopped."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pynetdicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicom_node.receive.wire import Wire
from dicom_node.requestor import PREPARED, Checkpoint, receive

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association


def test_whoever_passes_the_checkpoint_is_no_longer_paused() -> None:
    """The flag falls before `wait` returns, not at some time after it."""
    association = SimpleNamespace(_is_paused=True)
    checkpoint = Checkpoint(cast("Association", association))
    assert checkpoint.wait()
    assert not association._is_paused


def test_a_stop_that_comes_in_between_holds() -> None:
    """Who was let go and stopped again before it moved stays paused, and is seen to be."""
    association = SimpleNamespace(_is_paused=True)
    checkpoint = Checkpoint(cast("Association", association))
    checkpoint.clear()
    waiting = threading.Thread(target=checkpoint.wait, args=(5,))
    waiting.start()
    assert association._is_paused
    checkpoint.set()
    waiting.join()
    assert not association._is_paused


def test_a_stop_outlives_a_thread_that_takes_the_flag_down() -> None:
    """Whoever waits for the reactor to stop sees it stopped, though an N-EVENT-REPORT ended in between."""
    association = SimpleNamespace(_is_paused=True)
    checkpoint = Checkpoint(cast("Association", association))
    checkpoint.clear()
    waiting = threading.Thread(target=checkpoint.wait, args=(5,))
    waiting.start()
    association._is_paused = False
    deadline = time.monotonic() + 2
    while not association._is_paused and time.monotonic() < deadline:
        time.sleep(0.001)
    assert association._is_paused
    checkpoint.set()
    waiting.join()


def test_an_association_is_prepared_before_its_reactor_runs() -> None:
    """Echoes go through, and pynetdicom still has what we replace."""
    assert pynetdicom.__version__.startswith("3.0."), "look at Association._run_reactor again"
    server = AE()
    server.add_supported_context(Verification)
    listening = server.start_server(("127.0.0.1", 0), block=False)
    client = AE()
    client.add_requested_context(Verification)
    try:
        association = client.associate(*listening.server_address, evt_handlers=[*PREPARED])
        assert isinstance(association._reactor_checkpoint, Checkpoint)
        assert association.dul.socket is not None
        assert "recv" in vars(association.dul.socket), "what a peer holds back is acknowledged at once"
        assert all(association.send_c_echo().Status == 0x0000 for _ in range(50))
        association.release()
    finally:
        listening.shutdown()


def by_the_door(connection: socket.socket, length: int) -> bytearray:
    """Read as the fast engine does."""
    space = bytearray(length)
    Wire(connection, idle_timeout_s=10, stopping=lambda: False).fill(memoryview(space), length)
    return space


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="the system has no such option")
@pytest.mark.parametrize("receive", [receive, by_the_door])
def test_what_comes_is_acknowledged_at_once_however_the_kernel_has_got_used_to_wait(
    receive: Callable[[socket.socket, int], bytearray],
) -> None:
    """After some requests and answers the kernel delays acknowledgements; reading ends that each time."""

    def delays(connection: socket.socket) -> bool:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0

    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as ours:
        theirs, _ = listening.accept()
        with theirs:
            for _ in range(20):
                ours.sendall(b"request")
                theirs.sendall(b"head")
                assert ours.recv(4) == b"head"
            assert delays(ours), "the kernel never delayed anything: this proves nothing"
            for _ in range(20):
                ours.sendall(b"request")
                theirs.sendall(b"head")
                assert receive(ours, 4) == b"head"
                assert not delays(ours)


def test_a_connection_that_ends_gives_what_there_was() -> None:
    """As pynetdicom expects: fewer bytes than asked for, and no error."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as ours:
        theirs, _ = listening.accept()
        theirs.sendall(b"half")
        theirs.close()
        assert receive(ours, 8) == b"half"
