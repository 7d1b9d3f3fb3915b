"""A reactor that is let go says so in the same moment, so that no request takes it for stopped."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pynetdicom
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicom_node.requestor import PREPARED, Checkpoint

if TYPE_CHECKING:
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
        assert all(association.send_c_echo().Status == 0x0000 for _ in range(50))
        association.release()
    finally:
        listening.shutdown()
