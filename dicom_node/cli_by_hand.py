"""`ingest` and `retry`: what an admin does by hand, audited."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.app import now, prepare
from dicom_node.cli_options import config_option, fail, load_settings, open_ledger
from dicom_node.errors import NodeError, PeerError
from dicom_node.ledger import arrivals, cohort, deliveries, patients, runs
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.listener import is_uid
from dicom_node.timeline.model import RunState
from dicom_node.work.folders import Folders

if TYPE_CHECKING:
    from sqlalchemy import Connection

BY_HAND = "(by hand)"


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@config_option
@click.option("--issuer", help="Issuer of the PatientIDs where the files name none.")
def ingest(path: Path, config: Path, issuer: str | None) -> None:
    """Take DICOM files from disk, a file or a folder, as if they had been received."""
    settings = load_settings(config)
    prepare(settings)
    database = open_ledger(settings)
    files = InstanceFiles(Folders.under(settings.node.data_dir).instances)
    default_issuer = issuer or settings.receive.default_issuer
    taken, refused = 0, 0
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not each.is_file():
            continue
        try:
            arrival = _store(each, files, default_issuer)
        except PeerError as error:
            click.echo(f"refused {each}: {error}", err=True)
            refused += 1
            continue
        with database.write() as ledger:
            arrivals.record(ledger, arrival)
        taken += 1
    click.echo(f"{taken} files taken, {refused} refused")


def _store(path: Path, files: InstanceFiles, default_issuer: str) -> arrivals.Arrival:
    """Copy a Part 10 file durably into the instance folder.

    Raises:
        PeerError: if it is no Part 10 file, or its file meta names no instance.
    """
    try:
        meta = read_file_meta_info(path)
        instance, sop_class = str(meta.MediaStorageSOPInstanceUID), str(meta.MediaStorageSOPClassUID)
        transfer_syntax = str(meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, EOFError) as error:
        msg = "no DICOM Part 10 file with a complete file meta"
        raise PeerError(msg) from error
    if not is_uid(instance):
        msg = "its SOP Instance UID is not legal"
        raise PeerError(msg)
    return arrivals.Arrival(
        sop_instance_uid=instance,
        sop_class_uid=sop_class[:64],
        transfer_syntax_uid=transfer_syntax[:64],
        path=files.write((path.read_bytes(),)),
        size_bytes=path.stat().st_size,
        calling_ae_title=BY_HAND,
        default_issuer=default_issuer,
        stat=False,
        received_at=now(),
    )


@click.command()
@click.argument("run_or_delivery")
@config_option
def retry(run_or_delivery: str, config: Path) -> None:
    """Try again: a failed run by its key (or its first digits), or a dead delivery as RUN/DESTINATION."""
    key, _, destination = run_or_delivery.partition("/")
    with open_ledger(load_settings(config)).write() as ledger:
        run = _find_run(ledger, key)
        if destination:
            found = deliveries.get(ledger, run.run_key, destination)
            if found is None:
                fail(NodeError(f"run {run.run_key[:12]} has no delivery to {destination!r}"))
            deliveries.revive(ledger, found, now())
        elif run.state is RunState.FAILED:
            runs.set_state(ledger, run.run_key, RunState.QUEUED)
        else:
            fail(NodeError(f"run {run.run_key[:12]}: expected a failed run, found it {run.state}"))
        patients.touch(ledger, run.patient_row)
        cohort.write_audit(
            ledger, at=now(), actor=getpass.getuser(), action="retry", subject=run_or_delivery, details={}
        )
    click.echo("will be tried again at the next tick")


def _find_run(ledger: Connection, key: str) -> runs.Run:
    found = runs.starting_with(ledger, key)
    if len(found) != 1:
        fail(NodeError(f"expected one run whose key starts with {key!r}, found {len(found)}"))
    return found[0]
