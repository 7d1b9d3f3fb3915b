"""`ingest` and `retry`: what an admin does by hand, audited."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node import by_hand
from dicom_node.app import now, prepare
from dicom_node.cli_options import config_option, fail, load_settings, open_ledger
from dicom_node.errors import NodeError, PeerError
from dicom_node.ledger.identity_changes import By
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.intake import Intake, Origin
from dicom_node.work.folders import Folders

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.runs import Run

BY_HAND = "(by hand)"


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@config_option
@click.option("--issuer", help="Issuer of the PatientIDs where the files name none.")
def ingest(path: Path, config: Path, issuer: str | None) -> None:
    """Take DICOM files from disk, a file or a folder, as if they had been received."""
    settings = load_settings(config)
    prepare(settings)
    files = InstanceFiles(Folders.under(settings.node.data_dir).instances)
    origin = Origin(name=BY_HAND, default_issuer=issuer or settings.receive.default_issuer)
    intake = Intake(open_ledger(settings), files, origin, now)
    taken, refused = 0, 0
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not each.is_file():
            continue
        try:
            intake.take(_content(each, named=each == path))
            taken += 1
        except PeerError as error:
            click.echo(f"refused {each}: {error}", err=True)
            refused += 1
    click.echo(f"{taken} files taken, {refused} refused")


def _content(path: Path, *, named: bool) -> bytes:
    """Read a file; a link is followed only where the admin named it, not where it lies in a folder of files.

    Raises:
        PeerError: if it is such a link.
    """
    if path.is_symlink() and not named:
        msg = "a symbolic link, which may lead anywhere"
        raise PeerError(msg)
    return path.read_bytes()


@click.command()
@click.argument("run_or_delivery")
@config_option
def retry(run_or_delivery: str, config: Path) -> None:
    """Try again: a failed run by its key (or its first digits), or a dead delivery as RUN/DESTINATION.

    Of a delivery that was sent and not committed, the commitment is asked for again.
    """
    by = By(actor=getpass.getuser(), at=now())
    with open_ledger(load_settings(config)).write() as ledger:
        try:
            by_hand.retry(ledger, run_or_delivery, by)
        except NodeError as error:
            fail(error)
    click.echo("will be tried again at the next tick")


def find_run(ledger: Connection, key: str) -> Run:
    """Return the one run whose key starts with these digits, or end with exit code 1."""
    try:
        return by_hand.find_run(ledger, key)
    except NodeError as error:
        fail(error)
