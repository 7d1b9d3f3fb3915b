"""Who is there: heartbeats of the executors, and callers that were refused."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, insert, or_, select, update

from dicom_node.ledger.tables import executor, refusal

if TYPE_CHECKING:
    from sqlalchemy import Connection

RECEIVING: Final = ("node", "listener")  # roles of processes that listen, as their executor ids name them
OTHERS: Final = "(others)"
MOST_REFUSALS: Final = 1000  # rows
FAILED_LOGIN: Final = "failed-login"  # the reason where somebody was refused at the status page


def beat(connection: Connection, executor_id: str, now: datetime) -> None:
    """Note that an executor is alive."""
    changed = connection.execute(update(executor).where(executor.c.executor_id == executor_id).values(last_seen=now))
    if changed.rowcount == 0:
        connection.execute(insert(executor).values(executor_id=executor_id, last_seen=now))


def silent_since(connection: Connection, before: datetime) -> list[str]:
    """Return executors not heard of since then."""
    query = select(executor.c.executor_id).where(executor.c.last_seen < before)
    return list(connection.scalars(query.order_by(executor.c.executor_id)))


def last_seen(connection: Connection, executor_id: str) -> datetime | None:
    """Return when this executor, or another one that receives, was last heard of; None: never."""
    name = executor.c.executor_id
    receiving = or_(name == executor_id, *[name.contains(f":{role}:") for role in RECEIVING])
    found: datetime | None = connection.scalar(select(func.max(executor.c.last_seen)).where(receiving))
    return found


def forget(connection: Connection, executor_id: str) -> None:
    """Drop an executor whose work was handed on; it announces itself when it comes back."""
    connection.execute(delete(executor).where(executor.c.executor_id == executor_id))


def refused(connection: Connection, *, calling_ae_title: str, address: str, reason: str, now: datetime) -> None:
    """Count a refused association by who called, from where, and why.

    Whoever calls chooses the title, so there is an end to rows: whoever comes then is counted with all others.
    """
    if _counted(connection, calling_ae_title, address, reason, now):
        return
    if (connection.scalar(select(func.count()).select_from(refusal)) or 0) >= MOST_REFUSALS:
        calling_ae_title, address = OTHERS, ""
        if _counted(connection, calling_ae_title, address, reason, now):
            return
    values = {"calling_ae_title": calling_ae_title, "address": address, "reason": reason}
    connection.execute(insert(refusal).values(**values, count=1, last_at=now))


def _counted(connection: Connection, title: str, address: str, reason: str, now: datetime) -> bool:
    """Count one more of a caller, and say whether there is a row of it."""
    key = (refusal.c.calling_ae_title == title) & (refusal.c.address == address) & (refusal.c.reason == reason)
    changed = connection.execute(update(refusal).where(key).values(count=refusal.c.count + 1, last_at=now))
    return bool(changed.rowcount)


def refusals(connection: Connection) -> list[dict[str, object]]:
    """Return refused callers, the latest first."""
    query = select(refusal).order_by(refusal.c.last_at.desc())
    return [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001 - public row mapping
