"""What archives were asked about a patient's older studies, and what they told: questions, studies, counts.

A *lookup* is one question to one archive about one patient; it is tried until it is answered or given up, and stays as
the record of what was asked and told. The series to fetch are in `dicom_node.ledger.prior_series`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from dicom_node.ledger import prior_series as prior_series_rows
from dicom_node.ledger.prior_series import Verdict
from dicom_node.ledger.tables import LookupState, PriorState, prior_lookup, prior_series, prior_study

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Row

# Of a found study these say that its series were asked for; one merely held or refused was not looked into.
LOOKED_INTO = (PriorState.WANTED, PriorState.FETCHED, PriorState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One question to one archive; `held` are the studies that were complete here when it was opened."""

    lookup_id: int
    patient_row: int
    pacs: str
    state: LookupState
    opened_at: datetime
    attempts: int
    next_attempt_at: datetime
    finished_at: datetime | None
    held: frozenset[str]
    found: int
    wanted: int
    refused: int
    error: str  # of the latest attempt, or what was odd about the answer; empty: nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorStudy:
    """A study that an archive told us of, and what became of it."""

    study_instance_uid: str
    day: date | None
    state: PriorState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an archive answered, judged: the patient's studies, the series of those looked into, and the rest."""

    studies: Sequence[PriorStudy]
    series: Mapping[str, Sequence[Verdict]]  # by Study Instance UID
    foreign: int = 0  # answers about another patient, or without a legal UID


def open_lookup(connection: Connection, *, patient_row: int, pacs: str, held: Collection[str], now: datetime) -> None:
    """Open a question, due at once."""
    connection.execute(
        insert(prior_lookup).values(
            patient=patient_row,
            pacs=pacs,
            state=LookupState.OPEN,
            opened_at=now,
            attempts=0,
            next_attempt_at=now,
            held=json.dumps(sorted(held)),
            found=0,
            wanted=0,
            refused=0,
        )
    )


def get_lookup(connection: Connection, lookup_id: int) -> Lookup | None:
    """Return one question."""
    row = connection.execute(select(prior_lookup).where(prior_lookup.c.id == lookup_id)).one_or_none()
    return None if row is None else _lookup(row)


def latest_lookup(connection: Connection, patient_row: int, pacs: str) -> Lookup | None:
    """Return the newest question to an archive about a patient, None if it was never asked."""
    query = (
        select(prior_lookup)
        .where(prior_lookup.c.patient == patient_row, prior_lookup.c.pacs == pacs)
        .order_by(prior_lookup.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _lookup(row)


def due_lookups(connection: Connection, pacs: str, now: datetime, limit: int) -> list[Lookup]:
    """Return open questions to an archive whose time has come; the order keeps those already being asked in front."""
    query = (
        select(prior_lookup)
        .where(
            prior_lookup.c.state == LookupState.OPEN,
            prior_lookup.c.pacs == pacs,
            prior_lookup.c.next_attempt_at <= now,
        )
        .order_by(prior_lookup.c.next_attempt_at, prior_lookup.c.id)
        .limit(limit)
    )
    return [_lookup(row) for row in connection.execute(query)]


def retry_lookup(connection: Connection, found: Lookup, *, error: str, next_attempt_at: datetime) -> None:
    """Note an attempt that brought no answer, and when to ask again."""
    _change(connection, found, attempts=found.attempts + 1, error=error, next_attempt_at=next_attempt_at)


def fail_lookup(connection: Connection, found: Lookup, *, error: str, now: datetime) -> None:
    """Give a question up."""
    _change(connection, found, state=LookupState.FAILED, attempts=found.attempts + 1, error=error, finished_at=now)


def answer_lookup(connection: Connection, found: Lookup, answer: Answer, now: datetime) -> None:
    """Note an answer. What is about others is counted and not kept: it would stand under the wrong patient."""
    for study in answer.studies:
        _put_study(connection, found, study)
        for verdict in answer.series.get(study.study_instance_uid, ()):
            prior_series_rows.put(connection, found, verdict, now)
        settle_study(connection, found.pacs, study.study_instance_uid)
    query = select(prior_study.c.state).where(prior_study.c.lookup == found.lookup_id)
    states = connection.scalars(query).all()
    odd = f"{answer.foreign} answers were about another patient or named no legal UID"
    _change(
        connection,
        found,
        state=LookupState.DONE,
        attempts=found.attempts + 1,
        finished_at=now,
        found=len(states),
        wanted=states.count(PriorState.WANTED),
        refused=states.count(PriorState.REFUSED) + answer.foreign,
        error=odd if answer.foreign else None,
    )


def studies_of(connection: Connection, patient_row: int, pacs: str) -> list[PriorStudy]:
    """Return what an archive has told of a patient, the oldest study first."""
    query = (
        select(prior_study)
        .where(prior_study.c.patient == patient_row, prior_study.c.pacs == pacs)
        .order_by(prior_study.c.day, prior_study.c.study_instance_uid)
    )
    return [
        PriorStudy(
            study_instance_uid=row.study_instance_uid, day=row.day, state=PriorState(row.state), reason=row.reason
        )
        for row in connection.execute(query)
    ]


def settle_study(connection: Connection, pacs: str, study_instance_uid: str) -> None:
    """Let a study's state follow from those of its series: still wanted, failed, fetched, else as it was."""
    query = select(prior_series.c.state, prior_series.c.reason).where(
        prior_series.c.pacs == pacs, prior_series.c.study_instance_uid == study_instance_uid
    )
    reasons = {PriorState(row.state): row.reason for row in connection.execute(query)}
    for state in (PriorState.WANTED, PriorState.FAILED, PriorState.FETCHED, PriorState.HELD, PriorState.REFUSED):
        if state in reasons:
            connection.execute(
                update(prior_study)
                .where(prior_study.c.pacs == pacs, prior_study.c.study_instance_uid == study_instance_uid)
                .values(state=state, reason=reasons[state])
            )
            return


def instance_counts(connection: Connection, patient_row: int) -> dict[str, int]:
    """Return series UID -> how many instances an archive says it holds, the largest number where several say."""
    query = (
        select(prior_series.c.series_instance_uid, func.max(prior_series.c.instances))
        .where(prior_series.c.patient == patient_row, prior_series.c.instances.is_not(None))
        .group_by(prior_series.c.series_instance_uid)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def summary(connection: Connection, patient_row: int) -> list[dict[str, Any]]:
    """Return per archive what was asked, found, fetched and refused about a patient, for people to read."""
    asked = connection.scalars(
        select(prior_lookup.c.pacs).where(prior_lookup.c.patient == patient_row).distinct().order_by("pacs")
    ).all()
    return [_summary_of(connection, patient_row, pacs) for pacs in asked]


def _summary_of(connection: Connection, patient_row: int, pacs: str) -> dict[str, Any]:
    latest = latest_lookup(connection, patient_row, pacs)
    assert latest is not None  # noqa: S101 - the name was read from this patient's lookups
    query = (
        select(prior_series)
        .where(prior_series.c.patient == patient_row, prior_series.c.pacs == pacs)
        .order_by(prior_series.c.study_instance_uid, prior_series.c.series_instance_uid)
    )
    series: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.execute(query):
        series[row.study_instance_uid].append(
            {
                "series_instance_uid": row.series_instance_uid,
                "state": row.state,
                "reason": row.reason,
                "instances": row.instances,
                "fetched": row.fetched,
                "method": row.method,
                "attempts": row.attempts,
            }
        )
    return {
        "pacs": pacs,
        "state": latest.state.value,
        "asked_at": (latest.finished_at or latest.opened_at).isoformat(),
        "attempts": latest.attempts,
        "found": latest.found,
        "wanted": latest.wanted,
        "refused": latest.refused,
        "error": latest.error,
        "studies": [
            {
                "study_instance_uid": each.study_instance_uid,
                "day": each.day.isoformat() if each.day else None,
                "state": each.state.value,
                "reason": each.reason,
                "series": series.get(each.study_instance_uid, []),
            }
            for each in studies_of(connection, patient_row, pacs)
        ],
    }


def _put_study(connection: Connection, found: Lookup, each: PriorStudy) -> None:
    key = (prior_study.c.pacs == found.pacs) & (prior_study.c.study_instance_uid == each.study_instance_uid)
    values = {
        "patient": found.patient_row,
        "lookup": found.lookup_id,
        "day": each.day,
        "state": each.state,
        "reason": each.reason,
    }
    if connection.execute(update(prior_study).where(key).values(**values)).rowcount == 0:
        connection.execute(
            insert(prior_study).values(pacs=found.pacs, study_instance_uid=each.study_instance_uid, **values)
        )


def _lookup(row: Row[Any]) -> Lookup:
    return Lookup(
        lookup_id=row.id,
        patient_row=row.patient,
        pacs=row.pacs,
        state=LookupState(row.state),
        opened_at=row.opened_at,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        finished_at=row.finished_at,
        held=frozenset(json.loads(row.held)),
        found=row.found,
        wanted=row.wanted,
        refused=row.refused,
        error=row.error or "",
    )


def _change(connection: Connection, lookup: Lookup, **values: object) -> None:
    connection.execute(update(prior_lookup).where(prior_lookup.c.id == lookup.lookup_id).values(**values))
