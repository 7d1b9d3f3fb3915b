"""Who tells in the audit trail, and what a told fact is: the name of the node and of archives, processes, alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import and_

from dicom_node.observe import audit_messages as told
from dicom_node.observe.audit_messages import Action, Event, Message, Outcome, Participant, Role

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement

    from dicom_node.settings import Settings

Positions: TypeAlias = Mapping[str, float]
SETTLED: Final = timedelta(seconds=10)  # PostgreSQL gives row numbers before the commit: by then it is over
AHEAD: Final = timedelta(minutes=1)  # what lies further ahead was written before the clock was set back


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One message and the name of the fact it tells; the same fact has the same name at every look."""

    key: str
    message: Message


@dataclass(slots=True)
class Collected:
    """What one look found, and how far everything will have been told with it."""

    facts: list[Fact] = field(default_factory=list)
    positions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Teller:
    """The node, as its messages name it."""

    settings: Settings
    host: str

    def ourselves(self, role: told.Code | None = None, *, requestor: bool = False) -> Participant:
        """Name this node."""
        return Participant(
            user="dicom-node", ae_title=self.settings.node.ae_title, host=self.host, role=role, requestor=requestor
        )

    def activity(self, role: str, kind: told.Code, now: datetime) -> Message:
        """Tell that a process of the node began or ended (A.5.3.1)."""
        process = Participant(
            user=f"dicom-node {role}",
            ae_title=self.settings.node.ae_title,
            host=self.host,
            role=Role.APPLICATION,
            requestor=False,
        )
        return Message(
            event=Event.APPLICATION_ACTIVITY, type=kind, action=Action.EXECUTE, at=now, participants=[process]
        )

    def alert(
        self,
        kind: told.Code,
        description: str,
        now: datetime,
        *,
        about: str = "",
        outcome: Outcome = Outcome.MINOR_FAILURE,
    ) -> Message:
        """Tell of something that concerns security; success makes it an information (A.5.3.11)."""
        return Message(
            event=Event.SECURITY_ALERT,
            type=kind,
            action=Action.EXECUTE,
            at=now,
            outcome=outcome,
            outcome_text=description,
            participants=[self.ourselves(requestor=True)],
            objects=[told.alert_subject(about or self.host, description)],
        )

    def archive(self, name: str, role: told.Code) -> Participant:
        """Name an archive of the configuration."""
        pacs = next((each for each in self.settings.pacs if each.name == name), None)
        dimse = pacs.dimse if pacs is not None else None
        return Participant(
            user=name,
            ae_title=dimse.ae_title if dimse else "",
            host=dimse.host if dimse else "",
            role=role,
            requestor=False,
        )


def is_unsettled(at: datetime, now: datetime) -> bool:
    """Say whether a row with a smaller number than one of this time may still be on its way."""
    return now - SETTLED < at <= now + AHEAD


def unsettled(at: Column[datetime], now: datetime) -> ColumnElement[bool]:
    """Say the same in SQL."""
    return and_(at > now - SETTLED, at <= now + AHEAD)
