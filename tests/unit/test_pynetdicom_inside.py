"""The fast engine and our sender use a little of pynetdicom's inside; these tests fail when that changes under them."""

from __future__ import annotations

import hashlib
import inspect
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynetdicom
import pytest
from pynetdicom import AE, evt, fsm
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.timer import Timer

from dicom_node.receive.fast import A_ABORT, ACCEPT_SENT, CLOSED

if TYPE_CHECKING:
    from collections.abc import Callable

READ_BY_EYE = "3.0.4"  # the version whose inside was read when the engine was written

# Whose behaviour the engine relies on, and what their source was when it was read. After a change of one of them: read
# it, run tests/integration/test_engines_conform.py, then write the new digest here.
SOURCES = {
    "DULServiceProvider.run_reactor": (
        DULServiceProvider.run_reactor,
        "e3a10eb3a0931e48",
    ),  # one thread for both ways
    "DULServiceProvider._read_pdu_data": (
        DULServiceProvider._read_pdu_data,
        "19f2d4e38c13c835",
    ),  # hand-backs imitate it
    "DULServiceProvider._decode_pdu": (DULServiceProvider._decode_pdu, "fc71dd1bf853e1ce"),
    "StateMachine.do_action": (fsm.StateMachine.do_action, "9a883f44c7f31641"),  # the event comes after the action
    "Association._run_reactor": (
        Association._run_reactor,
        "f28838c5559e462a",
    ),  # waits at the checkpoint
    "events.trigger": (evt.trigger, "b97f8a75e8affaa0"),  # in the thread that triggers; an error does not leave it
    "AE_7": (fsm.AE_7, "c62284735836c78a"),  # sends the A-ASSOCIATE-AC
    "AA_4": (fsm.AA_4, "de72d40c80b07e3e"),  # closes the connection and ends both threads
    "DIMSEServiceProvider.send_msg": (DIMSEServiceProvider.send_msg, "a839cf2fb46976d9"),  # whole_messages stands in
}


def digest(function: Callable[..., Any]) -> str:
    """Return the digest of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def test_the_pinned_version_is_the_one_that_was_read() -> None:
    """In the constraints, and installed."""
    constraints = Path(__file__).parents[2] / "constraints.txt"
    assert f"pynetdicom=={READ_BY_EYE}" in constraints.read_text(encoding="ascii").splitlines()
    assert pynetdicom.__version__ == READ_BY_EYE


@pytest.mark.parametrize("name", SOURCES)
def test_what_the_engine_relies_on_is_as_it_was(name: str) -> None:
    """Function by function, by its source."""
    function, expected = SOURCES[name]
    assert digest(function) == expected, f"pynetdicom's {name} changed: read it again"


def test_an_association_has_what_the_engine_takes_hold_of() -> None:
    """Under these names, of these kinds."""
    association = Association(AE(), MODE_ACCEPTOR)
    assert isinstance(association._reactor_checkpoint, threading.Event)
    assert association._reactor_checkpoint.is_set()
    assert isinstance(association.dul._idle_timer, Timer)
    assert callable(association.dul._idle_timer.restart)
    assert isinstance(association.dul.event_queue, queue.Queue)
    assert isinstance(association.dul._recv_pdu, queue.Queue)
    assert association.accepted_contexts == []


@pytest.mark.parametrize(
    ("event", "state", "action", "next_state"),
    [
        ("Evt7", "Sta3", ACCEPT_SENT, "Sta6"),  # the A-ASSOCIATE-AC is sent: here the engine begins
        ("Evt10", "Sta6", "DT-2", "Sta6"),  # P-DATA-TF handed back
        ("Evt12", "Sta6", "AR-2", "Sta8"),  # A-RELEASE-RQ handed back
        ("Evt16", "Sta6", "AA-3", "Sta1"),  # A-ABORT handed back
        (CLOSED, "Sta6", "AA-4", "Sta1"),  # connection ended
    ],
)
def test_the_state_machine_is_that_of_the_standard(event: str, state: str, action: str, next_state: str) -> None:
    """PS3.8 table 9-10, where the engine begins and ends."""
    assert fsm.TRANSITION_TABLE[event, state] == action
    assert next_state in fsm.ACTIONS[action][2]


def test_a_transition_is_told_with_its_action_to_a_handler_that_only_listens() -> None:
    """EVT_FSM_TRANSITION is a notification: it is bound beside other handlers, and documented."""
    assert evt.EVT_FSM_TRANSITION.is_notification
    assert '"action": action_name' in inspect.getsource(fsm.StateMachine.do_action)


def test_the_abort_is_what_pynetdicom_would_send() -> None:
    """PS3.8 9.3.8: by the service provider, reason not specified."""
    pdu = pynetdicom.pdu.A_ABORT_RQ()
    pdu.source, pdu.reason_diagnostic = 2, 0
    assert pdu.encode() == A_ABORT
