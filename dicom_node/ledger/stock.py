"""Which received files the ledger promises, and what it notes of one whose bytes are gone or have come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from dicom_node.ledger.patients import touch
from dicom_node.ledger.tables import ArrivalState, arrival, instance, outbox_object

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection

CHUNK: Final = 5000  # rows looked at together
AT_ONCE: Final = 500  # SQLite bounds the variables of one statement
ELSEWHERE: Final = "-only-in-archive.dcm"  # objects of a report that was read back: their bytes never lay here


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedFile:
    """A received file that should lie here; `path` is relative to the instance folder."""

    arrival_id: int
    path: str
    size_bytes: int
    state: ArrivalState


def promised(connection: Connection) -> Iterator[list[PromisedFile]]:
    """Yield every file that did not age out, those noted as lost too, some thousand at a time in order of arrival."""
    after = 0
    while True:
        rows = connection.execute(
            select(arrival.c.id, arrival.c.path, arrival.c.size_bytes, arrival.c.state)
            .where(arrival.c.id > after, arrival.c.state != ArrivalState.AGED_OUT)
            .order_by(arrival.c.id)
            .limit(CHUNK)
        ).all()
        if not rows:
            return
        yield [
            PromisedFile(arrival_id=row.id, path=row.path, size_bytes=row.size_bytes, state=ArrivalState(row.state))
            for row in rows
        ]
        after = rows[-1].id


def states(connection: Connection, paths: Sequence[str]) -> dict[str, ArrivalState]:
    """Return path -> state, of those among these files that have a row."""
    found: dict[str, ArrivalState] = {}
    for start in range(0, len(paths), AT_ONCE):
        query = select(arrival.c.path, arrival.c.state).where(arrival.c.path.in_(paths[start : start + AT_ONCE]))
        found.update({row.path: ArrivalState(row.state) for row in connection.execute(query)})
    return found


def outbox_paths(connection: Connection) -> dict[str, str]:
    """Return path relative to the outbox -> SHA-256, of every encoded object whose bytes lie here."""
    query = select(outbox_object.c.path, outbox_object.c.sha256)
    return {row.path: row.sha256 for row in connection.execute(query) if not row.path.endswith(ELSEWHERE)}


def lose(connection: Connection, files: Collection[tuple[PromisedFile, str]]) -> None:
    """Note files that are not here any more, each with what was found; their patients are decided anew."""
    for each, found in files:
        connection.execute(
            update(arrival)
            .where(arrival.c.id == each.arrival_id, arrival.c.state == each.state)
            .values(state=ArrivalState.LOST, reason=f"{found} (it was {each.state}): send or fetch it again")
        )
        _touch_owner(connection, each)


def take_back(connection: Connection, files: Collection[PromisedFile]) -> None:
    """Note that lost files are here again: what an instance was read from counts as before, the rest is read anew."""
    for each in files:
        is_read = connection.scalar(select(instance.c.patient).where(instance.c.arrival == each.arrival_id)) is not None
        connection.execute(
            update(arrival)
            .where(arrival.c.id == each.arrival_id, arrival.c.state == ArrivalState.LOST)
            .values(state=ArrivalState.INDEXED if is_read else ArrivalState.RECEIVED, reason=None, tries=0)
        )
        _touch_owner(connection, each)


def _touch_owner(connection: Connection, each: PromisedFile) -> None:
    owner = connection.scalar(select(instance.c.patient).where(instance.c.arrival == each.arrival_id))
    if owner is not None:
        touch(connection, owner)
