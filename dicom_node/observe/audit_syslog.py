"""Audit messages on their way out: syslog over TLS or UDP, or a file of our own.

A message is an RFC 5424 line. Syslog knows no answer (RFC 5425 4.4): a batch counts as taken when the other side has
closed the TLS connection after our close_notify, which it does after reading what came before; a side that never
closes is believed, since it proved a moment ago that it lives. What may not have arrived is sent again, so the
repository may hear a thing twice. A datagram is gone when the network takes it: who must not lose any uses TLS.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node.errors import NodeError, UpstreamError
from dicom_node.tls import SUITES, why

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.observe.audit_settings import Syslog

FACILITY: Final = 10  # security/authorization, PS3.15 A.6
NOTICE: Final = 5
WARNING: Final = 4
MESSAGE_ID: Final = "DICOM+RFC3881"  # PS3.15 A.6
APPLICATION: Final = "dicom-node"
LARGEST_DATAGRAM_BYTES: Final = 65_507  # UDP over IPv4
_NOT_A_WORD = re.compile(r"[^\x21-\x7e]")  # PRINTUSASCII, RFC 5424 6


class Sink(Protocol):
    """A way out for messages."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Hand over messages, all or none of them.

        Raises:
            UpstreamError: if they may not have arrived.
            OSError: the same.
        """
        ...


def syslog_line(xml: str, *, at: datetime, host: str, pid: int, warning: bool) -> bytes:
    """Write an audit message as an RFC 5424 message, as PS3.15 A.6 says; no line end."""
    priority = FACILITY * 8 + (WARNING if warning else NOTICE)
    name = _NOT_A_WORD.sub("?", host)[:255] or "-"
    header = f"<{priority}>1 {at.isoformat(timespec='milliseconds')} {name} {APPLICATION} {pid} {MESSAGE_ID} - "
    return header.encode("ascii") + b"\xef\xbb\xbf" + xml.encode("utf-8")


@dataclass(frozen=True, slots=True)
class TlsSyslog:
    """One connection per batch, octets counted before each message (RFC 5425 4.3)."""

    settings: Syslog

    def send(self, lines: Sequence[bytes]) -> None:
        """Hand over messages; some may arrive although this raises.

        Raises:
            UpstreamError: if the connection broke before the end.
            NodeError: if our certificate, key or list of authorities cannot be used.
        """
        wanted = self.settings
        context = client_context(wanted)
        try:
            with (
                socket.create_connection((wanted.host, wanted.port), timeout=wanted.timeout_s) as plain,
                context.wrap_socket(plain, server_hostname=wanted.host) as connection,
            ):
                connection.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))
                _close(connection)
        except OSError as error:  # ssl.SSLError is one
            reason = why(error) if isinstance(error, ssl.SSLError) else type(error).__name__
            msg = f"syslog {wanted.host}:{wanted.port}: {reason}"
            raise UpstreamError(msg) from error


def client_context(wanted: Syslog) -> ssl.SSLContext:
    """Return how to speak TLS with the repository: as with archives, its certificate and host name checked (BCP 195).

    Raises:
        NodeError: if a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=wanted.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(SUITES))
        if wanted.certificate is not None:
            passphrase = wanted.passphrase
            context.load_cert_chain(wanted.certificate, wanted.key, password=lambda: passphrase)
    except OSError as error:
        msg = f"audit.syslog: ca, certificate or key cannot be used: {why(error)}"
        raise NodeError(msg) from error
    return context


def _close(connection: ssl.SSLSocket) -> None:
    with contextlib.suppress(TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        connection.unwrap()


@dataclass(frozen=True, slots=True)
class UdpSyslog:
    """One datagram per message (RFC 5426 3.1)."""

    settings: Syslog

    def send(self, lines: Sequence[bytes]) -> None:
        """Hand messages to the network.

        Raises:
            UpstreamError: if it takes none, or said of the one before that nobody is there.
        """
        host, port = self.settings.host, self.settings.port
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as sender:
                sender.settimeout(self.settings.timeout_s)
                sender.connect(address)
                for line in lines:
                    sender.send(line[:LARGEST_DATAGRAM_BYTES])
        except OSError as error:
            msg = f"syslog {host}:{port}: {type(error).__name__}"
            raise UpstreamError(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSink:
    """A file that only its owner may read, turned over by size; a link in its place is refused, not followed."""

    path: Path
    max_bytes: int
    keep: int

    def send(self, lines: Sequence[bytes]) -> None:
        """Append messages, one a line, and make them durable.

        Raises:
            OSError: if the disk says no, or the name is taken by something that is no file of ours.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o600), "ab") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if size >= self.max_bytes:
            self._turn_over()

    def _turn_over(self) -> None:
        """Rename audit.log to audit.log.1, .1 to .2 and so on; the oldest goes."""
        for number in range(self.keep, 0, -1):
            before = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if before.exists():
                before.replace(self.path.with_name(f"{self.path.name}.{number}"))
