"""`backup` and `restore`: a folder that holds everything a node must not lose, and the way back."""

from __future__ import annotations

import getpass
import sqlite3
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.app import now
from dicom_node.backup.contents import read_sheet
from dicom_node.backup.make import make_backup
from dicom_node.backup.restore import restore as restore_from
from dicom_node.backup.verify import verify
from dicom_node.cli_options import config_option, fail, load_settings, open_ledger
from dicom_node.errors import NodeError
from dicom_node.ledger import cohort

WRONG = (NodeError, OSError)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@config_option
@click.option("--verify", "only_verify", is_flag=True, help="Check a backup that was made; nothing is changed.")
def backup(folder: Path, config: Path, only_verify: bool) -> None:
    """Back up a node, at work or not, into FOLDER, which must not exist yet or be empty.

    Received files, the ledger, results, the outbox and the key of the pseudonyms, each with its digest; the folder
    appears when all of it is durable. On the data folder's own disk files are linked: copy the folder to another.
    Configuration, certificates and bundles are the site's own files and not in it.
    """
    try:
        if only_verify:
            _verify(folder)
            return
        settings = load_settings(config)
        open_ledger(settings).close()
        made = make_backup(settings, folder, now())
        ledger_of = open_ledger(settings)
        with ledger_of.write() as ledger:
            cohort.write_audit(
                ledger,
                at=now(),
                actor=getpass.getuser(),
                action="backup",
                subject="node",
                details={"files": made.files, "missing": len(made.missing)},
            )
        ledger_of.close()
    except WRONG as error:
        fail(error)
    except (SQLAlchemyError, sqlite3.Error) as error:
        fail(NodeError(f"ledger: {type(error).__name__}; no backup was made"))
    click.echo(f"{folder}: {made.files} files, {made.size_bytes / 1e9:.2f} GB, {sum(made.rows.values())} rows")
    _tell_missing(made.missing)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@config_option
def restore(folder: Path, config: Path) -> None:
    """Make the data folder of a configuration from the backup FOLDER; refused where there is anything already.

    The backup is verified first. Afterwards start the node: what was under way is derived again, under the same keys.
    What was issued after the backup was made, archives know: `dicom-node recover` has them asked.
    """
    settings = load_settings(config)
    try:
        sheet = restore_from(folder, settings, now(), actor=getpass.getuser())
    except WRONG as error:
        fail(error)
    except SQLAlchemyError as error:
        fail(NodeError(f"ledger: {type(error).__name__}; not restored"))
    click.echo(f"{settings.node.data_dir}: restored as of {sheet.made_at}: {sheet.files} files, every digest as it was")
    if any(pacs.priors.methods for pacs in settings.pacs):
        click.echo("now run dicom-node recover before dicom-node run: reports issued since are read back from archives")
    _tell_missing(sheet.missing)


def _verify(folder: Path) -> None:
    problems = verify(folder)
    if problems:
        fail(NodeError("\n".join([f"{folder}: {len(problems)} things are wrong:", *problems])))
    sheet = read_sheet(folder)
    click.echo(f"{folder}: sound; made {sheet.made_at}, {sheet.files} files, {sum(sheet.rows.values())} rows")
    _tell_missing(sheet.missing)


def _tell_missing(missing: tuple[str, ...]) -> None:
    """Name what the node itself had lost, and end with exit code 1: the backup is as whole as it can be."""
    if missing:
        lines = [f"the node itself has lost {len(missing)} files that its rows promise:", *missing]
        fail(NodeError("\n".join(lines)))
