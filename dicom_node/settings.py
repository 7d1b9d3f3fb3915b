"""YAML -> Settings. Every wrong key is told at once, with file, key, value and rule; unknown keys are errors.

Relative paths in the file are relative to the file. Secrets never stand in it: they come from the environment or
from files that it names. A key whose function is not in this version accepts only its "off" value and says so.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import pydicom.uid
from pydantic import Field, field_validator, model_validator

from dicom_node.addresses import AeTitle, Networks, Port
from dicom_node.documents import Document, load_document
from dicom_node.observe.audit_settings import Audit
from dicom_node.pacs_settings import (
    DicomWeb,
    Dimse,
    Orthanc,
    Pacs,
    Priors,
    RetrieveMethod,
    Retry,
    StorageCommitment,
)
from dicom_node.tls_settings import CertificateIdentity, Tls
from dicom_node.web.settings import Web

if TYPE_CHECKING:
    from collections.abc import Iterable

# The classes of an archive stand in a file of their own; who reads settings imports them from here.
__all__ = ["DicomWeb", "Dimse", "Orthanc", "Pacs", "Priors", "RetrieveMethod", "Retry", "Settings", "StorageCommitment"]

DEFAULT_SOP_CLASSES: Final = (
    "MRImageStorage",
    "EnhancedMRImageStorage",
    "KeyObjectSelectionDocumentStorage",
    "EnhancedSRStorage",
    "ComprehensiveSRStorage",
    "Comprehensive3DSRStorage",
)
LONGEST_ISSUER: Final = 64  # VR LO, PS3.5 6.2
UNKNOWN_ISSUER: Final = "UNKNOWN"  # of what comes from somebody who is no configured peer
STORAGE_SOP_CLASSES: Final = {
    keyword: str(uid)
    for keyword, uid in vars(pydicom.uid).items()
    if isinstance(uid, pydicom.uid.UID) and keyword.endswith("Storage")
}

Seconds = Annotated[float, Field(ge=0)]
Right = Literal["store", "echo", "commitment"]  # C-STORE, C-ECHO, N-EVENT-REPORT of storage commitment


class Node(Document):
    """Who we are and where our data lie."""

    ae_title: AeTitle
    host: str = "127.0.0.1"
    port: Port = 11112
    data_dir: Path


class Database(Document):
    """Where the ledger and the work engine keep their rows; no URL: SQLite files under the data folder."""

    url: str | None = None

    @field_validator("url")
    @classmethod
    def _known(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite:///", "postgresql+psycopg://")):
            msg = "expected a URL that starts with sqlite:/// or postgresql+psycopg://"
            raise ValueError(msg)
        if url is not None and re.search(r"://[^/@]*:[^/]*@|[?&]password=", url):
            msg = "a password does not stand here; it comes from the environment, in PGPASSWORD or PGPASSFILE"
            raise ValueError(msg)
        return url


class Peer(Document):
    """A system that may send to us: its AE title, the addresses it may call from, the issuer of its PatientIDs.

    Beside that, what it may ask for, over which port, and whose certificate it has to show.
    """

    ae_title: AeTitle
    hosts: Networks = Field(min_length=1)
    default_issuer: str = Field(min_length=1)
    stat: bool = False
    rights: tuple[Right, ...] = Field(default=("store", "echo"), min_length=1)
    max_associations: int | None = Field(default=None, ge=1)  # at the same time; none: as many as there are for all
    tls: Literal["optional", "required"] = "optional"
    certificate_identity: CertificateIdentity | None = None  # none: any certificate that no other peer is known by

    def allows(self, address: str) -> bool:
        """Say whether a call from this IP address may be this peer."""
        caller = ipaddress.ip_address(address)
        return any(caller in ipaddress.ip_network(host, strict=False) for host in self.hosts)

    @model_validator(mode="after")
    def _shows_what_is_expected(self) -> Self:
        if self.certificate_identity is not None and self.tls != "required":
            msg = "certificate_identity needs tls: required, for nothing is shown over the plain port"
            raise ValueError(msg)
        return self


class Hl7(Document):
    """Patient updates and merges (ADT A08, A40) over MLLP; no port: not listening."""

    host: str = "127.0.0.1"
    port: Port | None = None
    hosts: Networks = ("127.0.0.1",)  # that may send
    default_issuer: str | None = None  # of IDs whose PID-3 and MRG-1 name no assigning authority


class Receive(Document):
    """What we accept, from whom, and when a study counts as complete."""

    peers: tuple[Peer, ...] = ()
    allow_unknown_peers: bool = False
    plain: bool = True  # whether node.port is served, which knows no TLS
    tls: Tls = Tls()
    engine: Literal["stock", "fast"] = "fast"
    sop_classes: tuple[str, ...] = DEFAULT_SOP_CLASSES
    max_associations: int = Field(default=20, ge=1, le=1000)
    idle_timeout_s: float = Field(default=60, gt=0)
    max_pdu_bytes: int = Field(default=131072, ge=4096)
    min_free_disk_gb: float = Field(default=5, ge=0)
    quiet_period_s: Seconds = 60
    max_wait_s: Seconds = 3600
    max_read_s: float = Field(default=60, gt=0)  # of one file, in the process that reads headers
    max_read_memory_gb: float = Field(default=8, ge=1)  # address space of that process
    hl7: Hl7 = Hl7()
    issuer_aliases: dict[str, str] = Field(default_factory=dict)  # another word for an issuer -> the issuer

    @property
    def default_issuer(self) -> str:
        """The issuer of PatientIDs that come by hand and name none: the first peer's."""
        return self.peers[0].default_issuer if self.peers else UNKNOWN_ISSUER

    def issuer(self, name: str) -> str:
        """Return the issuer that a name from outside stands for."""
        return self.issuer_aliases.get(name, name)

    def known_as(self, ids: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return (issuer, PatientID)s, and the same IDs under every alias of their issuers, as others may say them."""
        said = list(ids)
        also = [
            (alias, patient_id)
            for issuer, patient_id in said
            for alias, stands_for in self.issuer_aliases.items()
            if stands_for == issuer
        ]
        return list(dict.fromkeys([*said, *also]))

    @field_validator("issuer_aliases")
    @classmethod
    def _names(cls, aliases: dict[str, str]) -> dict[str, str]:
        stripped = {alias.strip(" "): issuer.strip(" ") for alias, issuer in aliases.items()}
        legal = all(0 < len(each) <= LONGEST_ISSUER for pair in stripped.items() for each in pair)
        if len(stripped) < len(aliases) or not legal:
            msg = f"expected pairs ALIAS: ISSUER, each alias once, of 1 to {LONGEST_ISSUER} characters"
            raise ValueError(msg)
        chained = sorted(set(stripped) & set(stripped.values()))
        if chained:
            msg = f"an alias must stand for an issuer, not for another alias: {', '.join(chained)}"
            raise ValueError(msg)
        return stripped

    @field_validator("sop_classes")
    @classmethod
    def _storage_classes(cls, keywords: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [keyword for keyword in keywords if keyword not in STORAGE_SOP_CLASSES]
        if unknown:
            msg = f"not the keyword of a storage SOP class (PS3.6 table A-1): {', '.join(unknown)}"
            raise ValueError(msg)
        return keywords

    @model_validator(mode="after")
    def _everyone_can_come(self) -> Self:
        if not self.plain and not self.tls.enabled:
            msg = "plain: false needs tls.enabled: true, or nobody could send"
            raise ValueError(msg)
        for peer in self.peers:
            if peer.tls == "required" and not self.tls.enabled:
                msg = f"peers: {peer.ae_title}: tls: required needs tls.enabled: true"
                raise ValueError(msg)
            if peer.certificate_identity is not None and not self.tls.mutual:
                msg = f"peers: {peer.ae_title}: certificate_identity needs tls.mutual: true, or no certificate is shown"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_rule_per_title(self) -> Self:
        titles = [peer.ae_title for peer in self.peers]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            msg = f"peers: AE title given more than once: {', '.join(twice)}; list its addresses in one entry"
            raise ValueError(msg)
        return self


class Inference(Document):
    """Where and how the model runs; `template` is a folder with t1.nii.gz and mask.nii.gz, none: MNI152."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = Field(default=1, ge=1, le=16)
    template: Path | None = None
    nice: int = Field(default=19, ge=0, le=19)
    max_run_minutes: float = Field(default=120, gt=0)
    max_memory_gb: float | None = Field(default=None, gt=0)  # of one worker; none: a share of four fifths of all


class Retention(Document):
    """How long what can be made or fetched again is kept; reports are never deleted by themselves."""

    cache_days: float = Field(default=90, gt=0)
    images_days: float | None = Field(default=None, gt=0)  # received images no live case needs; none: for ever


class Logging(Document):
    """How much is logged, and as what: pretty on a terminal, JSON lines otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Settings(Document):
    """The whole configuration of a node."""

    node: Node
    database: Database = Database()
    receive: Receive = Receive()
    mode: Literal["live", "shadow"] = "live"
    audit: Audit = Audit()
    pacs: tuple[Pacs, ...] = ()
    tasks: tuple[str, ...] = Field(min_length=1)
    selection: Path | None = None
    inference: Inference = Inference()
    web: Web = Web()
    retention: Retention = Retention()
    logging: Logging = Logging()

    @property
    def default_issuers(self) -> dict[str, str]:
        """AE title -> issuer of PatientIDs that name none, of everybody who sends."""
        archives = {each.dimse.ae_title: each.default_issuer for each in self.pacs if each.dimse is not None}
        named = {title: issuer for title, issuer in archives.items() if issuer is not None}
        return named | {peer.ae_title: peer.default_issuer for peer in self.receive.peers}

    @model_validator(mode="after")
    def _default_issuers_are_issuers(self) -> Self:
        defaults = {
            "receive.hl7": self.receive.hl7.default_issuer,
            **{f"receive.peers {each.ae_title}": each.default_issuer for each in self.receive.peers},
            **{f"pacs {each.name}": each.default_issuer for each in self.pacs},
        }
        aliases = self.receive.issuer_aliases
        problems = [
            f"{where}: default_issuer {name!r} is an alias; write {aliases[name]!r}"
            for where, name in defaults.items()
            if name in aliases
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [each.name for each in self.pacs]
        if len(set(names)) != len(names):
            msg = "pacs: every name may stand once"
            raise ValueError(msg)
        if not self.receive.peers and not self.receive.allow_unknown_peers:
            msg = "receive.peers is empty, so nobody could send; list peers, or set allow_unknown_peers: true"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.receive.tls.enabled and self.receive.plain and self.receive.tls.port == self.node.port:
            msg = f"receive.tls.port is node.port, {self.node.port}; the plain and the secure port are two"
            raise ValueError(msg)
        return self

    @property
    def ledger_url(self) -> str:
        """The URL of the ledger's database."""
        return self.database.url or f"sqlite:///{self.node.data_dir / 'ledger.sqlite'}"

    @property
    def engine_url(self) -> str:
        """The URL of the work engine's database: its own SQLite file, or the ledger's server."""
        if self.database.url and not self.database.url.startswith("sqlite"):
            return self.database.url
        return f"sqlite:///{self.node.data_dir / 'engine.sqlite'}"


def load(path: Path) -> Settings:
    """Read and check a configuration file.

    Raises:
        ConfigError: with one line per problem, all of them at once.
    """
    path = path.resolve()
    return _absolute(load_document(path, Settings), path.parent)


def _absolute(settings: Settings, folder: Path) -> Settings:
    """Make the paths of a configuration absolute, relative to the file they stand in."""

    def resolve(path: Path) -> Path:
        return (folder / path.expanduser()).resolve()

    update: dict[str, Any] = {
        "node": settings.node.model_copy(update={"data_dir": resolve(settings.node.data_dir)}),
    }
    update["audit"] = settings.audit.relative_to(folder)
    if settings.selection:
        update["selection"] = resolve(settings.selection)
    if settings.inference.template:
        update["inference"] = settings.inference.model_copy(update={"template": resolve(settings.inference.template)})
    users = [
        user.model_copy(update={"token_file": resolve(user.token_file)}) if user.token_file else user
        for user in settings.web.users
    ]
    update["web"] = settings.web.model_copy(update={"users": tuple(users)})
    update["receive"] = settings.receive.model_copy(update={"tls": settings.receive.tls.relative_to(folder)})
    update["pacs"] = tuple(each.relative_to(folder) for each in settings.pacs)
    update["tasks"] = tuple(
        str(resolve(Path(task))) if task.endswith((".yaml", ".yml")) else task for task in settings.tasks
    )
    return settings.model_copy(update=update)
