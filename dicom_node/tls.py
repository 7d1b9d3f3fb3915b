"""DICOM TLS: contexts after the BCP 195 profile, handshakes with an end, and whose certificate was shown.

TLS 1.2 and 1.3, nothing older, and of TLS 1.2 only the four suites that RFC 9325 (4.2) recommends: an ephemeral
elliptic-curve key exchange, so that a key stolen later opens nothing recorded today, and AES-GCM, which needs no
separate MAC and has no padding to attack. Peers of the older profiles (B.9, B.10, B.11, retired) know these suites too.
Finite-field DHE, static RSA and CBC suites are left out; the suites of TLS 1.3 are all of the kind wanted. Keys below
112 bits of strength (RSA below 2048) and SHA-1 signatures fall to the security level. No session is ever resumed, so
that every association is judged by the certificates of its own day; no compression, no renegotiation.

Source: PS3.15 B.12 (BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile); RFC 9325.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from dicom_node.errors import UpstreamError
from dicom_node.tls_settings import FINGERPRINT

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.association import Association

    from dicom_node.settings import Dimse, Settings
    from dicom_node.tls_settings import Credentials, Tls

SUITES: Final = (  # of TLS 1.2; TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and so on in OpenSSL's words
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
NO_CERTIFICATE: Final = "not a certificate in PEM form"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A certificate that a peer has shown, and that leads to an authority we believe."""

    fingerprint: str
    names: frozenset[str]  # common names of the subject, and its alternative names
    ends: datetime

    def is_known_as(self, identity: str) -> bool:
        """Say whether it bears this name or fingerprint; a wildcard is compared as it is written."""
        return identity == self.fingerprint if identity.startswith(FINGERPRINT) else identity in self.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How a peer is connected to us."""

    secure: bool = False
    shown: Shown | None = None


PLAIN: Final = Link()


class CheckedSocket(ssl.SSLSocket):
    """A connection that we open: it ends where another certificate is shown than expected, and tells why it ended."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - Python's own signature
        """Shake hands, then look at who it was."""
        with _Told(self):
            super().do_handshake(block)
            expected = cast("RequestorContext", self.context).expected
            found = link(self).shown
            if expected is not None and (found is None or not found.is_known_as(expected)):
                msg = "the certificate shown is not the expected one"
                raise ssl.SSLCertVerificationError(1, msg)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read; in TLS 1.3 a peer that refuses our certificate says so only now."""
        with _Told(self):
            return super().recv(buflen, flags)

    def shutdown(self, how: int) -> None:
        """Shut down what is still open; pynetdicom closes only a socket that could be shut down."""
        with contextlib.suppress(OSError):
            super().shutdown(how)


class RequestorContext(ssl.SSLContext):
    """The context of one connection that we open, and what went wrong with it."""

    sslsocket_class = CheckedSocket
    expected: str | None = None
    failure: str | None = None


class _Told:
    """Notes the failure of a connection where `why_not` finds it; pynetdicom keeps none."""

    def __init__(self, connection: CheckedSocket) -> None:
        self._context = cast("RequestorContext", connection.context)

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Note the failure; it is still raised."""
        if isinstance(error, ssl.SSLError):
            self._context.failure = why(error)


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return what our listener serves TLS with.

    Raises:
        OSError: if a file cannot be read or used; `problems` says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if tls.mutual else ssl.CERT_NONE
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    _restrict(context)
    _load(context, tls)
    return context


def requestor_args(archive: Dimse) -> tuple[ssl.SSLContext, str] | None:
    """Return what pynetdicom needs to call an archive over TLS, None where it is called without.

    The files are read for every association: a renewed certificate is used at once.

    Raises:
        UpstreamError: if a file cannot be read or used now; `problems` says which.
    """
    if archive.tls is None:
        return None
    context = RequestorContext(ssl.PROTOCOL_TLS_CLIENT)
    context.expected = archive.tls.certificate_identity
    context.check_hostname = context.expected is None
    _restrict(context)
    try:
        _load(context, archive.tls)
    except OSError as error:
        msg = "our TLS files for this archive cannot be used; `dicom-node check` says which"
        raise UpstreamError(msg) from error
    return context, archive.host


def failure(association: Association) -> str | None:
    """Return why TLS with an archive failed, None if it did not, or was not used."""
    transport = association.dul.socket
    args = transport.tls_args if transport is not None else None
    found = args[0].failure if args is not None and isinstance(args[0], RequestorContext) else None
    return f"TLS with the archive failed: {found}" if found else None


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(":".join(SUITES) + ":@SECLEVEL=2")


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    if credentials.certificate is not None:
        passphrase = credentials.passphrase  # a function, for OpenSSL would ask the terminal where there is none
        context.load_cert_chain(credentials.certificate, credentials.key, password=lambda: passphrase)
    if credentials.ca is not None:
        context.load_verify_locations(credentials.ca)


def handshake(connection: ssl.SSLSocket, timeout_s: float) -> None:
    """Shake hands as the server, in so many seconds altogether, however slowly the other side drips.

    Raises:
        OSError: if it failed; TimeoutError if it took too long.
    """
    end = time.monotonic() + timeout_s
    connection.settimeout(0)
    while True:
        try:
            connection.do_handshake()
            break
        except ssl.SSLWantReadError:
            waits_for = select.POLLIN
        except ssl.SSLWantWriteError:
            waits_for = select.POLLOUT
        poll = select.poll()
        poll.register(connection, waits_for)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise TimeoutError
    connection.settimeout(None)


def link(connection: socket.socket | None) -> Link:
    """Return how a peer is connected, and the certificate it has shown."""
    if not isinstance(connection, ssl.SSLSocket):
        return PLAIN
    encoded = connection.getpeercert(binary_form=True)
    told: Any = connection.getpeercert()
    return Link(secure=True, shown=_shown(encoded, told) if encoded and told else None)


def _shown(encoded: bytes, told: dict[str, Any]) -> Shown:
    names = [value for part in told.get("subject", ()) for name, value in part if name == "commonName"]
    names += [value for _, value in told.get("subjectAltName", ()) if isinstance(value, str)]
    return Shown(
        fingerprint=fingerprint(encoded),
        names=frozenset(name.lower() for name in names),
        ends=datetime.fromtimestamp(ssl.cert_time_to_seconds(told["notAfter"]), UTC),
    )


def fingerprint(encoded: bytes) -> str:
    """Return the fingerprint of a certificate in DER form, as a configuration names it."""
    return FINGERPRINT + hashlib.sha256(encoded).hexdigest()


def why(error: BaseException) -> str:
    """Return OpenSSL's reason of a failed handshake: one of a fixed set of words, nothing that the peer chose."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(getattr(error, "verify_message", None) or error.args[-1])
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return "no handshake in time"
    return "the connection was lost"


def own_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a file, ours first.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds no certificate.
    """
    return x509.load_pem_x509_certificates(path.read_bytes())


def own_fingerprint(path: Path) -> str:
    """Return the fingerprint of our certificate.

    Raises:
        OSError, ValueError: as `own_certificates`.
    """
    return FINGERPRINT + own_certificates(path)[0].fingerprint(hashes.SHA256()).hex()


def served_fingerprint(host: str, ours: Tls, *, timeout_s: float) -> str:
    """Return the fingerprint of the certificate that our own secure port shows, whoever signed it.

    Raises:
        OSError: if nobody answers, or not in TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is compared with the file
    _restrict(context)
    _load(context, ours)
    with (
        socket.create_connection((host, ours.port), timeout=timeout_s) as connection,
        context.wrap_socket(connection) as secured,
    ):
        return fingerprint(secured.getpeercert(binary_form=True) or b"")


def used(settings: Settings) -> list[tuple[str, Credentials]]:
    """Return every (key of the configuration, credentials) that is in use."""
    found: list[tuple[str, Credentials]] = []
    if settings.receive.tls.enabled:
        found.append(("receive.tls", settings.receive.tls))
    for index, pacs in enumerate(settings.pacs):
        if pacs.dimse is not None and pacs.dimse.tls is not None:
            found.append((f"pacs.{index}.dimse.tls", pacs.dimse.tls))
    if settings.audit.syslog is not None:
        found.append(("audit.syslog", settings.audit.syslog))
    return found


def problems(settings: Settings) -> list[str]:
    """Return what is wrong with the files that a configuration names, one line each: key, value, rule."""
    return [line for where, credentials in used(settings) for line in _problems(where, credentials)]


def _problems(where: str, credentials: Credentials) -> list[str]:
    lines = []
    for name in ("certificate", "key", "ca"):
        path: Path | None = getattr(credentials, name)
        if path is None:
            continue
        try:
            if name == "key":
                path.read_bytes()
            else:
                own_certificates(path)
        except OSError as error:
            lines.append(f"{where}.{name} = {str(path)!r}: cannot be read: {error.strerror}")
        except ValueError:
            lines.append(f"{where}.{name} = {str(path)!r}: {NO_CERTIFICATE}")
    if credentials.key_passphrase_env and not credentials.passphrase:
        lines.append(f"{where}.key_passphrase_env = {credentials.key_passphrase_env!r}: this variable is not set")
    return lines or _misfits(where, credentials)


def _misfits(where: str, credentials: Credentials) -> list[str]:
    """Return what is wrong with files that can be read, found by using them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    try:
        _load(context, credentials)
    except ssl.SSLError as error:
        rule = f"cannot be used: {why(error)}"
        if error.reason == "KEY_VALUES_MISMATCH":
            rule = f"is not the key of {where}.certificate"
        elif credentials.certificate is not None and not (error.reason or "").startswith(("EE_", "CA_")):
            rule = "not a private key in PEM form, or its passphrase (key_passphrase_env) is missing or wrong"
        return [f"{where}.key = {str(credentials.key)!r}: {rule}"]
    return []
