"""From durable bytes to facts in the ledger: one file at a time, each with its own end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import OperationalError

from dicom_node import events
from dicom_node.ledger import arrivals, recovered, rejections
from dicom_node.ledger.identity import owner_row
from dicom_node.ledger.tables import ArrivalState
from dicom_node.priors.own_reports import STRUCTURED_REPORT, OwnReport
from dicom_node.receive.reader import Unread
from dicom_node.timeline.rejection import RejectionNote

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.receive.reader import Reader
    from dicom_node.receive.recovery import Recovery
    from dicom_node.timeline.model import InstanceFacts

BATCH: Final = 256
_A_REPORT: Final = Unread(reason=STRUCTURED_REPORT, not_an_input=True)


class Indexer:
    """Reads what arrived. `run_once` is idempotent: what it has not committed is still there to be read again."""

    def __init__(
        self, database: Database, files: InstanceFiles, reader: Reader, log: Log, recovery: Recovery | None = None
    ) -> None:
        self._recovery = recovery  # none: reports of ours are set aside like anybody's
        self._database = database
        self._files = files
        self._reader = reader
        self._log = log

    def run_once(self) -> int:
        """Read up to one batch of unread files; return how many there were.

        A file that breaks the reader ends the batch: what arrived meanwhile is read before anything is tried again.
        """
        with self._database.read() as ledger:
            batch = arrivals.pending(ledger, BATCH)
        for each in batch:
            if not self._index(each):
                break
        return len(batch)

    def _index(self, pending: arrivals.PendingArrival) -> bool:
        """Read and enter one file, which never raises for what is in it; say whether the reader lived through it."""
        try:
            answer = self._reader.read(self._files.path(pending.path), pending.default_issuer)
            if isinstance(answer, OwnReport) and self._recovery is not None:
                self._recovery.enter(pending, self._files.path(pending.path), answer)
                return True
            if not isinstance(answer, Unread | OwnReport):
                self._enter(pending, answer)
                return True
        except OperationalError:
            raise  # the ledger is away, not the file at fault: the same batch is tried at the next tick
        except Exception as error:  # noqa: BLE001 - the edge: one file must not stop the others
            self._log.failure(events.INSTANCE_SET_ASIDE, error)
            answer = Unread(reason=f"cannot be entered: {type(error).__name__}", crashed=True)
        unread = _A_REPORT if isinstance(answer, OwnReport) else answer
        self._unread(pending, unread)
        return not unread.crashed

    def _enter(self, pending: arrivals.PendingArrival, answer: InstanceFacts | RejectionNote) -> None:
        with self._database.write() as ledger:
            if answer.sop_instance_uid != pending.sop_instance_uid:
                reason = "the data set names another SOP Instance UID than the C-STORE command"
                arrivals.set_aside(ledger, pending.arrival_id, ArrivalState.SET_ASIDE, reason)
                return
            if isinstance(answer, RejectionNote):
                state = _enter_note(ledger, pending, answer)
            else:
                state = arrivals.index(ledger, pending.arrival_id, answer)
        self._log.debug(
            events.INSTANCE_INDEXED, instance=self._log.pseudonym(pending.sop_instance_uid), state=state.value
        )

    def _unread(self, pending: arrivals.PendingArrival, unread: Unread) -> None:
        last = pending.tries + 1 >= arrivals.MOST_TRIES
        with self._database.write() as ledger:
            arrivals.count_try(ledger, pending.arrival_id)
            if unread.crashed and not last:
                return
            state = ArrivalState.NOT_AN_INPUT if unread.not_an_input else ArrivalState.SET_ASIDE
            own = arrivals.is_our_own(ledger, pending.sop_instance_uid)
            reason = "our own output" if own else unread.reason
            arrivals.set_aside(ledger, pending.arrival_id, state, reason)
        self._log.warning(
            events.INSTANCE_SET_ASIDE,
            instance=self._log.pseudonym(pending.sop_instance_uid),
            state=state.value,
            reason=reason,
        )


def _enter_note(ledger: Connection, pending: arrivals.PendingArrival, note: RejectionNote) -> ArrivalState:
    """Enter what an archive takes back, but never what a note of our own says of our own reports (invariant 11)."""
    if not arrivals.is_our_own(ledger, pending.sop_instance_uid):
        state = rejections.enter(ledger, pending.arrival_id, note)
        for row in {owner_row(ledger, note.patient, uid) for uid in note.study_instance_uids}:
            recovered.withdraw_rejected(ledger, row)
        return state
    arrivals.set_aside(ledger, pending.arrival_id, ArrivalState.NOT_AN_INPUT, "our own output")
    return ArrivalState.NOT_AN_INPUT
