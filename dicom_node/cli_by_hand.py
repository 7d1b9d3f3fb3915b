"""`ingest` and `retry`: what an admin does by hand, audited."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.app import now, prepare
from dicom_node.cli_options import config_option, fail, load_settings, open_ledger
from dicom_node.errors import NodeError, PeerError
from dicom_node.ledger import cohort, deliveries, patients, runs
from dicom_node.ledger.tables import DeliveryState
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.intake import Intake, Origin
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
    files = InstanceFiles(Folders.under(settings.node.data_dir).instances)
    origin = Origin(name=BY_HAND, default_issuer=issuer or settings.receive.default_issuer)
    intake = Intake(open_ledger(settings), files, origin, now)
    taken, refused = 0, 0
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not each.is_file():
            continue
        try:
            intake.take(each.read_bytes())
            taken += 1
        except PeerError as error:
            click.echo(f"refused {each}: {error}", err=True)
            refused += 1
    click.echo(f"{taken} files taken, {refused} refused")


@click.command()
@click.argument("run_or_delivery")
@config_option
def retry(run_or_delivery: str, config: Path) -> None:
    """Try again: a failed run by its key (or its first digits), or a dead delivery as RUN/DESTINATION.

    Of a delivery that was sent and not committed, the commitment is asked for again.
    """
    key, _, destination = run_or_delivery.partition("/")
    with open_ledger(load_settings(config)).write() as ledger:
        run = find_run(ledger, key)
        if destination:
            found = deliveries.get(ledger, run.run_key, destination)
            if found is None:
                fail(NodeError(f"run {run.run_key[:12]} has no delivery to {destination!r}"))
            if found.state is DeliveryState.VOID:
                fail(NodeError(f"run {run.run_key[:12]} was withdrawn before anything was sent to {destination!r}"))
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


def find_run(ledger: Connection, key: str) -> runs.Run:
    """Return the one run whose key starts with these digits, or end with exit code 1."""
    found = runs.starting_with(ledger, key)
    if len(found) != 1:
        fail(NodeError(f"expected one run whose key starts with {key!r}, found {len(found)}"))
    return found[0]
