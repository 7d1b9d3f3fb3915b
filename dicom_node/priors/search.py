"""When archives are asked about a patient, how far that is, and which questions and retrievals are due.

One rule opens a question: a study is complete here of which the archive was not told when it was last asked. It covers
the first question, asks for the archive's instance counts of every new study, and cannot turn in a circle, since what
was fetched is known. While a case waits, the question is asked again when `ask_again_after_s` is over.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.ledger import identity, patients, prior_series, priors
from dicom_node.ledger.tables import LookupState, PriorState
from dicom_node.timeline.decision import PriorsState
from dicom_node.timeline.identity import is_safe_in_query

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from dicom_node.ledger.prior_series import PriorSeries
    from dicom_node.ledger.priors import Lookup, PriorStudy
    from dicom_node.settings import Pacs, Settings

LOOKUP: Final = "lookup"
FETCH: Final = "fetch"
HOUR: Final = timedelta(hours=1)
UNSAFE: Final = "the PatientID holds a wild card or a backslash, so that no archive is asked for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """How far one archive is with one patient."""

    pacs: Pacs
    latest: Lookup | None
    to_be_asked: bool
    studies: list[PriorStudy]
    wanted: list[PriorSeries]

    @property
    def open_since(self) -> datetime | None:
        """When what is open began, None if nothing is; a question not yet opened counts from its opening."""
        if self.latest is not None and (self.latest.state is LookupState.OPEN or self.wanted):
            return self.latest.finished_at or self.latest.opened_at
        return None

    @property
    def is_open(self) -> bool:
        """Whether anything is still to be heard or fetched."""
        return self.to_be_asked or self.open_since is not None

    @property
    def has_failed(self) -> bool:
        """Whether the archive could not be asked, or something wanted could not be fetched."""
        unasked = self.latest is not None and self.latest.state is LookupState.FAILED
        return unasked or any(each.state is PriorState.FAILED for each in self.studies)

    @property
    def next_look_at(self) -> datetime | None:
        """When the question may be asked again without news; None while something is open."""
        if self.is_open or self.latest is None or self.latest.finished_at is None:
            return None
        return self.latest.finished_at + timedelta(seconds=self.pacs.priors.ask_again_after_s)


def look(
    ledger: Connection, patient_row: int, *, settings: Settings, held_studies: Collection[str], now: datetime
) -> PriorsState:
    """Say how far the search for a patient's older studies is.

    Args:
        ledger: a transaction.
        patient_row: the patient, as survived merges.
        settings: the node's.
        held_studies: the Study Instance UIDs of which instances are held.
        now: the site's time.
    """
    found = [
        _standing(ledger, patient_row, pacs, _settled(ledger, patient_row, held_studies, settings, now))
        for pacs in _askable(ledger, patient_row, settings)
    ]
    told = [each for each in found if each.latest is not None or each.to_be_asked]
    lines = [(f"{each.pacs.name}: " if len(told) > 1 else "") + _line(each, now) for each in told]
    if has_unsafe_id(ledger, patient_row, settings):
        lines.append(f"prior lookup: {UNSAFE}")
    return PriorsState(
        open=any(each.is_open for each in found),
        failed=any(each.has_failed for each in found),
        since=min((each.open_since or now for each in found if each.is_open), default=None),
        next_look_at=min((each.next_look_at for each in found if each.next_look_at is not None), default=None),
        text="; ".join(lines),
    )


def ensure(
    ledger: Connection,
    patient_row: int,
    *,
    settings: Settings,
    held_studies: Collection[str],
    waiting: bool,
    now: datetime,
) -> None:
    """Open the questions that are due about a patient; `waiting` says that a case of theirs waits for something."""
    settled = _settled(ledger, patient_row, held_studies, settings, now)
    for pacs in _askable(ledger, patient_row, settings):
        standing = _standing(ledger, patient_row, pacs, settled)
        again_at = standing.next_look_at
        over = again_at is not None and again_at <= now and not standing.is_open
        if standing.to_be_asked or (waiting and over):
            priors.open_lookup(ledger, patient_row=patient_row, pacs=pacs.name, held=settled, now=now)


def settles_at(ledger: Connection, patient_row: int, *, settings: Settings, now: datetime) -> datetime | None:
    """Return when the next study of a patient will have been quiet for long enough to ask archives about it."""
    if not _askable(ledger, patient_row, settings):
        return None
    quiet = timedelta(seconds=settings.receive.quiet_period_s)
    times = (each.clock.last_received_at + quiet for each in patients.receptions(ledger, patient_row).values())
    return min((at for at in times if at > now), default=None)


def due(ledger: Connection, *, settings: Settings, now: datetime) -> list[tuple[str, str]]:
    """Return (kind, key) of the jobs to be done now, within each archive's limits; the kinds are "lookup" and "fetch".

    A job that is at work stays in the list until its attempt is written down, so that a lost one is found again.
    """
    jobs: list[tuple[str, str]] = []
    for pacs in settings.pacs:
        if not pacs.priors.methods:
            continue
        questions = priors.due_lookups(ledger, pacs.name, now, pacs.priors.max_concurrent)
        jobs += [(LOOKUP, lookup_key(each)) for each in questions]
        jobs += [(FETCH, fetch_key(each)) for each in _due_series(ledger, pacs, now)]
    return jobs


def lookup_key(lookup: Lookup) -> str:
    """Return the key of the next attempt of a question."""
    return f"{LOOKUP}/{lookup.lookup_id}/{lookup.attempts + 1}"


def fetch_key(series: PriorSeries) -> str:
    """Return the key of the next attempt to fetch a series."""
    return f"{FETCH}/{series.pacs}/{series.series_instance_uid}/{series.attempts + 1}"


def ids_to_ask(ledger: Connection, patient_row: int, pacs: Pacs) -> list[str]:
    """Return the PatientIDs under which an archive may know a patient: those of its issuer, safe in a query."""
    known = identity.ids_of(ledger, patient_row)
    return [
        patient_id for issuer, patient_id in known if issuer == pacs.default_issuer and is_safe_in_query(patient_id)
    ]


def has_unsafe_id(ledger: Connection, patient_row: int, settings: Settings) -> bool:
    """Say whether an archive would be asked about a patient, were the ID not dangerous in a query."""
    issuers = {pacs.default_issuer for pacs in settings.pacs if pacs.priors.methods}
    known = identity.ids_of(ledger, patient_row) if issuers else []
    return any(issuer in issuers and not is_safe_in_query(patient_id) for issuer, patient_id in known)


def _askable(ledger: Connection, patient_row: int, settings: Settings) -> list[Pacs]:
    return [pacs for pacs in settings.pacs if pacs.priors.methods and ids_to_ask(ledger, patient_row, pacs)]


def _settled(
    ledger: Connection, patient_row: int, held_studies: Collection[str], settings: Settings, now: datetime
) -> frozenset[str]:
    """Return the held studies that nothing came of for a quiet period: an archive's count of them means something."""
    before = now - timedelta(seconds=settings.receive.quiet_period_s)
    received = patients.receptions(ledger, patient_row)
    return frozenset(
        uid for uid in held_studies if uid not in received or received[uid].clock.last_received_at <= before
    )


def _standing(ledger: Connection, patient_row: int, pacs: Pacs, settled: frozenset[str]) -> _Standing:
    latest = priors.latest_lookup(ledger, patient_row, pacs.name)
    studies = priors.studies_of(ledger, patient_row, pacs.name)
    known = {each.study_instance_uid for each in studies if each.state in priors.LOOKED_INTO}
    known |= latest.held if latest else frozenset()
    being_asked = latest is not None and latest.state is LookupState.OPEN
    return _Standing(
        pacs=pacs,
        latest=latest,
        to_be_asked=not being_asked and bool(settled - known),
        studies=studies,
        wanted=prior_series.wanted_of(ledger, patient_row, pacs.name),
    )


def _due_series(ledger: Connection, pacs: Pacs, now: datetime) -> list[PriorSeries]:
    """Return the series to fetch now: within the window, so many at a time, so many within an hour."""
    limits = pacs.priors
    if limits.window is not None and not limits.window.contains(now):
        return []
    series = prior_series.due_series(ledger, pacs.name, now, limits.max_concurrent)
    room = max(0, limits.per_hour - prior_series.started_since(ledger, pacs.name, now - HOUR))
    fresh = [each for each in series if not each.in_flight]
    return [each for each in series if each.in_flight] + fresh[:room]


def _line(standing: _Standing, now: datetime) -> str:
    """Say in one line what was asked of an archive and what came of it."""
    latest = standing.latest
    if latest is None:
        return "prior lookup: about to be asked"
    at = f"{(latest.finished_at or latest.opened_at).astimezone(now.tzinfo):%Y-%m-%d %H:%M}"
    odd = f" ({latest.error})" if latest.error else ""
    if latest.state is LookupState.OPEN:
        return f"prior lookup since {at}: not answered, {latest.attempts} attempts{odd}"
    if latest.state is LookupState.FAILED:
        return f"prior lookup at {at}: failed{odd}"
    counts = ", ".join([f"found {latest.found}", *_counts(standing.studies)])
    return f"prior lookup at {at}: {counts}{odd}{_window(standing, now)}"


def _counts(studies: list[PriorStudy]) -> list[str]:
    words = {
        PriorState.HELD: "held",
        PriorState.FETCHED: "fetched",
        PriorState.WANTED: "to fetch",
        PriorState.REFUSED: "refused",
        PriorState.FAILED: "failed",
    }
    told = (PriorState.REFUSED, PriorState.FAILED)
    lines = []
    for state, word in words.items():
        found = [each for each in studies if each.state is state]
        reasons = Counter(each.reason for each in found if each.reason and state in told)
        if found:
            lines.append(f"{word} {len(found)}" + (f" ({'; '.join(sorted(reasons))})" if reasons else ""))
    return lines


def _window(standing: _Standing, now: datetime) -> str:
    window = standing.pacs.priors.window
    if window is None or not standing.wanted or window.contains(now):
        return ""
    return f", fetched from {window.start:%H:%M} on"
