"""Certificates made at run time: authorities, and what they sign for whom and until when."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """As a configuration names it."""
        found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        return f"sha256:{found.fingerprint(hashes.SHA256()).hex()}"

    def as_settings(self, ca: Path, **more: Any) -> dict[str, Any]:
        """Return a section of a configuration with them."""
        return {"certificate": str(self.certificate), "key": str(self.key), "ca": str(ca), **more}

    def as_dcmtk(self, ca: Path) -> list[str]:
        """Return what DCMTK's tools need to show it, and to believe an authority."""
        return ["+tls", str(self.key), str(self.certificate), "+cf", str(ca)]


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _private_key(kind: str) -> Any:
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


@dataclass
class Authority:
    """Signs certificates; its own lies in `ca`."""

    folder: Path
    name: str = "Test Authority"
    _key: Any = field(default_factory=lambda: _private_key("ec"))

    def __post_init__(self) -> None:
        """Sign its own certificate."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._certificate = self._sign(self.name, self._key.public_key(), days=3650, is_authority=True)
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def ca(self) -> Path:
        """Its own certificate."""
        return self.folder / "ca.pem"

    def issue(self, name: str, *, days: float = 365, kind: str = "ec", passphrase: str = "") -> Pair:
        """Make a key and sign a certificate for it, of this common name, for localhost, that ends in so many days."""
        key = _private_key(kind)
        hidden = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else None
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        certificate = self._sign(name, key.public_key(), days=days)
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                hidden or serialization.NoEncryption(),
            )
        )
        pair.key.chmod(0o600)
        return pair

    def _sign(self, name: str, public_key: Any, *, days: float, is_authority: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        alternative = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        return builder.sign(self._key, hashes.SHA256())
