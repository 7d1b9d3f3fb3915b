"""From a backup to a data folder that a node can start on; nothing is believed that was not checked.

The backup is verified, every file is copied and held against its digest while it is copied, and the ledger comes last:
a folder without one is no node's, so that a restoration that broke off cannot be taken for a whole one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from dicom_node.backup.contents import LEDGER, Sheet, read_sheet, read_sums
from dicom_node.backup.verify import verify
from dicom_node.errors import NodeError
from dicom_node.ledger import cohort, copying
from dicom_node.ledger.database import Database
from dicom_node.receive.files import InstanceFiles, fsync_folder
from dicom_node.work.folders import Folders

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.settings import Settings

CHUNK_BYTES = 1 << 20


def restore(folder: Path, settings: Settings, now: datetime, *, actor: str) -> Sheet:
    """Make the data folder and the ledger of a configuration from a backup.

    Raises:
        NodeError: if the backup is not sound, or there is something where it should go.
        OSError: if a disk says no.
        sqlalchemy.exc.SQLAlchemyError: if the database says no.
    """
    data = settings.node.data_dir
    if data.exists() and any(data.iterdir()):
        msg = f"{data}: expected nothing or an empty folder, found something; restore never writes over a node's data"
        raise NodeError(msg)
    problems = verify(folder)
    if problems:
        msg = "\n".join([f"{folder}: not restored, for {len(problems)} things are wrong with it:", *problems])
        raise NodeError(msg)
    sheet = read_sheet(folder)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    data.chmod(0o700)
    folders = Folders.under(data)
    folders.prepare()
    InstanceFiles(folders.instances).prepare()
    _copy_files(folder, data, read_sums(folder, sheet))
    _restore_ledger(folder / LEDGER, settings)
    database = Database(settings.ledger_url)
    try:
        with database.write() as ledger:
            details: dict[str, object] = {"made_at": sheet.made_at, "files": sheet.files, "missing": len(sheet.missing)}
            cohort.write_audit(ledger, at=now, actor=actor, action="restore", subject="backup", details=details)
    finally:
        database.close()
    return sheet


def _copy_files(folder: Path, data: Path, sums: dict[str, str]) -> None:
    parents = set()
    for path, sha256 in sums.items():
        if path != LEDGER:
            target = data / path
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            parents.add(target.parent)
            _copy(folder / path, target, sha256)
    for each in parents:
        fsync_folder(each)


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Copy a file durably, and hold what was copied against its digest."""
    digest = hashlib.sha256()
    with source.open("rb") as original, target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        while chunk := original.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != sha256:
        msg = f"{source}: expected sha256 {sha256}, found {digest.hexdigest()} while it was copied"
        raise NodeError(msg)


def _restore_ledger(copy: Path, settings: Settings) -> None:
    """Put the ledger where the configuration wants it, in the newest schema."""
    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite":
        assert url.database is not None  # noqa: S101 - a ledger in memory is no ledger
        _restore_file(copy, Path(url.database))
        return
    database = Database(settings.ledger_url)
    try:
        with tempfile.TemporaryDirectory(dir=settings.node.data_dir) as scratch:
            shutil.copyfile(copy, Path(scratch) / LEDGER)
            copying.copy_in(Path(scratch) / LEDGER, database)
    finally:
        database.close()


def _restore_file(copy: Path, target: Path) -> None:
    if target.exists():
        msg = f"{target}: expected no ledger, found one; restore never writes over a node's data"
        raise NodeError(msg)
    partial = target.with_name(f".{target.name}.part")
    partial.unlink(missing_ok=True)
    shutil.copyfile(copy, partial)
    partial.chmod(0o600)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(target)
    fsync_folder(target.parent)
    database = Database(f"sqlite:///{target}")
    try:
        database.migrate()
    finally:
        database.close()
