"""From durable bytes to facts in the ledger: read one by one, each with its own end, and entered together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy.exc import OperationalError

from dicom_node import events
from dicom_node.ledger import arrivals, recovered, rejections
from dicom_node.ledger.identity import owner_row
from dicom_node.ledger.tables import ArrivalState
from dicom_node.priors.own_reports import STRUCTURED_REPORT, OwnReport
from dicom_node.receive.lull import Lull
from dicom_node.receive.reader import Unread
from dicom_node.timeline.model import InstanceFacts
from dicom_node.timeline.rejection import RejectionNote

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from dicom_node.ledger.arrivals import PendingArrival
    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.receive.reader import Reader
    from dicom_node.receive.recovery import Recovery

BATCH: Final = 64
ANOTHER_UID: Final = "the data set names another SOP Instance UID than the C-STORE command"
_A_REPORT: Final = Unread(reason=STRUCTURED_REPORT, not_an_input=True)
Answer: TypeAlias = InstanceFacts | RejectionNote | Unread


class Indexer:
    """Reads what arrived. `run_once` is idempotent: what it has not committed is still there to be read again.

    What is read in a row is entered in one transaction; should that fail, file by file.
    """

    def __init__(
        self,
        database: Database,
        files: InstanceFiles,
        reader: Reader,
        log: Log,
        recovery: Recovery | None = None,
        *,
        lull: Lull | None = None,
    ) -> None:
        self._recovery = recovery  # none: reports of ours are set aside like anybody's
        self._lull = lull or Lull()
        self._database = database
        self._files = files
        self._reader = reader
        self._log = log

    def run_once(self) -> int:
        """Read up to one batch of unread files, unless files are coming in; return how many there were.

        A file that breaks the reader ends the batch: what arrived meanwhile is read before anything is tried again.
        """
        if not self._lull.is_now():
            return 0
        with self._database.read() as ledger:
            batch = arrivals.pending(ledger, BATCH)
        answers: list[tuple[PendingArrival, Answer]] = []
        for each in batch:
            found: Answer | OwnReport | None = self._read(each)
            if isinstance(found, OwnReport):
                self._enter(answers)
                answers = []
                found = self._recovered(each, found)
            if found is not None:
                answers.append((each, found))
            if (isinstance(found, Unread) and found.crashed) or not self._lull.is_now():
                break
        else:
            if len(batch) < BATCH:
                self._lull.caught_up()
        self._enter(answers)
        return len(batch)

    def _read(self, pending: PendingArrival) -> Answer | OwnReport:
        """Read one file, which never raises for what is in it."""
        try:
            return self._reader.read(self._files.path(pending.path), pending.default_issuer)
        except Exception as error:  # noqa: BLE001 - the edge: one file must not stop the others
            return self._crashed(error)

    def _recovered(self, pending: PendingArrival, report: OwnReport) -> Answer | None:
        """Take back a report of ours; return why not."""
        if self._recovery is None:
            return _A_REPORT
        try:
            self._recovery.enter(pending, self._files.path(pending.path), report)
        except OperationalError:
            raise  # the ledger is away, not the file at fault: the same batch is tried at the next tick
        except Exception as error:  # noqa: BLE001 - the edge: one file must not stop the others
            return self._crashed(error)
        return None

    def _enter(self, answers: list[tuple[PendingArrival, Answer]]) -> None:
        """Enter what was read together; where that cannot be, each by itself, so that one costs only itself."""
        if not answers:
            return
        try:
            with self._database.write() as ledger:
                entered = [self._enter_one(ledger, pending, answer) for pending, answer in answers]
        except OperationalError:
            raise  # the ledger is away
        except Exception as error:
            if len(answers) > 1:
                for each in answers:
                    self._enter([each])
                return
            ((pending, answer),) = answers
            if isinstance(answer, Unread):
                raise  # even its end cannot be entered
            self._enter([(pending, self._crashed(error))])
            return
        for say in entered:
            say()

    def _crashed(self, error: Exception) -> Unread:
        self._log.failure(events.INSTANCE_SET_ASIDE, error)
        return Unread(reason=f"cannot be entered: {type(error).__name__}", crashed=True)

    def _enter_one(self, ledger: Connection, pending: PendingArrival, answer: Answer) -> Callable[[], None]:
        """Enter one answer, and return what is to be said in the log once it is committed."""
        if isinstance(answer, Unread):
            return self._unread(ledger, pending, answer)
        if answer.sop_instance_uid != pending.sop_instance_uid:
            state, reason = ArrivalState.SET_ASIDE, ANOTHER_UID
            arrivals.set_aside(ledger, pending.arrival_id, state, reason)
        elif isinstance(answer, RejectionNote):
            state = _enter_note(ledger, pending, answer)
        else:
            state = arrivals.index(ledger, pending.arrival_id, answer)
        return partial(self._log.debug, events.INSTANCE_INDEXED, **self._named(pending), state=state.value)

    def _unread(self, ledger: Connection, pending: PendingArrival, unread: Unread) -> Callable[[], None]:
        last = pending.tries + 1 >= arrivals.MOST_TRIES
        arrivals.count_try(ledger, pending.arrival_id)
        if unread.crashed and not last:
            return lambda: None
        state = ArrivalState.NOT_AN_INPUT if unread.not_an_input else ArrivalState.SET_ASIDE
        own = arrivals.is_our_own(ledger, pending.sop_instance_uid)
        reason = "our own output" if own else unread.reason
        arrivals.set_aside(ledger, pending.arrival_id, state, reason)
        return partial(
            self._log.warning, events.INSTANCE_SET_ASIDE, **self._named(pending), state=state.value, reason=reason
        )

    def _named(self, pending: PendingArrival) -> dict[str, str]:
        return {"instance": self._log.pseudonym(pending.sop_instance_uid)}


def _enter_note(ledger: Connection, pending: PendingArrival, note: RejectionNote) -> ArrivalState:
    """Enter what an archive takes back, but never what a note of our own says of our own reports (invariant 11)."""
    if not arrivals.is_our_own(ledger, pending.sop_instance_uid):
        state = rejections.enter(ledger, pending.arrival_id, note)
        for row in {owner_row(ledger, note.patient, uid) for uid in note.study_instance_uids}:
            recovered.withdraw_rejected(ledger, row)
        return state
    arrivals.set_aside(ledger, pending.arrival_id, ArrivalState.NOT_AN_INPUT, "our own output")
    return ArrivalState.NOT_AN_INPUT
