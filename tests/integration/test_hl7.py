"""The registry's messages over real sockets: committed before AA, refused with a reason, never in the log."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from datetime import date
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import database as database_module
from dicom_node.ledger import identity, patients, presence
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import accepted_value, audit, patient_alias
from dicom_node.observe.logs import open_log
from dicom_node.receive import mllp
from dicom_node.receive.hl7 import Hl7Listener
from dicom_node.settings import Logging, Settings
from dicom_node.timeline.identity import IdentityState, compare_patients
from tests.factories.facts import PATIENT, a_series
from tests.factories.ledger import arrive_all, owners

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A40 = (
    "MSH|^~\\&|ADT|HOSPITAL|NODE|RAD|20260301120000||ADT^A40^ADT_A39|{control_id}|P|2.5|||||DEU|UNICODE UTF-8\r"
    "EVN|A40|20260301120000\r"
    "PID|1||{surviving}||SENTINEL^PATIENT||20100203|F\r"
    "MRG|{retired}\r"
)
A08 = (
    "MSH|^~\\&|ADT|HOSPITAL|NODE|RAD|20260301120000||ADT^A08^ADT_A01|MSG-8|P|2.5|||||DEU|UNICODE UTF-8\r"
    "PID|1||SENTINEL-4711^^^HOSPITAL||{name}||{birth_date}|F\r"
)
OLD = replace(PATIENT, patient_id="OLD-1")
JUNE, JULY = date(2025, 6, 2), date(2025, 7, 2)


class Hospital:
    """A node's HL7 listener with its ledger and log, and a registry that talks to it over a socket."""

    def __init__(self, folder: Path, **hl7: Any) -> None:
        self.port = free_port()
        settings = Settings.model_validate(
            {
                "node": {"ae_title": "NODE", "data_dir": folder},
                "receive": {
                    "allow_unknown_peers": True,
                    "hl7": {"port": self.port, "default_issuer": "HOSPITAL", **hl7},
                },
                "tasks": ["glioma-recurrence"],
            }
        )
        self.database = Database(settings.ledger_url)
        self.database.migrate()
        self.log = StringIO()
        log = open_log(Logging(level="debug", format="json"), b"key", self.log)
        self.listener = Hl7Listener(settings, self.database, log)
        self.listener.start()

    def close(self) -> None:
        """Stop; nothing that was said may stand in the log."""
        self.listener.stop()
        self.database.close()
        text = self.log.getvalue()
        assert not [word for word in ("SENTINEL", "4711", "OLD-1", "20100203", "MSG-") if word in text]

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def say(self, message: str | bytes) -> str:
        """Send one message over a connection of its own; return what is answered."""
        with self.connect() as connection:
            return say(connection, message)


def say(connection: socket.socket, message: str | bytes) -> str:
    """Send one message; return the answer without its frame."""
    content = message.encode() if isinstance(message, str) else message
    try:
        connection.sendall(b"\x0b" + content + b"\x1c\x0d")
    except (BrokenPipeError, ConnectionResetError):
        return ""
    return listen(connection)


def listen(connection: socket.socket) -> str:
    """Receive one block; empty if the connection is closed instead."""
    held = b""
    while not held.endswith(b"\x1c\x0d"):
        try:
            chunk = connection.recv(4096)
        except ConnectionResetError:
            return ""
        if not chunk:
            return ""
        held += chunk
    assert held.startswith(b"\x0b")
    return held[1:-2].decode()


def code(answer: str) -> str:
    """Return the acknowledgment code."""
    return answer.partition("\rMSA|")[2][:2] if answer else "closed"


def a40(
    retired: str = "OLD-1^^^HOSPITAL", surviving: str = "SENTINEL-4711^^^HOSPITAL", control_id: str = "MSG-1"
) -> str:
    """Return a merge message."""
    return A40.format(retired=retired, surviving=surviving, control_id=control_id)


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    """A listener that runs, with one study under each of two IDs."""
    found = Hospital(tmp_path)
    with found.database.write() as ledger:
        arrive_all(ledger, [*a_series(JUNE, patient=OLD, slices=2), *a_series(JULY, slices=2)])
    yield found
    found.close()


def test_a_merge_is_committed_when_it_is_answered(hospital: Hospital) -> None:
    """Everything of the retired ID is the survivor's by the time the sender reads AA."""
    answer = hospital.say(a40())
    assert answer.startswith("MSH|^~\\&|NODE|RAD|ADT|HOSPITAL|")
    assert answer.endswith("\rMSA|AA|MSG-1\r")
    with hospital.database.read() as ledger:
        (survivor,) = patients.find(ledger, "SENTINEL-4711")
        assert set(owners(ledger).values()) == {survivor.row_id}
        (line,) = ledger.execute(select(audit).where(audit.c.action == "patient merge")).all()
        assert line.actor == "HL7 ADT HOSPITAL"


def test_a_message_sent_again_is_accepted_and_changes_nothing(hospital: Hospital) -> None:
    """A sender that lost our answer sends the same message with the same control ID."""
    assert [code(hospital.say(a40())) for _ in range(3)] == ["AA"] * 3
    with hospital.database.read() as ledger:
        assert len(ledger.execute(select(audit)).all()) == 1


def test_a_connection_is_kept_for_many_messages(hospital: Hospital) -> None:
    """Interface engines connect once; several blocks may even come in one piece, or byte by byte."""
    with hospital.connect() as connection:
        assert code(say(connection, a40())) == "AA"
        block = b"\x0b" + a40(control_id="MSG-2").encode() + b"\x1c\x0d"
        connection.sendall(block + b"\n" + block)
        assert [code(listen(connection)), code(listen(connection))] == ["AA", "AA"]
        for byte in block:
            connection.sendall(bytes((byte,)))
        assert "|MSG-2" in listen(connection)


def test_a_contradiction_is_refused_and_kept_for_the_admin(hospital: Hospital) -> None:
    """The retired ID is somebody's already: AE with the reason, an audit line, and nothing is changed."""
    hospital.say(a40())
    answer = hospital.say(a40(surviving="THIRD^^^HOSPITAL", control_id="MSG-2"))
    assert "MSA|AE|MSG-2|merge: the retired ID was merged into a third one before" in answer
    with hospital.database.read() as ledger:
        assert len(ledger.execute(select(patient_alias)).all()) == 1
        assert ledger.scalars(select(audit.c.action)).all() == ["patient merge", "HL7 refused"]


def test_a_message_with_several_merges_is_entered_whole_or_not_at_all(hospital: Hospital) -> None:
    """The second contradicts the first, so neither holds."""
    both = a40() + "PID|2||OLD-1^^^HOSPITAL\rMRG|SENTINEL-4711^^^HOSPITAL\r"
    assert code(hospital.say(both)) == "AE"
    with hospital.database.read() as ledger:
        assert ledger.execute(select(patient_alias)).all() == []


def test_ids_without_an_authority_get_the_configured_issuer(hospital: Hospital) -> None:
    """PID-3 and MRG-1 of a small hospital name none."""
    hospital.say(a40(retired="OLD-1", surviving="SENTINEL-4711"))
    with hospital.database.read() as ledger:
        (survivor,) = patients.find(ledger, "SENTINEL-4711")
        assert identity.ids_of(ledger, survivor.row_id) == [("HOSPITAL", "SENTINEL-4711"), ("HOSPITAL", "OLD-1")]


def test_a_merge_of_another_issuers_id_leaves_ours_alone(hospital: Hospital) -> None:
    """The same number elsewhere is another human."""
    hospital.say(a40(retired="OLD-1^^^ELSEWHERE", surviving="SENTINEL-4711^^^ELSEWHERE"))
    with hospital.database.read() as ledger:
        assert len(set(owners(ledger).values())) == 2


@pytest.mark.parametrize(
    ("said", "state", "accepts"),
    [
        ({"name": "MARRIED^SENTINEL", "birth_date": "20100203"}, IdentityState.CLEAR, True),
        ({"name": "MARRIED^SENTINEL", "birth_date": "20100302"}, IdentityState.CONFLICT, False),
        ({"name": "SENTINEL^PATIENT", "birth_date": "20100302"}, IdentityState.CONFLICT, False),
        ({"name": "SENTINEL^PATIENT", "birth_date": "20100203"}, IdentityState.CLEAR, False),
    ],
)
def test_an_update_corrects_a_name_and_holds_on_a_birth_date(hospital: Hospital, said, state, accepts) -> None:
    """A name is corrected without asking; a birth date is never accepted in silence."""
    with hospital.database.read() as ledger:
        (before,) = patients.find(ledger, "SENTINEL-4711")
    assert code(hospital.say(A08.format(**said))) == "AA"
    with hospital.database.read() as ledger:
        (after,) = patients.find(ledger, "SENTINEL-4711")
        records = [each.patient for each in patients.facts_of(ledger, after.row_id)]
        found = compare_patients(
            [*records, *identity.stated(ledger, after.row_id)], accepted=identity.accepted(ledger, after.row_id)
        )
        assert found.state is state
        assert after.revision > before.revision
        assert bool(ledger.execute(select(accepted_value)).all()) is accepts


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x0bno message at all\x1c\x0d", "AR"),
        (b"\x0b\x1c\x0d", "AR"),
        (b"\x0bMSH|^~\\&|A|B|C|D|2026||ADT^A01|MSG-3|P|2.5\r\x1c\x0d", "AR"),
        (b"\x0bMSH|^~\\&|A|B|C|D|2026||ADT^A40|MSG-3|P|2.5\rPID|\x00\xff|\r\x1c\x0d", "AE"),
        (b"GET / HTTP/1.1\r\n\r\n", "closed"),
        (b"\x16\x03\x01\x02\x00", "closed"),
        (b"\x0b" + b"x" * (1 << 20), "closed"),
        (b"\x0b" + b"x" * (1 << 20) + b"\x1c\x0d", "closed"),
        (b"\x00" * (1 << 20), "closed"),
    ],
)
def test_junk_is_answered_or_cut_off_and_the_next_message_is_served(hospital: Hospital, sent, answer) -> None:
    """A broken frame ends its connection and nothing else."""
    with hospital.connect() as connection:
        try:
            connection.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            assert answer == "closed"
        assert code(listen(connection)) == answer
    assert code(hospital.say(a40())) == "AA"


def test_a_sender_that_breaks_off_changes_nothing(hospital: Hospital) -> None:
    """Half a message is no message, and the admin sees who broke off."""
    with hospital.connect() as connection:
        connection.sendall(b"\x0b" + a40().encode())
    assert code(hospital.say(a40(retired="X^^^HOSPITAL", surviving="Y^^^HOSPITAL"))) == "AA"
    hospital.listener.stop()
    with hospital.database.read() as ledger:
        assert len(set(owners(ledger).values())) == 2
        (line,) = presence.refusals(ledger)
        assert (line["calling_ae_title"], line["reason"]) == ("(HL7)", "BrokenFrame")


def test_a_sender_that_stops_in_the_middle_is_cut_off() -> None:
    """A block has its time; an idle connection has a longer one."""
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"\x0bMSH")
        with pytest.raises(mllp.BrokenFrame, match="in time, found 4 bytes"):
            list(mllp.read_blocks(one, block_s=0.1))
        assert list(mllp.read_blocks(one, idle_s=0.1)) == []


def test_a_locked_ledger_is_told_and_the_same_message_serves_later(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AE, not AA: the sender keeps the message in its queue."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 200)
    hospital.database.close()  # connections that are opened from here on wait for 0.2 s
    blocker = Database(hospital.database.url)
    with blocker.write():
        answer = hospital.say(a40())
    blocker.close()
    assert "MSA|AE|MSG-1|the ledger could not be written: OperationalError" in answer
    assert "\rERR|||207|E|" in answer
    assert code(hospital.say(a40())) == "AA"


def test_an_address_that_is_not_listed_is_turned_away(tmp_path: Path) -> None:
    """Nothing it says is read; `status` counts it."""
    elsewhere = Hospital(tmp_path, hosts=["192.0.2.0/24"])
    assert code(elsewhere.say(a40())) == "closed"
    elsewhere.close()
    with elsewhere.database.read() as ledger:
        assert patients.all_patients(ledger) == []
        (line,) = presence.refusals(ledger)
        assert (line["calling_ae_title"], line["reason"]) == ("(HL7)", "address not allowed")


def test_too_many_connections_are_turned_away(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """One broken sender that never closes cannot take all threads."""
    monkeypatch.setattr(mllp, "MOST_CONNECTIONS", 1)
    with hospital.connect() as first:
        assert code(say(first, a40())) == "AA"
        assert code(hospital.say(a40())) == "closed"
        assert code(say(first, a40())) == "AA"


def test_stopping_ends_idle_connections_at_once(hospital: Hospital) -> None:
    """A sender that stays connected does not keep the node from ending."""
    with hospital.connect() as connection:
        assert code(say(connection, a40())) == "AA"
        stopper = threading.Thread(target=hospital.listener.stop)
        stopper.start()
        stopper.join(timeout=5)
        assert not stopper.is_alive()
        assert listen(connection) == ""
    with pytest.raises(ConnectionRefusedError):
        hospital.connect()
