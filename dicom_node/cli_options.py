"""What the verbs share: the configuration option, the way to fail, the naming of a patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dicom_node import settings
from dicom_node.errors import ConfigError, NodeError
from dicom_node.ledger import patients
from dicom_node.ledger.database import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient
    from dicom_node.settings import Settings

config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("node.yaml"),
    envvar="DICOM_NODE_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The node's configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print stable JSON instead of text.")


def fail(error: Exception) -> NoReturn:
    """Print an error and end: exit code 2 for wrong configuration, 1 for everything else."""
    click.echo(str(error), err=True)
    raise SystemExit(2 if isinstance(error, ConfigError) else 1)


def load_settings(config: Path) -> Settings:
    """Load the configuration, or end with exit code 2 and every problem."""
    try:
        return settings.load(config)
    except ConfigError as error:
        fail(error)


def open_ledger(found: Settings) -> Database:
    """Open the ledger of a node that has run before, or end with exit code 1."""
    if not found.database.url and not (found.node.data_dir / "ledger.sqlite").is_file():
        fail(NodeError(f"{found.node.data_dir}: no ledger here yet; start dicom-node run once"))
    database = Database(found.ledger_url)
    try:
        database.require_newest_schema()
    except NodeError as error:
        fail(error)
    return database


def find_patient(ledger: Connection, name: str) -> Patient:
    """Return the one patient of a name as an HL7 CX says it: ID, or ID^^^ISSUER; else end with exit code 1."""
    patient_id, _, issuer = name.partition("^^^")
    found = patients.find(ledger, patient_id, issuer or None)
    if len(found) == 1:
        return found[0]
    if not found:
        fail(NodeError("no such patient here"))
    issuers = ", ".join(each.issuer for each in found)
    fail(NodeError(f"several patients have this ID; name the issuer as ID^^^ISSUER, one of: {issuers}"))


def print_json(value: Any) -> None:
    """Print a value as JSON, dates and times in ISO 8601."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=_iso))


def _iso(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
