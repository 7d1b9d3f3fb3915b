"""`purge`: delete everything of a patient, by hand, audited."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.app import now
from dicom_node.cli_options import config_option, fail, find_patient, load_settings, open_ledger
from dicom_node.errors import NodeError
from dicom_node.ledger import cohort, identity
from dicom_node.ledger import purge as forgetting
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.whose import patient_named_in
from dicom_node.work.folders import Folders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from dicom_node.ledger.purge import Belongings


@click.command()
@click.argument("patient")
@config_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(patient: str, config: Path, yes: bool) -> None:
    """Delete everything of a patient: images, what was read of them, results, reports, cohort facts, orders.

    Refused while a run or a delivery of theirs is under way. Reports that archives hold stay there. Of issued runs the
    bare keys stay, so that the same images are never reported on again, and the audit stays. The cache of preprocessed
    volumes is emptied for all patients: its files say of nobody whose they are.
    """
    settings = load_settings(config)
    database, aliases = open_ledger(settings), settings.receive.issuer_aliases
    folders = Folders.under(settings.node.data_dir)
    files = InstanceFiles(folders.instances)
    with database.read() as ledger:
        found = find_patient(ledger, patient)
        leaving = _belongings(ledger, found.row_id, files, aliases)
        _stop_if_at_work(ledger, leaving)
    click.echo(f"{len(leaving.files)} received files, {len(leaving.run_keys)} runs, {len(leaving.reports)} reports")
    if not yes:
        click.confirm("Delete all of it, and the cohort facts, for ever?", abort=True)
    with database.write() as ledger:
        leaving = _belongings(ledger, found.row_id, files, aliases)  # again: more may have come meanwhile
        _stop_if_at_work(ledger, leaving)
        made = _delete_made(folders, leaving)
        for each in leaving.files:  # before their rows: a file without one would be entered anew
            files.remove(each.path)
        tombstones = forgetting.forget(ledger, leaving, now())
        cohort.write_audit(
            ledger,
            at=now(),
            actor=getpass.getuser(),
            action="purge",
            subject=f"{found.patient_id}^^^{found.issuer}",
            details={
                "received_files": len(leaving.files),
                "made_files": made,
                "runs": leaving.run_keys,
                "reports": leaving.reports,
            },
        )
    for volume in folders.cache.glob("*.npz"):
        volume.unlink(missing_ok=True)
    click.echo(f"deleted; {tombstones} issued runs stay as bare keys")


def _belongings(ledger: Connection, row_id: int, files: InstanceFiles, issuer_aliases: Mapping[str, str]) -> Belongings:
    """Return what is kept of a patient, and the files that are no inputs and name them."""
    known = forgetting.belongings(ledger, row_id)
    keys = set(identity.ids_of(ledger, row_id))
    named = [
        each.file
        for each in forgetting.unattributed(ledger)
        if patient_named_in(
            files.path(each.file.path), default_issuer=each.default_issuer, issuer_aliases=issuer_aliases
        )
        in keys
    ]
    return replace(known, files=(*known.files, *named))


def _stop_if_at_work(ledger: Connection, leaving: Belongings) -> None:
    obstacles = forgetting.obstacles(ledger, leaving.rows)
    if obstacles:
        fail(NodeError(f"not now: {'; '.join(obstacles)}. `hold` the case, wait, and try again"))


def _delete_made(folders: Folders, leaving: Belongings) -> int:
    """Delete saliency maps and encoded objects; before the ledger forgets their names, so that none is left behind."""
    made = [
        path
        for key in leaving.run_keys
        for folder in (folders.results, folders.outbox)
        for path in folder.glob(f"{key}-*")
    ]
    for path in made:
        path.unlink(missing_ok=True)
    return len(made)
