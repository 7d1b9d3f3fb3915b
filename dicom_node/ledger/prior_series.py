"""The series of older studies: which an archive told us of, which are to be fetched, and how far each is.

A fetch is tried until the ledger holds what was promised, or given up; every end has its reason. `attempts` and
`first_attempt_at` count from the moment a series was last wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, insert, select, update

from dicom_node.ledger.tables import PriorState, prior_series, prior_study

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from dicom_node.ledger.priors import Lookup

REST: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to become of a series that an archive told us of."""

    study_instance_uid: str
    series_instance_uid: str
    state: PriorState
    reason: str = ""
    instances: int | None = None  # that the archive says it holds


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorSeries:
    """A series that an archive told us of, and how far its fetching is."""

    pacs: str
    series_instance_uid: str
    study_instance_uid: str
    patient_row: int
    instances: int | None
    state: PriorState
    attempts: int
    next_attempt_at: datetime
    first_attempt_at: datetime | None
    started_at: datetime | None
    fetched: int

    @property
    def in_flight(self) -> bool:
        """Whether an attempt has begun and not ended."""
        return self.started_at is not None and self.started_at >= self.next_attempt_at


def put(connection: Connection, lookup: Lookup, verdict: Verdict, now: datetime) -> PriorState:
    """Note what is to become of a series, unless what was done already says otherwise; return what it is now."""
    known = get(connection, lookup.pacs, verdict.series_instance_uid)
    state = verdict.state if known is None else _after_all(known, verdict)
    values: dict[str, Any] = {
        "study_instance_uid": verdict.study_instance_uid,
        "patient": lookup.patient_row,
        "lookup": lookup.lookup_id,
        "instances": verdict.instances,
        "state": state,
    }
    if known is None:
        fresh = {"reason": verdict.reason, "attempts": 0, "next_attempt_at": now, "fetched": 0}
        connection.execute(
            insert(prior_series).values(
                pacs=lookup.pacs, series_instance_uid=verdict.series_instance_uid, **values, **fresh
            )
        )
    elif state is PriorState.WANTED and known.state is not PriorState.WANTED:
        again = {"reason": "", "attempts": 0, "first_attempt_at": None, "next_attempt_at": now}
        _change(connection, known, **values, **again)
    elif state is verdict.state and state is not PriorState.WANTED:
        _change(connection, known, **values, reason=verdict.reason)
    else:
        _change(connection, known, **values)
    return state


def want_again(connection: Connection, patient_row: int, series_instance_uid: str, now: datetime) -> bool:
    """Have a series fetched once more, as when its images were deleted and are needed.

    What ended within the last hour is left alone, so that a series that cannot be had is not asked for without pause.

    Returns:
        Whether an archive is known to hold it; if not, only a new lookup can tell.
    """
    query = select(prior_series).where(
        prior_series.c.patient == patient_row,
        prior_series.c.series_instance_uid == series_instance_uid,
        prior_series.c.state != PriorState.REFUSED,
    )
    row = connection.execute(query.order_by(prior_series.c.pacs).limit(1)).one_or_none()
    if row is None:
        return False
    rested = row.finished_at is None or now - row.finished_at >= REST
    if row.state != PriorState.WANTED and rested:
        again = {"attempts": 0, "first_attempt_at": None, "next_attempt_at": now, "fetched": 0, "reason": ""}
        _change(connection, _series(row), state=PriorState.WANTED, **again)
    return True


def get(connection: Connection, pacs: str, series_instance_uid: str) -> PriorSeries | None:
    """Return one series."""
    query = select(prior_series).where(
        prior_series.c.pacs == pacs, prior_series.c.series_instance_uid == series_instance_uid
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _series(row)


def due_series(connection: Connection, pacs: str, now: datetime, limit: int) -> list[PriorSeries]:
    """Return wanted series whose time has come, of the newest study first; those in flight stay in front."""
    query = (
        select(prior_series)
        .outerjoin(
            prior_study,
            (prior_study.c.pacs == prior_series.c.pacs)
            & (prior_study.c.study_instance_uid == prior_series.c.study_instance_uid),
        )
        .where(
            prior_series.c.state == PriorState.WANTED,
            prior_series.c.pacs == pacs,
            prior_series.c.next_attempt_at <= now,
        )
        .order_by(prior_series.c.next_attempt_at, prior_study.c.day.desc(), prior_series.c.series_instance_uid)
        .limit(limit)
    )
    return [_series(row) for row in connection.execute(query)]


def started_since(connection: Connection, pacs: str, since: datetime) -> int:
    """Count the series of an archive whose latest attempt began after a moment."""
    query = select(func.count()).where(prior_series.c.pacs == pacs, prior_series.c.started_at > since)
    return connection.scalar(query) or 0


def wanted_of(connection: Connection, patient_row: int, pacs: str) -> list[PriorSeries]:
    """Return the series of a patient that are still to come from an archive."""
    query = select(prior_series).where(
        prior_series.c.patient == patient_row, prior_series.c.pacs == pacs, prior_series.c.state == PriorState.WANTED
    )
    return [_series(row) for row in connection.execute(query)]


def is_fetching(connection: Connection, pacs: str) -> bool:
    """Say whether an attempt to fetch some series from an archive has begun and not ended."""
    query = select(func.count()).where(
        prior_series.c.pacs == pacs,
        prior_series.c.state == PriorState.WANTED,
        prior_series.c.started_at >= prior_series.c.next_attempt_at,
    )
    return bool(connection.scalar(query))


def begin(connection: Connection, found: PriorSeries, now: datetime) -> None:
    """Note that an attempt begins."""
    _change(connection, found, started_at=now, first_attempt_at=found.first_attempt_at or now)


def retry(connection: Connection, found: PriorSeries, *, fetched: int, reason: str, next_attempt_at: datetime) -> None:
    """Note an attempt that did not bring everything, and when to try again."""
    _change(
        connection,
        found,
        attempts=found.attempts + 1,
        fetched=max(found.fetched, fetched),
        reason=reason,
        next_attempt_at=next_attempt_at,
    )


def end(
    connection: Connection,
    found: PriorSeries,
    state: PriorState,
    *,
    fetched: int,
    reason: str,
    method: str | None,
    now: datetime,
) -> None:
    """Note how the fetching of a series ended."""
    _change(
        connection,
        found,
        state=state,
        attempts=found.attempts + 1,
        fetched=max(found.fetched, fetched),
        reason=reason,
        method=method,
        finished_at=now,
    )


def _after_all(known: PriorSeries, verdict: Verdict) -> PriorState:
    """Keep a series from being fetched in a circle.

    What was fetched whole stays fetched, even if none of it became an input; what was refused after an attempt brought
    another patient's images stays refused.
    """
    if verdict.state is PriorState.WANTED:
        if known.state is PriorState.FETCHED and known.fetched >= (verdict.instances or 0):
            return PriorState.FETCHED
        if known.state is PriorState.REFUSED and known.attempts > 0:
            return PriorState.REFUSED
    if verdict.state is PriorState.HELD and known.state is PriorState.FETCHED:
        return PriorState.FETCHED
    return verdict.state


def _series(row: Row[Any]) -> PriorSeries:
    return PriorSeries(
        pacs=row.pacs,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        patient_row=row.patient,
        instances=row.instances,
        state=PriorState(row.state),
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        first_attempt_at=row.first_attempt_at,
        started_at=row.started_at,
        fetched=row.fetched,
    )


def _change(connection: Connection, found: PriorSeries, **values: object) -> None:
    connection.execute(
        update(prior_series)
        .where(prior_series.c.pacs == found.pacs, prior_series.c.series_instance_uid == found.series_instance_uid)
        .values(**values)
    )
