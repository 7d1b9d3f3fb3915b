"""A ledger in which everything happened once that the audit trail tells, and a way to read what it told."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lxml import etree

from dicom_node.ledger import arrivals, cohort, deliveries, identity_changes, patients, presence, priors, runs
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.tables import ArrivalState
from dicom_node.settings import Settings
from tests.factories.facts import PATIENT, a_series
from tests.factories.ledger import NOW, a_proposal, arrive_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

SCHEMA = etree.RelaxNG(etree.parse(str(Path(__file__).with_name("audit_message.rng"))))
AE_TITLE = "TEMPORALNODE"
RUN = "a" * 64
BOM = b"\xef\xbb\xbf"


def audited_settings(folder: Path, **audit: Any) -> Settings:
    """Return a node with an audit trail and three archives, one for each way to reach one."""
    return Settings.model_validate(
        {
            "node": {"ae_title": AE_TITLE, "data_dir": folder},
            "receive": {"peers": [{"ae_title": "SCANNER", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]},
            "tasks": ["glioma-recurrence"],
            "pacs": [
                {
                    "name": "main",
                    "dimse": {"ae_title": "ARCHIVE", "host": "pacs.example", "port": 104},
                    "default_issuer": "HOSPITAL",
                },
                {"name": "rest", "orthanc": {"url": "http://pacs.example:8042"}, "default_issuer": "HOSPITAL"},
            ],
            "audit": audit,
        }
    )


@dataclass(frozen=True)
class Told:
    """One audit message, read back."""

    xml: Any

    @property
    def event(self) -> str:
        """What happened."""
        return str(self.xml.find("EventIdentification/EventID").get("originalText"))

    @property
    def type(self) -> str:
        """What kind of it, empty where it has none."""
        found = self.xml.find("EventIdentification/EventTypeCode")
        return "" if found is None else str(found.get("originalText"))

    @property
    def action(self) -> str:
        """C, R, U, D or E."""
        return str(self.xml.find("EventIdentification").get("EventActionCode"))

    @property
    def outcome(self) -> str:
        """0, 4, 8 or 12."""
        return str(self.xml.find("EventIdentification").get("EventOutcomeIndicator"))

    @property
    def text(self) -> str:
        """The outcome in words."""
        return str(self.xml.findtext("EventIdentification/EventOutcomeDescription") or "")

    @property
    def who(self) -> dict[str, str]:
        """Who took part in which role."""
        return {
            each.get("UserID"): "" if (role := each.find("RoleIDCode")) is None else role.get("originalText")
            for each in self.xml.findall("ActiveParticipant")
        }

    @property
    def requestor(self) -> list[str]:
        """Whose wish it was."""
        return [
            each.get("UserID")
            for each in self.xml.findall("ActiveParticipant")
            if each.get("UserIsRequestor") == "true"
        ]

    def objects(self, kind: str) -> list[Any]:
        """Return the objects that are named in this way."""
        return [
            each
            for each in self.xml.findall("ParticipantObjectIdentification")
            if each.find("ParticipantObjectIDTypeCode").get("originalText") == kind
        ]

    @property
    def patients(self) -> list[str]:
        """The patients it is about."""
        return [each.get("ParticipantObjectID") for each in self.objects("Patient Number")]

    @property
    def studies(self) -> dict[str, dict[str, int]]:
        """The studies it is about: SOP classes and how many instances."""
        return {
            each.get("ParticipantObjectID"): {
                found.get("UID"): int(found.get("NumberOfInstances")) for found in each.iter("SOPClass")
            }
            for each in self.objects("Study Instance UID")
        }

    def details(self) -> dict[str, str]:
        """Return what is said in detail of its objects."""
        return {
            each.get("type"): base64.b64decode(each.get("value")).decode()
            for each in self.xml.iter("ParticipantObjectDetail")
        }


def read_message(xml: bytes) -> Told:
    """Read one message, which must be as PS3.15 A.5.1 says."""
    root = etree.fromstring(xml)
    SCHEMA.assertValid(etree.ElementTree(root))
    return Told(root)


def read_line(line: bytes) -> Told:
    """Read one RFC 5424 line as PS3.15 A.6 wants it."""
    header, found, xml = line.partition(BOM)
    assert found
    priority, at, host, application, pid, message_id, structured, end = header.decode("ascii").split(" ")
    assert priority in {"<85>1", "<84>1"}
    assert at[10] == "T"
    assert host
    assert (application, message_id, structured, end) == ("dicom-node", "DICOM+RFC3881", "-", "")
    assert pid.isdigit()
    told = read_message(xml)
    assert (priority == "<84>1") == (told.outcome != "0")
    return told


def read_lines(path: Path) -> list[Told]:
    """Read every message of an audit file."""
    return [read_line(line) for line in path.read_bytes().splitlines()]


def everything_happens(ledger: Connection) -> None:
    """Let each thing happen once that the audit trail tells."""
    arrive_all(ledger, a_series(date(2025, 6, 2), slices=30))
    arrive_all(ledger, a_series(date(2025, 6, 2), slices=30))  # once more the same
    unreadable(ledger, "SCANNER")
    arrive_all(ledger, a_series(date(2025, 7, 2), slices=3), at=NOW + timedelta(seconds=1))
    for _ in range(3):
        presence.refused(
            ledger, calling_ae_title="STRANGER<&", address="192.0.2.1", reason="unknown-calling-ae-title", now=NOW
        )
    presence.refused(ledger, calling_ae_title="admin", address="192.0.2.2", reason=presence.FAILED_LOGIN, now=NOW)
    login = {"address": "192.0.2.3", "role": "admin"}
    cohort.write_audit(ledger, at=NOW, actor="keeper", action="login", subject="status page", details=login)
    cohort.write_audit(ledger, at=NOW, actor="me", action="backup", subject="backup", details={})
    by = By(actor="radiologist", at=NOW)
    identity_changes.merge(ledger, ("HOSPITAL", "OLD-1"), PATIENT.key, by)
    cohort.write_audit(ledger, at=NOW, actor="me", action="purge", subject="GONE^^^HOSPITAL", details={})
    cohort.write_audit(ledger, at=NOW, actor="me", action="allow_unvalidated", subject="main", details={})
    (row, *_) = [each.row_id for each in patients.find(ledger, PATIENT.patient_id)]
    for name in ("main", "rest"):
        priors.open_lookup(ledger, patient_row=row, pacs=name, held=[], now=NOW)
        lookup = priors.latest_lookup(ledger, row, name)
        assert lookup is not None
        priors.answer_lookup(ledger, lookup, priors.Answer(studies=[], series={}), NOW)
    report(ledger, row)
    cohort.write_audit(ledger, at=NOW, actor="me", action="withdraw", subject=RUN, details={})


def unreadable(ledger: Connection, calling_ae_title: str) -> None:
    """Let a file arrive that nobody can read."""
    arrivals.record(
        ledger,
        arrivals.Arrival(
            sop_instance_uid="2.25.7",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path="unreadable.dcm",
            size_bytes=1,
            calling_ae_title=calling_ae_title,
            default_issuer="HOSPITAL",
            stat=False,
            received_at=NOW,
        ),
    )
    (found,) = arrivals.pending(ledger, 10)
    arrivals.set_aside(ledger, found.arrival_id, ArrivalState.SET_ASIDE, "unreadable")


def report(ledger: Connection, patient_row: int) -> None:
    """Have a report of two objects delivered to one archive, and given up half-way at the other."""
    proposal = a_proposal(RUN, patient_row=patient_row)
    runs.propose(ledger, proposal, NOW)
    runs.record_objects(ledger, RUN, [_object(number, kind) for number, kind in enumerate(("summary", "report"))], NOW)
    deliveries.create(ledger, RUN, ["main", "rest"], NOW)
    for name, taken in (("main", ["2.25.10", "2.25.11"]), ("rest", ["2.25.10"])):
        found = deliveries.get(ledger, RUN, name)
        assert found is not None
        deliveries.begin(ledger, found, ["2.25.10", "2.25.11"])
        deliveries.settle(ledger, found, taken)
        if name == "main":
            deliveries.sent(ledger, found, NOW)
        else:
            deliveries.dead(ledger, found, error="given up")


def _object(number: int, kind: str) -> runs.OutboxObject:
    return runs.OutboxObject(
        position=number,
        kind=kind,
        sop_class_uid=f"1.2.{number}",
        sop_instance_uid=f"2.25.1{number}",
        series_instance_uid=f"2.25.2{number}",
        study_instance_uid="2.25.3",
        path=f"{number}.dcm",
        sha256="0" * 64,
        encoding=1,
    )


def by_event(told: Sequence[Told]) -> dict[str, list[Told]]:
    """Return messages by what they tell of."""
    found: dict[str, list[Told]] = {}
    for each in told:
        found.setdefault(each.event, []).append(each)
    return found
