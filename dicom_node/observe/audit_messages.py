"""DICOM audit messages: what happened, by whom, to what, as the XML of PS3.15 A.5. Pure: values in, text out.

A message holds PatientIDs with their issuers, Study Instance UIDs, AE titles and the names of users; never a patient's
name, date of birth, or a description. Every text may come from a peer, so what XML cannot hold is replaced.

Source: PS3.15 A.5.1 (schema), A.5.3 (messages), PS3.16 CID 400 to 405 (codes).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET

_NOT_XML = re.compile("[^\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2, without line ends
LONGEST_TEXT: Final = 256


class Code(NamedTuple):
    """A coded value: code, its scheme, and its meaning."""

    value: str
    meaning: str
    scheme: str = "DCM"


class Event:
    """What happened: CID 400."""

    APPLICATION_ACTIVITY: Final = Code("110100", "Application Activity")
    INSTANCES_TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
    DATA_IMPORT: Final = Code("110107", "Import")
    PATIENT_RECORD: Final = Code("110110", "Patient Record")
    QUERY: Final = Code("110112", "Query")
    SECURITY_ALERT: Final = Code("110113", "Security Alert")
    USER_AUTHENTICATION: Final = Code("110114", "User Authentication")


class EventType:
    """What kind of it: CID 401."""

    APPLICATION_START: Final = Code("110120", "Application Start")
    APPLICATION_STOP: Final = Code("110121", "Application Stop")
    LOGIN: Final = Code("110122", "Login")
    NODE_AUTHENTICATION: Final = Code("110126", "Node Authentication")
    SECURITY_CONFIGURATION: Final = Code("110129", "Security Configuration")
    AUDIT_RECORDING_STOPPED: Final = Code("110133", "Audit Recording Stopped")
    USE_OF_RESTRICTED_FUNCTION: Final = Code("110132", "Use of Restricted Function")


class Role:
    """What somebody does in it: CID 402."""

    APPLICATION: Final = Code("110150", "Application")
    DESTINATION: Final = Code("110152", "Destination Role ID")
    SOURCE: Final = Code("110153", "Source Role ID")
    SOURCE_MEDIA: Final = Code("110155", "Source Media")


class IdType:
    """What an object is named by: CID 404, and the numbers of RFC 3881 5.5.4."""

    STUDY: Final = Code("110180", "Study Instance UID")
    SOP_CLASS: Final = Code("110181", "SOP Class UID")
    NODE: Final = Code("110182", "Node ID")
    PATIENT: Final = Code("2", "Patient Number", "RFC-3881")
    URI: Final = Code("12", "URI", "RFC-3881")


MEDIA_URI: Final = Code("110037", "URI")  # CID 405: files that lie somewhere


class Action(StrEnum):
    """EventActionCode, PS3.15 A.5.1."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(StrEnum):
    """EventOutcomeIndicator, PS3.15 A.5.1."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Somebody who took part: a process, a system or a person; `address` is an IP address, `host` a name."""

    user: str
    requestor: bool
    role: Code | None = None
    ae_title: str = ""
    address: str = ""
    host: str = ""
    media: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerned:
    """An object that it happened to. Exactly one of `name` (which may be empty) and `query` stands in the message."""

    id: str
    id_type: Code
    type: str  # ParticipantObjectTypeCode: 1 person, 2 system object
    role: str  # ParticipantObjectTypeCodeRole: 1 patient, 3 report, 13 security resource
    name: str = ""
    query: bytes | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    sop_classes: Mapping[str, int] = field(default_factory=dict)  # SOP Class UID -> instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One audit message."""

    event: Code
    action: Action
    at: datetime
    participants: Sequence[Participant]
    type: Code | None = None
    outcome: Outcome = Outcome.SUCCESS
    outcome_text: str = ""
    objects: Sequence[Concerned] = ()

    @property
    def is_warning(self) -> bool:
        """Whether it tells of something that should not have happened."""
        return self.outcome is not Outcome.SUCCESS


def patient(issuer: str, patient_id: str, **details: str) -> Concerned:
    """Name a patient, as an HL7 CX says it."""
    name = f"{patient_id}^^^{issuer}" if issuer else patient_id
    return Concerned(id=name, id_type=IdType.PATIENT, type="1", role="1", details=details)


def study(study_instance_uid: str, sop_classes: Mapping[str, int]) -> Concerned:
    """Name a study and how many instances of which SOP classes it was about."""
    return Concerned(id=study_instance_uid, id_type=IdType.STUDY, type="2", role="3", sop_classes=sop_classes)


def alert_subject(node: str, description: str) -> Concerned:
    """Name the node that an alert is about, and say in words what it is (A.5.3.11)."""
    details = {"Alert Description": description}
    return Concerned(id=node, id_type=IdType.NODE, type="2", role="13", details=details)


def to_xml(message: Message, *, source: str, site: str | None) -> str:
    """Write a message as XML on one line.

    Args:
        message: what happened.
        source: AuditSourceID, who tells.
        site: AuditEnterpriseSiteID, None: not given.
    """
    root = ET.Element("AuditMessage")
    _event(root, message)
    for each in message.participants:
        _participant(root, each)
    told_by = {"AuditSourceID": source} | ({"AuditEnterpriseSiteID": site} if site else {})
    teller = ET.SubElement(root, "AuditSourceIdentification", _clean(told_by))
    ET.SubElement(teller, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process, A.5.1.2.1
    for concerned in message.objects:
        _object(root, concerned)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(root, encoding="unicode")


def _event(root: ET.Element, message: Message) -> None:
    found = ET.SubElement(
        root,
        "EventIdentification",
        {
            "EventActionCode": message.action,
            "EventDateTime": message.at.isoformat(timespec="milliseconds"),
            "EventOutcomeIndicator": message.outcome,
        },
    )
    _code(found, "EventID", message.event)
    if message.type is not None:
        _code(found, "EventTypeCode", message.type)
    if message.outcome_text:
        ET.SubElement(found, "EventOutcomeDescription").text = clean(message.outcome_text)


def _participant(root: ET.Element, found: Participant) -> None:
    attributes = {"UserID": found.user, "UserIsRequestor": str(found.requestor).lower()}
    if found.ae_title:
        attributes["AlternativeUserID"] = f"AETITLES={found.ae_title}"
    if found.address or found.host:
        attributes["NetworkAccessPointID"] = found.address or found.host
        attributes["NetworkAccessPointTypeCode"] = "2" if found.address else "1"
    element = ET.SubElement(root, "ActiveParticipant", _clean(attributes))
    if found.role is not None:
        _code(element, "RoleIDCode", found.role)
    if found.media is not None:
        _code(ET.SubElement(element, "MediaIdentifier"), "MediaType", found.media)


def _object(root: ET.Element, found: Concerned) -> None:
    attributes = {
        "ParticipantObjectID": found.id,
        "ParticipantObjectTypeCode": found.type,
        "ParticipantObjectTypeCodeRole": found.role,
    }
    element = ET.SubElement(root, "ParticipantObjectIdentification", _clean(attributes))
    _code(element, "ParticipantObjectIDTypeCode", found.id_type)
    if found.query is None:
        ET.SubElement(element, "ParticipantObjectName").text = clean(found.name)
    else:
        ET.SubElement(element, "ParticipantObjectQuery").text = base64.b64encode(found.query).decode("ascii")
    for kind, value in found.details.items():
        encoded = base64.b64encode(value.encode()).decode("ascii")
        ET.SubElement(element, "ParticipantObjectDetail", {"type": kind, "value": encoded})
    if found.sop_classes:
        description = ET.SubElement(element, "ParticipantObjectDescription")
        for uid, count in sorted(found.sop_classes.items()):
            ET.SubElement(description, "SOPClass", _clean({"UID": uid, "NumberOfInstances": str(count)}))


def _code(parent: ET.Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    ET.SubElement(parent, name, attributes)


def _clean(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: clean(value) for name, value in attributes.items()}


def clean(text: str) -> str:
    """Replace what XML cannot hold, and cut what is longer than any name of anything."""
    return _NOT_XML.sub("?", text)[:LONGEST_TEXT]
