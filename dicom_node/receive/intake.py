"""The one way in for files that do not come by C-STORE: from disk, or fetched from an archive.

The same promise as the listener's: when `take` returns, bytes and ledger row are durable. Of the content only the file
meta information is read here; everything else is read where a crash is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.errors import PeerError
from dicom_node.ledger import arrivals
from dicom_node.receive.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pydicom import Dataset
    from pydicom.tag import BaseTag

    from dicom_node.ledger.database import Database
    from dicom_node.receive.files import InstanceFiles

FILE_META_GROUP = 0x0002


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where files come from: a name in place of a calling AE title, and the issuer of IDs that name none."""

    name: str
    default_issuer: str
    fetched_from: str | None = None  # the archive's name, if we asked for them


class Intake:
    """Takes files, one by one."""

    def __init__(self, database: Database, files: InstanceFiles, origin: Origin, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._files = files
        self._origin = origin
        self._clock = clock

    def take(self, content: bytes) -> str:
        """Store one Part 10 file durably and enter it into the ledger as received.

        Returns:
            Its SOP Instance UID, as the file meta says.

        Raises:
            PeerError: if it is no Part 10 file, or its file meta names no instance.
            OSError: if the disk says no.
        """
        meta = read_file_meta(content)
        relative = self._files.write((content,))
        arrival = arrival_of(meta, self._origin, path=relative, size_bytes=len(content), received_at=self._clock())
        try:
            with self._database.write() as ledger:
                arrivals.record(ledger, arrival)
        except SQLAlchemyError:
            self._files.remove(relative)
            raise
        return arrival.sop_instance_uid


def arrival_of(meta: Dataset, origin: Origin, *, path: str, size_bytes: int, received_at: datetime) -> arrivals.Arrival:
    """Return what a stored file's own head and where it came from say of it."""
    return arrivals.Arrival(
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        sop_class_uid=str(meta.MediaStorageSOPClassUID)[:64],
        transfer_syntax_uid=str(meta.TransferSyntaxUID)[:64],
        path=path,
        size_bytes=size_bytes,
        calling_ae_title=origin.name[:16],
        default_issuer=origin.default_issuer,
        stat=False,
        received_at=received_at,
        fetched_from=origin.fetched_from,
    )


def read_file_meta(content: bytes) -> Dataset:
    """Read the file meta information and nothing after it (PS3.10 7.1).

    Raises:
        PeerError: if it is not there, or lacks what an instance is filed by.
    """
    stream = BytesIO(content)
    try:
        read_preamble(stream, force=False)
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta)
        instance = str(meta.MediaStorageSOPInstanceUID)
        found = instance and str(meta.MediaStorageSOPClassUID) and str(meta.TransferSyntaxUID)
    except InvalidDicomError as error:
        msg = "no DICOM Part 10 file: expected the prefix DICM at byte 128"
        raise PeerError(msg) from error
    except Exception as error:  # the edge: pydicom throws anything at bytes that are not DICOM's
        msg = f"no DICOM Part 10 file with a complete file meta ({type(error).__name__})"
        raise PeerError(msg) from error
    if not found or not is_uid(instance):
        msg = "its SOP Instance UID is not legal"
        raise PeerError(msg)
    return meta


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != FILE_META_GROUP
