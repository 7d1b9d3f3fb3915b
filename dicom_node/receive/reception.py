"""Makes what a C-STORE request brings durable, whoever took it off the network.

Nothing of the data set is parsed here: only the command set is trusted, and of that only checked UIDs.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from dicom_node import events
from dicom_node.ledger import arrivals, prior_series
from dicom_node.ledger.group_commit import GroupCommit
from dicom_node.receive import statuses
from dicom_node.receive.file_meta import file_head
from dicom_node.receive.uids import is_uid
from dicom_node.settings import UNKNOWN_ISSUER

if TYPE_CHECKING:
    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.receive.door import Door
    from dicom_node.receive.files import InstanceFiles, NewFile
    from dicom_node.receive.lull import Lull

STAT_PRIORITY: Final = 1  # (0000,0700) HIGH, PS3.7 9.1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """What a C-STORE request and its association say of a data set (PS3.7 9.1.1)."""

    calling_ae_title: str
    address: str
    abstract_syntax_uid: str  # of the presentation context
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    priority: int
    move_originator: str = ""  # AE title of who asked for the move that brings it; empty: nobody


class Reception:
    """Makes one received object durable and enters it into the ledger."""

    def __init__(self, database: Database, files: InstanceFiles, door: Door, log: Log, lull: Lull) -> None:
        self._lull = lull
        self._database = database
        self._ledger = GroupCommit(database)
        self._files = files
        self._door = door
        self._log = log

    def store(self, request: StoreRequest, data_set: bytes | memoryview | None) -> int:
        """Answer a C-STORE request whose data set is all there.

        Args:
            request: what is said of the data set.
            data_set: its bytes as received; none: the request brought none.

        Returns:
            What `Incoming.finish` says.
        """
        incoming = self.begin(request)
        if data_set is not None:
            incoming.write(data_set)
        return incoming.finish()

    def begin(self, request: StoreRequest) -> Incoming:
        """Take a C-STORE request whose data set is still to come."""
        self._lull.came()
        return Incoming(self, self._files, request)

    def enter(self, request: StoreRequest, relative: str, size_bytes: int) -> int:
        """Enter a durable file into the ledger, or remove it again, and return the status."""
        uid = request.sop_instance_uid
        try:
            self._enter(request, relative, size_bytes)
        except SQLAlchemyError as error:
            with contextlib.suppress(OSError):  # a file without a row is deleted at a later start
                self._files.remove(relative)
            return self.refuse(uid, statuses.OUT_OF_RESOURCES, f"ledger: {type(error).__name__}")
        return statuses.SUCCESS

    def refuse(self, uid: str, status: int, reason: str) -> int:
        """Say in the log why an instance is refused, and return the status."""
        self._log.warning(
            events.INSTANCE_REFUSED, instance=self._log.pseudonym(uid), status=statuses.NAMES[status], reason=reason
        )
        return status

    def close(self) -> None:
        """Give back what is held of the ledger."""
        self._ledger.close()

    def _enter(self, request: StoreRequest, relative: str, size_bytes: int) -> None:
        peer = self._door.peer(request.calling_ae_title)
        arrival = arrivals.Arrival(
            sop_instance_uid=request.sop_instance_uid,
            sop_class_uid=request.sop_class_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            path=relative,
            size_bytes=size_bytes,
            calling_ae_title=request.calling_ae_title,
            default_issuer=peer.default_issuer if peer else UNKNOWN_ISSUER,
            stat=request.priority == STAT_PRIORITY or (peer is not None and peer.stat),
            received_at=datetime.now(UTC),
            fetched_from=self._fetched_from(request),
        )
        self._ledger.record(arrival)

    def _fetched_from(self, request: StoreRequest) -> str | None:
        """Return the archive that sends because we asked it to, None if the sender came by itself."""
        originator = request.move_originator
        named = self._door.named_archive(request.calling_ae_title, originator)
        if named is not None:
            return named
        unnamed = self._door.unnamed_archive(originator, address=request.address, sop_class_uid=request.sop_class_uid)
        if unnamed is None:
            return None
        with self._database.read() as ledger:
            return unnamed if prior_series.is_fetching(ledger, unnamed) else None


class Incoming:
    """One object on its way in: written as it comes, and durable and entered when `finish` says success.

    What cannot be stored is read to its end all the same, for only then may it be answered.
    """

    def __init__(self, reception: Reception, files: InstanceFiles, request: StoreRequest) -> None:
        self._reception = reception
        self._request = request
        self._file: NewFile | None = None
        self._refusal = statuses.CANNOT_UNDERSTAND, "no data set"  # unless one comes
        if not is_uid(request.sop_instance_uid) or not is_uid(request.sop_class_uid):
            self._refusal = statuses.CANNOT_UNDERSTAND, "no legal SOP Class or Instance UID"
            return
        if request.sop_class_uid != request.abstract_syntax_uid:
            self._refusal = statuses.ANOTHER_CLASS, "another SOP Class than its presentation context is for"
            return
        try:
            self._file = files.create()  # while its bytes are still on their way
        except OSError as error:
            self._refusal = _no_disk(error)

    def write(self, piece: bytes | memoryview) -> None:
        """Write the next piece of the data set."""
        if self._file is None or not len(piece):
            return
        try:
            self._file.write(*((piece,) if self._file.size_bytes else (self._head(), piece)))
        except OSError as error:
            self.abandon()
            self._refusal = _no_disk(error)

    def finish(self) -> int:
        """Answer the request when the data set has ended.

        Returns:
            0x0000 only when bytes and row are durable; 0xA700 if we lack the means; 0xA900 or 0xC000
            if it cannot be stored.
        """
        uid = self._request.sop_instance_uid
        if self._file is None or not self._file.size_bytes:
            self.abandon()
            return self._reception.refuse(uid, *self._refusal)
        try:
            relative = self._file.keep()
        except OSError as error:
            return self._reception.refuse(uid, *_no_disk(error))
        return self._reception.enter(self._request, relative, self._file.size_bytes)

    def abandon(self) -> None:
        """Forget what was written: its sender will not hear of it."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _head(self) -> bytes:
        return file_head(
            sop_class_uid=self._request.sop_class_uid,
            sop_instance_uid=self._request.sop_instance_uid,
            transfer_syntax_uid=self._request.transfer_syntax_uid,
            calling_ae_title=self._request.calling_ae_title,
        )


def _no_disk(error: OSError) -> tuple[int, str]:
    """Return status and reason of a refusal because the disk says no."""
    return statuses.OUT_OF_RESOURCES, f"disk: {error.strerror}"
