"""`withdraw`: take a report back, by hand, audited."""

from __future__ import annotations

import getpass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydicom import dcmread

from dicom_node.app import now
from dicom_node.cli_by_hand import find_run
from dicom_node.cli_options import config_option, fail, load_settings, open_ledger
from dicom_node.errors import NodeError
from dicom_node.ledger import cohort, withdrawals
from dicom_node.ledger.withdrawals import Note, Withdrawal
from dicom_node.receive.files import write_durably
from dicom_node.work.folders import Folders
from dicom_node.work.report_context import instance_ref
from sr_templates.headers import to_bytes
from sr_templates.rejection_note import RejectionTitle, build_rejection_note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dicom_node.ledger.runs import OutboxObject

TITLES = {"quality": RejectionTitle.QUALITY, "safety": RejectionTitle.PATIENT_SAFETY}


@click.command()
@click.argument("run")
@config_option
@click.option("--reason", type=click.Choice(sorted(TITLES)), default="quality", show_default=True)
@click.option("--comment", default="", help="Why; kept in the audit, never sent.")
def withdraw(run: str, config: Path, reason: str, comment: str) -> None:
    """Take the report of a run back: every archive that got it is sent a rejection note. RUN: its key or first digits.

    The run stays as a tombstone: its inputs are not reported on again, and no later report builds on it. What was not
    sent yet is not sent any more. Archives without Imaging Object Change Management keep the note beside the report.
    """
    settings = load_settings(config)
    outbox = Folders.under(settings.node.data_dir).outbox
    with open_ledger(settings).write() as ledger:
        found = find_run(ledger, run)
        obstacle = withdrawals.why_not(ledger, found)
        if obstacle is not None:
            fail(NodeError(f"run {found.run_key[:12]}: {obstacle}"))
        at = now().replace(microsecond=0)
        title = TITLES[reason]
        actor = getpass.getuser()
        what = Withdrawal(title=title.value, reason=comment, actor=actor, withdrawn_at=at)
        make = partial(_make_note, outbox=outbox, run_key=found.run_key, title=title, withdrawn_at=at)
        later = withdrawals.built_on(ledger, found)
        named = withdrawals.enter(ledger, found, what, make)
        stay = {each.run_key for each in withdrawals.built_on(ledger, found)}
        details = {"title": title.value, "comment": comment, "destinations": dict(named)}
        cohort.write_audit(ledger, at=at, actor=actor, action="withdraw", subject=found.run_key, details=details)
    for destination, count in named.items():
        click.echo(f"{destination}: " + (f"rejection note for {count} objects" if count else "nothing had been sent"))
    for each in later:
        then = "stays" if each.run_key in stay else "is encoded anew, for nobody got it yet"
        click.echo(f"version {each.version} ({each.run_key[:12]}) names this report as the one before it, and {then}")
    click.echo("withdrawn")


def _make_note(
    held: Sequence[OutboxObject], *, outbox: Path, run_key: str, title: RejectionTitle, withdrawn_at: datetime
) -> Note:
    """Encode the note for one destination and write it durably, before the ledger names it."""
    newest = next((at for each in reversed(held) if (at := outbox / each.path).is_file()), None)
    if newest is None:
        fail(NodeError("outbox: every object of the report is lost, from which the note's header has to be taken"))
    refs = [instance_ref(each) for each in held]
    source = dcmread(newest, stop_before_pixels=True)
    ds = build_rejection_note(source, refs, title=title, run_key=run_key, withdrawn_at=withdrawn_at)
    content = to_bytes(ds)
    path = f"{run_key}-note-{str(ds.SOPInstanceUID).rpartition('.')[2][-12:]}.dcm"
    write_durably(outbox / path, (content,))
    return Note(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        path=path,
        content=content,
    )
