"""The encodings of a run: whom the header of each names, frozen before its objects are made.

A report stands under the patient as the archive names them. Where an archive corrected them between encoding and
delivery, what was not sent yet is void and made anew as the run's next encoding, under UIDs of its own; so is a report
that nobody got before the one that it names was withdrawn. The run keeps the header values of every encoding that may
be sent, and each delivery the number of the one that it sends or has sent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import exists, select, update

from dicom_node.ledger.tables import DeliveryState, delivery, handed_over, run
from dicom_node.timeline.model import RunState, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

UNSENT: Final = (DeliveryState.PENDING, DeliveryState.RETRYING, DeliveryState.DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demographics:
    """What a header says of patient and order; an empty value is not said."""

    issuer: str
    patient_id: str
    name: str = ""
    birth_date: str = ""
    sex: str = ""
    accession_number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The demographics that the objects of one encoding carry; `asked` maps archives to what came of asking them."""

    demographics: Demographics
    asked: Mapping[str, str] = field(default_factory=dict)


def from_json(text: str | None) -> dict[int, Encoding]:
    """Read the encodings of a run by number, counted from 1."""
    content = json.loads(text) if text else {}
    return {
        int(number): Encoding(demographics=Demographics(**each["demographics"]), asked=each["asked"])
        for number, each in content.items()
    }


def freeze(connection: Connection, run_key: str, number: int, found: Encoding) -> Encoding:
    """Freeze what an encoding's header will say; a second call changes nothing.

    Returns:
        What was frozen first, whatever an archive says meanwhile.
    """
    known = _locked(connection, run_key)
    if number not in known:
        known[number] = found
        _keep(connection, run_key, known)
    return known[number]


def renew(connection: Connection, run_key: str, destination: str, found: Encoding, now: datetime) -> bool:
    """Void what a destination did not get yet, for its archive names the patient otherwise.

    An encoding that names the patient so already is taken; else the next one is opened, every unsent delivery waits for
    it, and the run is queued to make it. A destination that holds a part of a report gets the rest of that one.

    Returns:
        Whether objects have to be made.
    """
    known = _locked(connection, run_key)
    same = [number for number, each in known.items() if each.demographics == found.demographics]
    if same:
        _point(connection, run_key, same[-1], now, destination)
        return False
    number = _open_next(connection, run_key)
    known[number] = found
    _keep(connection, run_key, known)
    _point(connection, run_key, number, now)
    return True


def void(connection: Connection, run_key: str) -> None:
    """Void whatever was encoded of a report of which no archive got anything, and queue the run to make the next.

    None of it is taken again: the archives are asked anew whom the header has to name. An attempt that was about to
    begin finds that its delivery moved on.
    """
    _locked(connection, run_key)
    _keep(connection, run_key, {})
    made = connection.scalar(select(run.c.encoded_at).where(run.c.run_key == run_key)) is not None
    if made:
        number = _open_next(connection, run_key)
        of_run = update(delivery).where(delivery.c.run_key == run_key)
        connection.execute(of_run.values(encoding=number, attempts=delivery.c.attempts + 1))


def _open_next(connection: Connection, run_key: str) -> int:
    """Queue a run to make its next encoding; return its number."""
    number = 1 + (connection.scalar(select(run.c.encoding).where(run.c.run_key == run_key)) or 0)
    queued = {"encoding": number, "state": RunState.QUEUED, "encoded_at": None, "error": None}
    connection.execute(update(run).where(run.c.run_key == run_key).values(**queued))
    return number


def _locked(connection: Connection, run_key: str) -> dict[int, Encoding]:
    """Read the encodings; two deliveries of one report may be at work at the same moment."""
    return from_json(connection.scalar(select(run.c.demographics).where(run.c.run_key == run_key).with_for_update()))


def _keep(connection: Connection, run_key: str, encodings: Mapping[int, Encoding]) -> None:
    content = {
        str(number): {"demographics": asdict(each.demographics), "asked": dict(each.asked)}
        for number, each in encodings.items()
    }
    connection.execute(update(run).where(run.c.run_key == run_key).values(demographics=canonical_json(content)))


def _point(connection: Connection, run_key: str, number: int, now: datetime, destination: str | None = None) -> None:
    """Let the unsent deliveries of a run, or the one to a destination, send this encoding, from now on."""
    begun = exists().where(handed_over.c.run_key == run_key, handed_over.c.destination == delivery.c.destination)
    query = update(delivery).where(delivery.c.run_key == run_key, delivery.c.state.in_(UNSENT), ~begun)
    if destination is not None:
        query = query.where(delivery.c.destination == destination)
    connection.execute(query.values(encoding=number, next_attempt_at=now))
