"""What the audit trail tells, message by message: as PS3.15 A.5 says, of everything, once, and of nobody by name."""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from lxml import etree
from pydicom import dcmread
from pydicom.sr.codedict import codes

from dicom_node import by_hand, cli_by_hand
from dicom_node.ledger import presence
from dicom_node.ledger.database import Database
from dicom_node.observe import audit_messages
from dicom_node.observe.audit_facts import collect
from dicom_node.observe.audit_messages import (
    MEDIA_URI,
    Action,
    Code,
    Event,
    EventType,
    IdType,
    Message,
    Participant,
    Role,
    to_xml,
)
from dicom_node.observe.audit_received import BY_HAND
from dicom_node.observe.audit_teller import Teller
from tests.factories.audited import (
    AE_TITLE,
    SCHEMA,
    Told,
    audited_settings,
    by_event,
    everything_happens,
    read_message,
    unreadable,
)
from tests.factories.facts import PATIENT, a_series
from tests.factories.ledger import NOW, arrive_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

LATER = NOW + timedelta(minutes=5)


class Listening:
    """Somebody who hears the trail of a ledger from its beginning."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.database.migrate()
        self.teller = Teller(audited_settings(folder), "node.example")
        self.positions: dict[str, float] = {}
        self.keys: set[str] = set()
        self.hear(NOW - timedelta(seconds=30))

    def hear(self, now: datetime) -> list[Told]:
        """Return what is new, each message checked against the schema."""
        with self.database.read() as ledger:
            found = collect(self.teller, ledger, self.positions, now)
        self.positions |= found.positions
        new = [fact for fact in found.facts if fact.key not in self.keys]
        self.keys |= {fact.key for fact in new}
        return [read_message(to_xml(fact.message, source=AE_TITLE, site="SITE").encode()) for fact in new]


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    """A ledger that is heard from its beginning."""
    found = Listening(tmp_path)
    yield found
    found.database.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Told]]:
    """What is told where everything happened once."""
    listening = Listening(tmp_path_factory.mktemp("told"))
    with listening.database.write() as ledger:
        everything_happens(ledger)
    found = by_event(listening.hear(LATER))
    listening.database.close()
    return found


def test_everything_that_happens_is_told_and_nothing_else(told: dict[str, list[Told]]) -> None:
    """Every message was checked against the schema when it was read."""
    assert {event: len(found) for event, found in told.items()} == {
        "DICOM Instances Transferred": 5,  # two studies, what was unreadable, one report there, one half there
        "Patient Record": 3,
        "Query": 4,  # two archives, each for both IDs of the patient
        "Security Alert": 3,
        "User Authentication": 2,
    }


def test_reception_is_told_by_study_and_sender_with_counts(told: dict[str, list[Told]]) -> None:
    """Not one message per instance; a patient by ID and issuer; who sent and who took."""
    first, second, lost = sorted(
        (each for each in told["DICOM Instances Transferred"] if "SCANNER" in each.who),
        key=lambda each: -sum(sum(found.values()) for found in each.studies.values()),
    )
    assert [each.studies for each in (first, second)] == [
        {a_series(day)[0].study_instance_uid: {"1.2.840.10008.5.1.4.1.1.4": count}}
        for day, count in ((NOW.date().replace(2025, 6, 2), 60), (NOW.date().replace(2025, 7, 2), 3))
    ]
    assert first.who == {"SCANNER": "Source Role ID", "dicom-node": "Destination Role ID"}
    assert first.requestor == ["SCANNER"]
    assert (first.action, first.outcome, first.patients) == ("C", "0", ["SENTINEL-4711^^^HOSPITAL"])
    assert (lost.outcome, lost.patients, lost.studies) == ("4", ["(not read)"], {})
    assert lost.text == "1 objects that name no patient, or could not be read"


def test_what_was_held_before_is_read_not_created(listening: Listening) -> None:
    """The action says whether the receiver changed (A.5.3.7)."""
    series = a_series(NOW.date(), slices=3)
    with listening.database.write() as ledger:
        arrive_all(ledger, series)
    assert [each.action for each in listening.hear(LATER)] == ["C"]
    with listening.database.write() as ledger:
        arrive_all(ledger, series, at=LATER)
    assert [each.action for each in listening.hear(LATER + timedelta(minutes=5))] == ["R"]


def test_a_transfer_is_told_when_nothing_more_comes_and_no_earlier(listening: Listening) -> None:
    """And one that does not end is told in parts."""
    with listening.database.write() as ledger:
        arrive_all(ledger, a_series(NOW.date(), slices=3))
    assert listening.hear(NOW + timedelta(seconds=30)) == []
    with listening.database.write() as ledger:
        arrive_all(ledger, a_series(NOW.date(), name="2", slices=3), at=NOW + timedelta(seconds=40))
    assert listening.hear(NOW + timedelta(seconds=45)) == []  # what came just now may not be all that was committed
    (message,) = listening.hear(NOW + timedelta(seconds=65))
    assert [sum(each.values()) for each in message.studies.values()] == [6]
    assert listening.hear(NOW + timedelta(days=1)) == []


def test_files_taken_from_disk_are_an_import(listening: Listening) -> None:
    """From media that lie somewhere (A.5.3.4)."""
    assert getattr(by_hand, "BY_HAND", None) or cli_by_hand.BY_HAND == BY_HAND
    with listening.database.write() as ledger:
        unreadable(ledger, BY_HAND)
    (message,) = listening.hear(LATER)
    assert (message.event, message.action) == ("Import", "C")
    assert message.who == {BY_HAND: "Source Media", "dicom-node": "Destination Role ID"}
    assert message.xml.find("ActiveParticipant/MediaIdentifier/MediaType").get("originalText") == "URI"


def test_delivery_is_told_with_what_is_there(told: dict[str, list[Told]]) -> None:
    """Of a delivery that was given up, what got there all the same, as a failure."""
    sent, half = (each for each in told["DICOM Instances Transferred"] if "SCANNER" not in each.who)
    assert sent.who == {"dicom-node": "Source Role ID", "main": "Destination Role ID"}
    assert (sent.action, sent.outcome, sent.patients) == ("R", "0", ["SENTINEL-4711^^^HOSPITAL"])
    assert sent.studies == {"2.25.3": {"1.2.0": 1, "1.2.1": 1}}
    assert (half.outcome, half.studies) == ("8", {"2.25.3": {"1.2.0": 1}})
    assert sent.xml.findall("ActiveParticipant")[1].get("AlternativeUserID") == "AETITLES=ARCHIVE"


def test_a_question_is_told_with_the_question(told: dict[str, list[Told]]) -> None:
    """As the identifier of the C-FIND, or as the query of the web service (A.5.3.10)."""
    found = {(name, each.patients[0]): each for each in told["Query"] for name in each.who if name != "dicom-node"}
    assert {name for _, name in found} == {"SENTINEL-4711^^^HOSPITAL", "OLD-1^^^HOSPITAL"}
    by_name = {name: each for (name, patient), each in found.items() if patient.startswith("SENTINEL")}
    (asked,) = by_name["main"].objects("SOP Class UID")
    query = by_name["main"].xml.findtext(".//ParticipantObjectQuery")
    ds = dcmread(BytesIO(b64decode(query)), force=True)
    assert (ds.QueryRetrieveLevel, ds.PatientID) == ("STUDY", "SENTINEL-4711")
    assert asked.get("ParticipantObjectID") == "1.2.840.10008.5.1.4.1.2.2.1"
    assert by_name["main"].details() == {"TransferSyntax": "1.2.840.10008.1.2.1"}
    (asked,) = by_name["rest"].objects("URI")
    assert asked.get("ParticipantObjectID") == "http://pacs.example:8042"


def test_decisions_by_hand_name_who_took_them_about_whom(told: dict[str, list[Told]]) -> None:
    """A withdrawal names the patient of the run; a purge is a deletion."""
    found = {each.details()["Action"]: each for each in told["Patient Record"]}
    assert {name: (each.action, each.patients, each.requestor) for name, each in found.items()} == {
        "patient merge": ("U", ["OLD-1^^^HOSPITAL"], ["radiologist"]),
        "purge": ("D", ["GONE^^^HOSPITAL"], ["me"]),
        "withdraw": ("U", ["SENTINEL-4711^^^HOSPITAL"], ["me"]),
    }


def test_refused_callers_are_alerts_told_with_their_number(told: dict[str, list[Told]]) -> None:
    """A flood of them is one message a look; a failed login is an authentication."""
    refused, opened, used = sorted(told["Security Alert"], key=lambda each: each.type)
    assert (refused.type, refused.outcome, refused.requestor) == ("Node Authentication", "4", ["STRANGER<&"])
    assert refused.text == "unknown-calling-ae-title, 3 times"
    assert refused.details() == {"Alert Description": refused.text}
    assert (opened.type, opened.outcome) == ("Security Configuration", "4")
    assert (used.type, used.outcome, used.text) == ("Use of Restricted Function", "0", "backup by me")
    logins = {each.requestor[0]: each for each in told["User Authentication"]}
    assert {name: (each.type, each.outcome) for name, each in logins.items()} == {
        "admin": ("Login", "4"),
        "keeper": ("Login", "0"),
    }
    addresses = [each.xml.find("ActiveParticipant").get("NetworkAccessPointID") for each in logins.values()]
    assert sorted(addresses) == ["192.0.2.2", "192.0.2.3"]


def test_a_caller_refused_again_is_told_again(listening: Listening) -> None:
    """With how often since the last time."""
    for times, seconds in ((2, 0), (5, 60)):
        with listening.database.write() as ledger:
            for _ in range(times):
                presence.refused(ledger, calling_ae_title="X", address="192.0.2.1", reason="no", now=NOW)
        (message,) = listening.hear(NOW + timedelta(seconds=seconds))
        assert message.text == f"no, {times} times"
    assert listening.hear(LATER) == []


def test_nothing_is_told_twice_whatever_the_clock_does(listening: Listening) -> None:
    """Looking again brings nothing, later or with the clock set back."""
    with listening.database.write() as ledger:
        everything_happens(ledger)
    assert len(listening.hear(LATER)) == 17
    for after in (timedelta(seconds=1), -timedelta(hours=2), timedelta(minutes=10), timedelta(days=3)):
        assert listening.hear(LATER + after) == []


def test_what_was_before_the_trail_is_not_told(tmp_path: Path) -> None:
    """It begins when it is configured."""
    found = Listening(tmp_path)
    with found.database.write() as ledger:
        everything_happens(ledger)
    found.positions, found.keys = {}, set()
    assert found.hear(LATER) == []
    assert found.hear(LATER + timedelta(minutes=5)) == []
    found.database.close()


def test_nobody_is_named_and_no_date_of_birth_told(listening: Listening) -> None:
    """IDs stand in the trail, for that is what it is for; names, birth dates and descriptions do not."""
    with listening.database.write() as ledger:
        everything_happens(ledger)
    for message in listening.hear(LATER):
        text = etree.tostring(message.xml).decode() + " ".join(message.details().values())
        assert not [word for word in (PATIENT.name, PATIENT.birth_date, "dark-fluid") if word in text]


def test_what_a_peer_chose_cannot_break_the_message() -> None:
    """Control characters, half surrogates, angle brackets and endless names come out as legal XML on one line."""
    name = "A\0\x1b\n\ud800<AuditMessage>&'\"" + "B" * 10_000
    message = Message(
        event=Event.SECURITY_ALERT,
        type=EventType.NODE_AUTHENTICATION,
        action=Action.EXECUTE,
        at=NOW,
        outcome_text=name,
        participants=[Participant(user=name, requestor=True, ae_title=name, address=name)],
        objects=[audit_messages.patient(name, name), audit_messages.alert_subject(name, "what")],
    )
    xml = to_xml(message, source=name, site=name)
    assert "\n" not in xml
    assert len(xml) < 10_000
    assert read_message(xml.encode()).requestor[0].startswith("A????<AuditMessage>")


@pytest.mark.parametrize(
    ("kind", "contexts"),
    [(Event, "cid400"), (EventType, "cid401"), (Role, "cid402"), (IdType, "cid404")],
)
def test_codes_are_those_of_the_standard(kind: type, contexts: str) -> None:
    """Value and meaning, compared with the tables that pydicom generates from PS3.16."""
    group = getattr(codes, contexts)
    known = {(getattr(group, each).value, getattr(group, each).meaning) for each in group.dir()}
    used = {
        (code.value, code.meaning) for code in vars(kind).values() if isinstance(code, Code) and code.scheme == "DCM"
    }
    assert used
    assert used <= known
    assert (MEDIA_URI.value, MEDIA_URI.meaning) == (codes.cid405.URI.value, codes.cid405.URI.meaning)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="1"'),
        ('EventActionCode="E"', 'EventActionCode="X"'),
        ("2026-03-01T12", "2026-03-01 12"),
        ('UserIsRequestor="true"', 'UserIsRequestor="perhaps"'),
        ('csd-code="110100"', ""),
        ("<AuditSourceIdentification", "<SomethingElse"),
    ],
)
def test_the_schema_refuses_what_is_wrong(before: str, after: str) -> None:
    """So that its silence means something."""
    process = Participant(user="me", requestor=True)
    message = Message(event=Event.APPLICATION_ACTIVITY, action=Action.EXECUTE, at=NOW, participants=[process])
    good = to_xml(message, source="S", site=None)
    assert before in good
    bad = good.replace(before, after).replace(
        "</AuditSourceIdentification", "</SomethingElse" if "Else" in after else "</AuditSourceIdentification"
    )
    assert SCHEMA.validate(etree.fromstring(good.encode()))
    assert not SCHEMA.validate(etree.fromstring(bad.encode()))
