"""The two jobs: ask an archive about a patient, and fetch one series. Each attempt ends in the ledger.

A key names a row and an attempt, so that the engine makes every attempt once: "lookup/<id>/<attempt>" and
"fetch/<pacs>/<series uid>/<attempt>". A job whose row has moved on does nothing. Whoever is away is asked again, with
growing pauses and an end; whoever can never answer in one way is asked in the next.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from dicom_node import events
from dicom_node.deliver.outcome import next_wait
from dicom_node.errors import PeerError, UpstreamError
from dicom_node.ledger import holdings, identity, patients, prior_series, priors
from dicom_node.ledger.tables import LookupState, PriorState
from dicom_node.priors import search
from dicom_node.priors.archives import open_archive
from dicom_node.priors.fetching import Fetching
from dicom_node.priors.plan import Asked, plan_series, plan_studies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.prior_series import PriorSeries
    from dicom_node.ledger.priors import Lookup
    from dicom_node.observe.logs import Log
    from dicom_node.priors.fetching import Outcome
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.settings import Pacs, Receive, Settings

MOST_SHORT_ATTEMPTS = 3  # an archive that answers, and keeps sending less than it said, is believed after so many


class Librarian:
    """Asks archives and fetches from them."""

    def __init__(
        self, settings: Settings, database: Database, files: InstanceFiles, log: Log, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._archives = {pacs.name: pacs for pacs in settings.pacs if pacs.priors.methods}
        self._database = database
        self._fetching = Fetching(settings, database, files, log, clock)
        self._log = log
        self._clock = clock

    def look_up(self, key: str) -> None:
        """Make the attempt to ask that the key names, unless it was made already."""
        with self._database.read() as ledger:
            lookup = priors.get_lookup(ledger, int(key.split("/")[1]))
            if lookup is None or lookup.state is not LookupState.OPEN or search.lookup_key(lookup) != key:
                return
            pacs = self._archives.get(lookup.pacs)
            ids = search.ids_to_ask(ledger, lookup.patient_row, pacs) if pacs is not None else []
            asked = _asked(ledger, lookup, pacs, self._settings.receive) if pacs is not None else None
        if pacs is None or asked is None or not ids:
            self._fail_lookup(lookup, "this archive is no longer configured for this patient")
            return
        try:
            answer = self._ask(pacs, ids, asked, lookup)
        except UpstreamError as error:
            self._delay_lookup(lookup, pacs, str(error))
        except PeerError as error:
            self._fail_lookup(lookup, str(error))
        except Exception as error:  # noqa: BLE001 - the edge: an attempt that breaks is made again with pauses
            self._log.failure(events.PRIORS_DELAYED, error, archive=pacs.name)
            self._delay_lookup(lookup, pacs, f"the attempt broke: {type(error).__name__}")
        else:
            self._answer_lookup(lookup, answer)

    def fetch(self, key: str) -> None:
        """Make the attempt to fetch a series that the key names, unless it was made already."""
        _, pacs_name, series_instance_uid, _ = key.split("/")
        with self._database.write() as ledger:
            series = prior_series.get(ledger, pacs_name, series_instance_uid)
            if series is None or series.state is not PriorState.WANTED or search.fetch_key(series) != key:
                return
            prior_series.begin(ledger, series, self._clock())
        pacs = self._archives.get(pacs_name)
        if pacs is None:
            self._end(series, PriorState.FAILED, reason="this archive is no longer configured for priors")
            return
        self._record(series, pacs, self._fetching.attempt(series, pacs))

    def _ask(self, pacs: Pacs, ids: list[str], asked: Asked, lookup: Lookup) -> priors.Answer:
        """Ask for the patient's studies, then for the series of each that is wanted or complete here."""
        archive = open_archive(pacs, self._settings.node.ae_title)
        found = [study for patient_id in ids for study in archive.find_studies(patient_id)]
        plan = plan_studies(found, asked, pacs.priors, self._clock().date())
        series = {
            study.study_instance_uid: plan_series(
                archive.find_series(study.study_instance_uid), study.study_instance_uid, asked, pacs.priors
            )
            for study in plan.studies
            if study.state is PriorState.WANTED or study.study_instance_uid in lookup.held
        }
        return priors.Answer(studies=plan.studies, series=series, foreign=plan.foreign)

    def _answer_lookup(self, lookup: Lookup, answer: priors.Answer) -> None:
        with self._database.write() as ledger:
            priors.answer_lookup(ledger, lookup, answer, self._clock())
            self._touch(ledger, lookup.patient_row)
        self._log.info(events.PRIORS_LOOKED_UP, archive=lookup.pacs, count=len(answer.studies))

    def _delay_lookup(self, lookup: Lookup, pacs: Pacs, reason: str) -> None:
        now = self._clock()
        if now >= lookup.opened_at + timedelta(hours=pacs.retry.give_up_after_h):
            self._fail_lookup(lookup, f"given up: {reason}")
            return
        again_at = now + next_wait(lookup.attempts, pacs.retry)
        with self._database.write() as ledger:
            priors.retry_lookup(ledger, lookup, error=reason, next_attempt_at=again_at)
            self._touch(ledger, lookup.patient_row)
        self._log.warning(events.PRIORS_DELAYED, archive=lookup.pacs, attempts=lookup.attempts + 1, reason=reason)

    def _fail_lookup(self, lookup: Lookup, reason: str) -> None:
        with self._database.write() as ledger:
            priors.fail_lookup(ledger, lookup, error=reason, now=self._clock())
            self._touch(ledger, lookup.patient_row)
        self._log.error(events.PRIORS_FAILED, archive=lookup.pacs, attempts=lookup.attempts + 1, reason=reason)

    def _record(self, series: PriorSeries, pacs: Pacs, outcome: Outcome) -> None:
        """Write down what came of an attempt: the end, or when to try again."""
        now = self._clock()
        if outcome.state is not None:
            self._end(series, outcome.state, reason=outcome.reason, outcome=outcome)
            return
        first = series.first_attempt_at or now
        given_up = (
            outcome.never
            or (outcome.answered and series.attempts + 1 >= MOST_SHORT_ATTEMPTS)
            or now >= first + timedelta(hours=pacs.retry.give_up_after_h)
        )
        if given_up:
            self._end(series, PriorState.FAILED, reason=outcome.reason, outcome=outcome)
            return
        again_at = now + next_wait(series.attempts, pacs.retry)
        with self._database.write() as ledger:
            prior_series.retry(ledger, series, fetched=outcome.here, reason=outcome.reason, next_attempt_at=again_at)
            priors.settle_study(ledger, series.pacs, series.study_instance_uid)
            self._touch(ledger, series.patient_row)
        self._log.warning(events.PRIORS_DELAYED, archive=pacs.name, attempts=series.attempts + 1, reason=outcome.reason)

    def _end(self, series: PriorSeries, state: PriorState, *, reason: str, outcome: Outcome | None = None) -> None:
        here, method = (outcome.here, outcome.method) if outcome is not None else (0, None)
        with self._database.write() as ledger:
            prior_series.end(ledger, series, state, fetched=here, reason=reason, method=method, now=self._clock())
            priors.settle_study(ledger, series.pacs, series.study_instance_uid)
            self._touch(ledger, series.patient_row)
        fields: dict[str, object] = {"archive": series.pacs, "attempts": series.attempts + 1, "count": here}
        if state in {PriorState.FETCHED, PriorState.HELD}:
            self._log.info(events.PRIOR_FETCHED, method=method or "", **fields)
        elif state is PriorState.REFUSED:
            self._log.error(events.PRIOR_REFUSED, reason=reason, **fields)
        else:
            self._log.error(events.PRIORS_FAILED, reason=reason, **fields)

    @staticmethod
    def _touch(ledger: Connection, patient_row: int) -> None:
        """Have the patient decided anew, under the ID that stands for them today."""
        patients.touch(ledger, patients.survivor(ledger, patient_row))


def _asked(ledger: Connection, lookup: Lookup, pacs: Pacs, receive: Receive) -> Asked:
    """Collect whom the question is about and what is held of them."""
    facts = patients.facts_of(ledger, lookup.patient_row)
    people = [*(each.patient for each in facts), *identity.stated(ledger, lookup.patient_row)]
    accepted = identity.accepted(ledger, lookup.patient_row)
    return Asked(
        ids=frozenset(receive.known_as(identity.ids_of(ledger, lookup.patient_row))),
        default_issuer=pacs.default_issuer or "",
        birth_dates=_values(accepted.get("PatientBirthDate"), (each.birth_date for each in people)),
        sexes=_values(accepted.get("PatientSex"), (each.sex for each in people)),
        held_studies=frozenset(each.study_instance_uid for each in facts),
        held_series=holdings.instances_per_series(ledger, lookup.patient_row),
        own_series=holdings.own_series(ledger, lookup.patient_row),
    )


def _values(accepted: Iterable[str] | None, said: Iterable[str]) -> frozenset[str]:
    """Unite what instances say with what a person accepted; an empty value says nothing."""
    return frozenset({*(accepted or ()), *said} - {""})
