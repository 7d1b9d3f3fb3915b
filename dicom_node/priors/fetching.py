"""One attempt to fetch one series: every configured method in order, judged by what lies here afterwards.

What an archive claims to have sent counts for nothing. After each method the files that came are waited for until they
are read, and then the ledger tells: all there, too few, or somebody else's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node import events
from dicom_node.errors import UpstreamError
from dicom_node.ledger import holdings
from dicom_node.ledger.tables import PriorState
from dicom_node.priors.archive import CannotBeAsked, FoundSeries
from dicom_node.priors.archives import open_retriever
from dicom_node.priors.dimse_find import DimseArchive
from dicom_node.receive.intake import Intake, Origin
from dicom_node.settings import STORAGE_SOP_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.prior_series import PriorSeries
    from dicom_node.observe.logs import Log
    from dicom_node.priors.archive import Fetched
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.settings import Pacs, RetrieveMethod, Settings

FETCHED: Final = "(fetched)"  # in place of a calling AE title
READ_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attempt: an end (`state`), or the reasons why there is none yet."""

    state: PriorState | None = None
    here: int = 0  # objects of the series that lie here
    method: str | None = None
    reason: str = ""
    answered: bool = False  # the archive sent all it would, and it was too little
    never: bool = False  # no method will ever work


@dataclass(frozen=True, slots=True, kw_only=True)
class _Retrieval:
    """One method at work: when it began, after which file, and what passed our own intake."""

    method: RetrieveMethod
    since: datetime
    before: int
    alone: bool  # nothing else was being fetched from this archive when it began
    taken: set[str] = field(default_factory=set)


class Fetching:
    """Fetches series."""

    def __init__(
        self, settings: Settings, database: Database, files: InstanceFiles, log: Log, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._database = database
        self._files = files
        self._log = log
        self._clock = clock

    def attempt(self, series: PriorSeries, pacs: Pacs) -> Outcome:
        """Try each method until the series is here."""
        here = self._here(series)
        if series.instances is not None and here >= series.instances:
            return Outcome(state=PriorState.HELD, here=here, reason="it is here already")
        tried = []
        for method in pacs.priors.methods:
            outcome = self._try(series, pacs, method)
            if outcome.state is not None:
                return outcome
            tried.append(outcome)
        here = self._here(series)
        unaccepted = self._unaccepted(series, pacs) if here == 0 else ""
        if unaccepted:
            return Outcome(state=PriorState.REFUSED, reason=unaccepted)
        return Outcome(
            here=here,
            reason="; ".join(f"{each.method}: {each.reason}" for each in tried),
            answered=any(each.answered for each in tried),
            never=all(each.never for each in tried),
        )

    def _try(self, series: PriorSeries, pacs: Pacs, method: RetrieveMethod) -> Outcome:
        """Try one method, turning whatever is raised into an outcome, so that the next has its turn."""
        retrieval = self._begin(series, method)
        try:
            told = self._retrieve(series, pacs, retrieval)
        except CannotBeAsked as error:
            return Outcome(method=method, reason=str(error), never=True)
        except UpstreamError as error:
            return Outcome(method=method, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the edge: a method that breaks is not the last
            self._log.failure(events.PRIORS_DELAYED, error, archive=pacs.name, method=method)
            return Outcome(method=method, reason=f"the attempt broke: {type(error).__name__}")
        return self._judge(series, told, retrieval)

    def _begin(self, series: PriorSeries, method: RetrieveMethod) -> _Retrieval:
        since = self._clock()
        with self._database.read() as ledger:
            before = holdings.newest_arrival(ledger)
            alone = not holdings.others_at_work(ledger, series.pacs, series.series_instance_uid, since)
        return _Retrieval(method=method, since=since, before=before, alone=alone)

    def _unaccepted(self, series: PriorSeries, pacs: Pacs) -> str:
        """Say of which SOP classes a series is, if it is of none that we accept: it never comes by C-MOVE or C-GET.

        Vendors keep protocols and spectra in series of Modality MR; the archive's listing does not tell them apart.
        """
        if pacs.dimse is None:
            return ""
        archive = DimseArchive(pacs.dimse, self._settings.node.ae_title)
        try:
            found = set(archive.find_sop_classes(series.study_instance_uid, series.series_instance_uid))
        except (UpstreamError, CannotBeAsked):
            return ""  # the attempt has its reason already
        accepted = {STORAGE_SOP_CLASSES[keyword] for keyword in self._settings.receive.sop_classes}
        if not found or "" in found or found & accepted:
            return ""
        return f"SOP class {', '.join(sorted(found))} is not accepted here (receive.sop_classes)"

    def _retrieve(self, series: PriorSeries, pacs: Pacs, retrieval: _Retrieval) -> Fetched:
        origin = Origin(name=FETCHED, default_issuer=pacs.default_issuer or "", fetched_from=pacs.name)
        intake = Intake(self._database, self._files, origin, self._clock)

        def take(content: bytes) -> None:
            retrieval.taken.add(intake.take(content))

        wanted = FoundSeries(
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            instances=series.instances,
        )
        return open_retriever(retrieval.method, pacs, self._settings).fetch(wanted, take)

    def _judge(self, series: PriorSeries, told: Fetched, retrieval: _Retrieval) -> Outcome:
        """Say what the ledger holds now that the archive has sent what it would."""
        method, before = retrieval.method, retrieval.before
        if not self._wait_until_read(before):
            return Outcome(method=method, reason="received, and not read yet")
        with self._database.read() as ledger:
            others = holdings.strangers(
                ledger, series.patient_row, series.series_instance_uid, pacs=series.pacs, after=before
            )
            odd = _odd(ledger, series, retrieval)
        here = self._here(series) + odd
        if others:
            reason = f"{others} of the instances that came are another patient's; they are filed under their own ID"
            return Outcome(state=PriorState.REFUSED, here=here, method=method, reason=reason)
        expected = series.instances if series.instances is not None else max(told.instances, 1)
        if here >= expected:
            return Outcome(state=PriorState.FETCHED, here=here, method=method)
        refusals = "; ".join(dict.fromkeys(told.refusals))
        reason = f"{here} of {expected} instances came" + (f" ({refusals})" if refusals else "")
        return Outcome(method=method, here=here, reason=reason, answered=True)

    def _here(self, series: PriorSeries) -> int:
        with self._database.read() as ledger:
            return holdings.instances_here(ledger, series.study_instance_uid, series.series_instance_uid)

    def _wait_until_read(self, before: int) -> bool:
        """Wait until every file that came meanwhile was read; return whether it was."""
        with self._database.read() as ledger:
            until = holdings.newest_arrival(ledger)
        end = time.monotonic() + READ_WITHIN_S
        while time.monotonic() < end:
            with self._database.read() as ledger:
                if holdings.unread_between(ledger, before, until) == 0:
                    return True
            time.sleep(LOOK_EVERY_S)
        return False


def _odd(ledger: Connection, series: PriorSeries, retrieval: _Retrieval) -> int:
    """Count the objects that a retrieval brought and that are of no series, since they are no input or unreadable.

    What comes by C-MOVE comes through the listener: whose retrieval it belongs to is known only where there was no
    other at the same time.
    """
    odd = holdings.fetched_but_no_input(ledger, series.pacs, retrieval.before)
    if retrieval.method != "c-move":
        return len(odd & retrieval.taken)
    crowded = not retrieval.alone or holdings.others_at_work(
        ledger, series.pacs, series.series_instance_uid, retrieval.since
    )
    return 0 if crowded else len(odd)
