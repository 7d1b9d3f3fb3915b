"""`patient merge`, `split`, `accept`, `list` and `show`: who is who, by hand, every change audited."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from dicom_node.app import now, prepare
from dicom_node.cli_options import (
    config_option,
    fail,
    find_patient,
    json_option,
    load_settings,
    open_ledger,
    print_json,
)
from dicom_node.errors import ConfigError, NodeError
from dicom_node.ledger import arrivals, conflicts, identity_changes, patients
from dicom_node.ledger.conflicts import Choice
from dicom_node.ledger.identity_changes import By, Refused
from dicom_node.merge_file import MergeRow, read_merges
from dicom_node.observe.identities import describe_identity, identities

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.identity_changes import Change, Key
    from dicom_node.settings import Settings


@click.group()
def patient() -> None:
    """Who is who: merges, two humans under one ID, spellings of one human. IDs are ID or ID^^^ISSUER."""


@patient.command()
@click.argument("retired", required=False)
@click.argument("surviving", required=False)
@click.option("--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A CSV of merges.")
@config_option
def merge(retired: str | None, surviving: str | None, file: Path | None, config: Path) -> None:
    """Say that RETIRED and SURVIVING are one patient, or every line of a file, whole or not at all."""
    settings = load_settings(config)
    if (file is None) == (surviving is None):
        msg = "give RETIRED and SURVIVING, or --file"
        raise click.UsageError(msg)
    prepare(settings)
    with open_ledger(settings).write() as ledger:
        for row in _rows(ledger, settings, file, (retired or "", surviving or "")):
            try:
                change = identity_changes.merge(ledger, row.retired, row.surviving, _me())
            except Refused as error:
                where = f"{file}: line {row.line}: " if file else ""
                fail(NodeError(f"{where}{error}"))
            _tell(f"{_name(row.retired)} is {_name(row.surviving)}", change)


def _rows(ledger: Connection, settings: Settings, file: Path | None, names: tuple[str, str]) -> list[MergeRow]:
    if file is None:
        retired, surviving = (_key(ledger, name, settings) for name in names)
        return [MergeRow(line=0, retired=retired, surviving=surviving)]
    try:
        receive = settings.receive
        return read_merges(file, default_issuer=receive.default_issuer, issuer_aliases=receive.issuer_aliases)
    except ConfigError as error:
        fail(error)


@patient.command()
@click.argument("retired", required=False)
@click.option("--study", help="Study Instance UID: of one study instead of a whole ID.")
@click.option("--to", help="Whose the study is, whatever ID it carries; without it, back to the ID it carries.")
@config_option
def split(retired: str | None, study: str | None, to: str | None, config: Path) -> None:
    """Take back the merge of RETIRED, or say whose one study is where two humans had one ID."""
    if (retired is None) == (study is None) or (to is not None and study is None):
        msg = "give RETIRED, or --study UID with or without --to ID"
        raise click.UsageError(msg)
    settings = load_settings(config)
    with open_ledger(settings).write() as ledger:
        try:
            if study is not None:
                owner = _key(ledger, to, settings) if to is not None else None
                change = identity_changes.give_study(ledger, study, owner, _me())
                _tell(f"study {study} is {_name(owner) if owner else 'its own ID'}'s", change)
            else:
                key = _key(ledger, retired or "", settings)
                _tell(f"{_name(key)} stands for itself", identity_changes.split(ledger, key, _me()))
        except Refused as error:
            fail(NodeError(str(error)))


@patient.command()
@click.argument("name", metavar="PATIENT")
@click.option("--birth-date", is_flag=True, help="Accept the birth dates that differ, too.")
@click.option("--sex", is_flag=True, help="Accept the sexes that differ, too.")
@click.option(
    "--instances",
    type=click.Choice([each.value for each in Choice]),
    help="Instead, of files that contradict an instance: keep the old, or take the newest in its place.",
)
@config_option
def accept(name: str, instances: str | None, config: Path, *, birth_date: bool, sex: bool) -> None:
    """Accept the names seen now as one human's. See `patient show` first: a value seen later is asked about again."""
    if instances is not None:
        if birth_date or sex:
            msg = "give --instances alone: files and names are decided on one after the other"
            raise click.UsageError(msg)
        _accept_instances(name, Choice(instances), config)
        return
    chosen = {"PatientName": True, "PatientBirthDate": birth_date, "PatientSex": sex}
    with open_ledger(load_settings(config)).write() as ledger:
        found = find_patient(ledger, name)
        try:
            accepted = identity_changes.accept(
                ledger, found.row_id, [field for field, wanted in chosen.items() if wanted], _me()
            )
        except Refused as error:
            fail(NodeError(str(error)))
        left = describe_identity(ledger, found)["differs_in"]
    for field, values in accepted.items():
        click.echo(f"accepted {field}: {' | '.join(values)}")
    if left:
        click.echo(f"still differs: {', '.join(left)}; the case stays held", err=True)
    if not accepted:
        fail(NodeError("nothing was accepted: no named field differs"))


def _accept_instances(name: str, choice: Choice, config: Path) -> None:
    with open_ledger(load_settings(config)).write() as ledger:
        found = find_patient(ledger, name)
        settled = conflicts.settle(ledger, found.row_id, choice, _me())
        waiting = arrivals.conflicts(ledger, found.row_id) - settled.to_read
    if not settled.instances:
        also = f"; {waiting} wait to be read again, ask afterwards" if waiting else ""
        fail(NodeError(f"nothing was accepted: no file contradicts an instance of this patient{also}"))
    click.echo(f"{settled.instances} instances decided on: the {choice} ones count")
    click.echo(
        f"  {settled.laid_aside} files laid aside, {settled.to_read} to be read again and taken at the next tick"
    )


@patient.command("list")
@click.option("--conflicts", is_flag=True, help="Only patients about whom a person has to decide.")
@config_option
@json_option
def list_(config: Path, *, conflicts: bool, as_json: bool) -> None:
    """Show every patient with all IDs, and whose studies differ in what."""
    with open_ledger(load_settings(config)).read() as ledger:
        found = list(identities(ledger, only_conflicts=conflicts))
    if as_json:
        print_json(found)
        return
    table = Table("patient", "also", "identity", "differs in", "conflicting files")
    for each in found:
        also = ", ".join(_id(other) for other in each["also"])
        count = str(each["conflicting_files"] or "")
        table.add_row(_id(each), also, each["state"], ", ".join(each["differs_in"]), count)
    Console().print(table)


@patient.command()
@click.argument("name", metavar="PATIENT")
@config_option
@json_option
def show(name: str, config: Path, *, as_json: bool) -> None:
    """Show what is said of a patient's name, birth date and sex, by which studies and by the registry."""
    with open_ledger(load_settings(config)).read() as ledger:
        found = describe_identity(ledger, find_patient(ledger, name))
    if as_json:
        print_json(found)
        return
    console = Console()
    console.print(f"{_id(found)}: {found['state']}", markup=False)
    for other in found["also"]:
        console.print(f"also {_id(other)}", markup=False)
    for uid in found["studies_given_by_hand"]:
        console.print(f"study {uid} was given by hand")
    if found["conflicting_files"]:
        console.print(f"{found['conflicting_files']} files contradict an instance with the same SOP Instance UID")
        console.print("see `patient accept --instances`")
    console.print(_field_table(found))


def _field_table(found: dict[str, Any]) -> Table:
    table = Table("field", "differs", "value", "accepted", "said by")
    for keyword, values in found["fields"].items():
        for each in values:
            studies = [
                f"{study['acquired_on'] or 'undated'} {study['study_instance_uid']}" for study in each["studies"]
            ]
            registry = [f"registry, of {_id(other)}" for other in each["registry"]]
            table.add_row(
                keyword,
                "yes" if keyword in found["differs_in"] else "",
                each["value"],
                "yes" if each["accepted"] else "",
                "\n".join([*studies, *registry]),
            )
    return table


def _me() -> By:
    return By(actor=getpass.getuser(), at=now())


def _key(ledger: Connection, name: str, settings: Settings) -> Key:
    """Read ID or ID^^^ISSUER; an ID alone is the one known here, else of the default issuer."""
    patient_id, _, issuer = name.partition("^^^")
    known = [] if issuer else patients.issuers_of(ledger, patient_id)
    if len(known) > 1:
        fail(NodeError(f"several issuers have this ID; name one as ID^^^ISSUER: {', '.join(known)}"))
    return issuer or next(iter(known), settings.receive.default_issuer), patient_id


def _tell(what: str, change: Change) -> None:
    derived = change.derived
    click.echo(f"{what}: {derived.instances} instances and {derived.studies} studies changed hands")
    for remark in change.remarks:
        click.echo(f"  {remark}")
    if derived.superseded:
        click.echo(f"  {len(derived.superseded)} open runs taken back, to be derived anew")
    for key in derived.mixed:
        click.echo(f"  report {key[:12]} was made from scans of both: see it, and `dicom-node withdraw {key[:12]}`")


def _name(key: Key) -> str:
    return f"{key[1]}^^^{key[0]}"


def _id(found: dict[str, Any]) -> str:
    return _name((found["issuer"], found["patient_id"]))
