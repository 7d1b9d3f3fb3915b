"""DICOM TLS as the configuration says it: our certificate and key, whom we believe, whose certificate we expect.

Everything lies in PEM files. The passphrase of a key never stands in the configuration: it comes from the environment,
in a variable that the configuration names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from dicom_node.addresses import Port
from dicom_node.documents import Document

FINGERPRINT: Final = "sha256:"


def _certificate_identity(value: str) -> str:
    """Check and normalise the name or the fingerprint by which a certificate is known."""
    identity = value.strip().lower()
    if identity.startswith(FINGERPRINT):
        digits = identity.removeprefix(FINGERPRINT).replace(":", "")
        if not re.fullmatch("[0-9a-f]{64}", digits):
            msg = "a fingerprint is sha256: and 64 hexadecimal digits, with or without colons between them"
            raise ValueError(msg)
        return FINGERPRINT + digits
    if not identity:
        msg = "expected a name in the certificate, or its fingerprint sha256:HEX"
        raise ValueError(msg)
    return identity


CertificateIdentity = Annotated[str, AfterValidator(_certificate_identity)]


class Credentials(Document):
    """What we show and whom we believe."""

    certificate: Path | None = None  # ours first, then those that lead to its authority
    key: Path | None = None  # of our certificate
    key_passphrase_env: str | None = None
    ca: Path | None = None  # the authorities whose certificates we believe

    @property
    def passphrase(self) -> str:
        """The passphrase of the key, empty where there is none."""
        return os.environ.get(self.key_passphrase_env, "") if self.key_passphrase_env else ""

    def relative_to(self, folder: Path) -> Self:
        """Return them with their paths absolute, taken from a folder."""
        paths = {name: getattr(self, name) for name in ("certificate", "key", "ca")}
        return self.model_copy(
            update={name: (folder / path.expanduser()).resolve() for name, path in paths.items() if path is not None}
        )

    @model_validator(mode="after")
    def _certificate_with_its_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            msg = "certificate and key are given together or not at all"
            raise ValueError(msg)
        return self


class Tls(Credentials):
    """The secure port of our listener."""

    enabled: bool = False
    port: Port = 2762  # dicom-tls, as registered with IANA
    mutual: bool = True  # whoever calls has to show a certificate of `ca`
    handshake_timeout_s: float = Field(default=10, gt=0, le=60)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = ("certificate", "key", "ca") if self.mutual else ("certificate", "key")
        missing = [name for name in needed if getattr(self, name) is None]
        if self.enabled and missing:
            msg = f"enabled: true needs {', '.join(missing)}"
            raise ValueError(msg)
        return self


class ArchiveTls(Credentials):
    """How we call an archive over TLS: always checked against `ca`, and for its host name or what is said here."""

    ca: Path
    certificate_identity: CertificateIdentity | None = None  # none: the certificate must bear the archive's host name
