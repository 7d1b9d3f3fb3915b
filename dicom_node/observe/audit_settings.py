"""What the configuration says of the audit trail: where its messages go, and how many may wait.

Of the keys that stand in files only the files' names stand here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dicom_node.addresses import Port
from dicom_node.documents import Document
from dicom_node.tls_settings import Credentials


class Syslog(Credentials):
    """An audit record repository: RFC 5424 messages over TLS (RFC 5425) or UDP (RFC 5426), PS3.15 A.6 and A.7.

    Without `ca` the authorities are believed that the system believes.
    """

    host: str = Field(min_length=1)
    port: Port = 6514
    protocol: Literal["tls", "udp"] = "tls"
    timeout_s: float = Field(default=10, gt=0, le=60)

    @model_validator(mode="after")
    def _credentials_for_tls(self) -> Self:
        if self.protocol == "udp" and (self.ca or self.certificate):
            msg = "ca, certificate and key are for protocol: tls"
            raise ValueError(msg)
        return self


class AuditFile(Document):
    """A file of RFC 5424 lines, readable by the node's user alone: turned over by size, so many old ones kept."""

    path: Path | None = None  # none: audit/audit.log under the data folder
    max_mb: float = Field(default=10, gt=0)
    keep: int = Field(default=20, ge=1, le=1000)


class Audit(Document):
    """The audit trail (PS3.15 A.5). It names patients by ID, as nothing else that leaves the ledger does."""

    syslog: Syslog | None = None
    file: AuditFile | None = None
    site: str | None = Field(default=None, min_length=1, max_length=64)  # AuditEnterpriseSiteID
    most_waiting: int = Field(default=100_000, ge=100)  # messages per way out; more: the oldest are dropped, and told

    def relative_to(self, folder: Path) -> Audit:
        """Return the same with every path absolute, taken from a folder."""
        update: dict[str, Any] = {}
        if self.syslog is not None:
            update["syslog"] = self.syslog.relative_to(folder)
        if self.file is not None and self.file.path is not None:
            update["file"] = self.file.model_copy(
                update={"path": folder.joinpath(self.file.path.expanduser()).resolve()}
            )
        return self.model_copy(update=update)
