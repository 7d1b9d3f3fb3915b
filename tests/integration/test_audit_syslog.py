"""Audit messages over real sockets: TLS with certificates made at run time, UDP, and repositories that misbehave."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicom_node.demo_pacs import free_port
from dicom_node.errors import UpstreamError
from dicom_node.ledger.database import Database
from dicom_node.observe.audit import AuditTrail, open_trail
from dicom_node.observe.audit_facts import collect
from dicom_node.observe.audit_settings import Syslog
from dicom_node.observe.audit_syslog import TlsSyslog, UdpSyslog
from dicom_node.observe.audit_teller import Teller
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging
from tests.factories.audited import audited_settings, everything_happens, read_line
from tests.factories.ledger import NOW
from tests.factories.peers import wait_until
from tests.factories.postgresql import PROGRAMS, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Authority:
    """An authority and what it signs, as PEM files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = folder / "ca.pem"
        self._write(self.certificate, self._sign(self._name, self._key, authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return certificate and key of a system on the loopback interface."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self._write(paths[0], self._sign(subject, key, authority=False))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


class Repository:
    """An audit record repository: takes one TLS connection after the other, and reads it by RFC 5425 to the letter."""

    def __init__(self, authority: Authority, end: Callable[[ssl.SSLSocket], None]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue("repository"))
        self._context.load_verify_locations(authority.certificate)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._end = end
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.received: list[bytes] = []
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            plain.settimeout(30)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self.received += list(frames(connection))
                    self._end(connection)
            except OSError:
                plain.close()


def frames(connection: ssl.SSLSocket) -> Iterator[bytes]:
    """Split a stream into messages: MSG-LEN SP SYSLOG-MSG (RFC 5425 4.3)."""
    stream = connection.makefile("rb")
    while True:
        digits = b""
        while (byte := stream.read(1)) not in {b" ", b""}:
            assert byte.isdigit()
            digits += byte
        if not digits:
            return
        message = stream.read(int(digits))
        assert len(message) == int(digits)
        yield message


def says_goodbye(connection: ssl.SSLSocket) -> None:
    """Answer close_notify with close_notify, as RFC 5425 4.4 demands."""
    connection.unwrap()


def hangs_up(connection: ssl.SSLSocket) -> None:
    """End the TCP connection without a word, as many do."""
    connection.shutdown(socket.SHUT_RDWR)


def breaks(connection: ssl.SSLSocket) -> None:
    """Reset the TCP connection, as one that crashes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that both sides believe."""
    return Authority(tmp_path)


@pytest.fixture
def repository(authority: Authority) -> Iterator[Callable[[Callable[[ssl.SSLSocket], None]], Repository]]:
    """Return a maker of repositories."""
    made: list[Repository] = []

    def make(end: Callable[[ssl.SSLSocket], None] = says_goodbye) -> Repository:
        made.append(Repository(authority, end))
        return made[-1]

    yield make
    for each in made:
        each.close()


def way_to(port: int, authority: Authority, **changes: Any) -> TlsSyslog:
    """Return the way to a repository, as one whom it knows."""
    certificate, key = authority.issue("node")
    options = {"host": "127.0.0.1", "port": port, "ca": authority.certificate, "certificate": certificate, "key": key}
    return TlsSyslog(Syslog(**(options | {"timeout_s": 20} | changes)))


LINES = [b"<85>1 one", "<85>1 zwei ü\n with a line end".encode(), b"<85>1 " + b"x" * 100_000]


@pytest.mark.parametrize("end", [says_goodbye, hangs_up])
def test_messages_arrive_as_they_are_counted_and_in_order(authority: Authority, repository: Any, end: Any) -> None:
    """Both certificates checked; long ones, line ends and umlauts too; from repositories with and without manners."""
    found = repository(end)
    sink = way_to(found.port, authority)
    sink.send(LINES)
    sink.send([b"<85>1 next"])
    wait_until("both batches", lambda: len(found.received) == 4, timeout_s=30)
    assert found.received == [*LINES, b"<85>1 next"]
    assert found.connections == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ca": None}, "certificate"),  # whom nobody vouches for
        ({"host": "localhost"}, "mismatch"),  # its certificate bears another name
        ({"certificate": None, "key": None}, "certificate|onnection|Pipe"),  # it wants to know us; TLS 1.3 says so late
    ],
)
def test_nothing_is_told_to_whom_we_do_not_trust_or_who_does_not_know_us(
    authority: Authority, repository: Any, changes: dict[str, Any], reason: str
) -> None:
    """The message waits, and the admin reads why."""
    found = repository()
    with pytest.raises(
        UpstreamError, match=reason
    ):  # more than fits into what nobody reads: TLS 1.3 tells late or never
        way_to(found.port, authority, **changes).send(LINES)
    assert found.received == []


def test_a_repository_that_breaks_off_gets_the_batch_again(authority: Authority, repository: Any) -> None:
    """What may not have been read counts as not sent."""
    found = repository(breaks)
    with pytest.raises(UpstreamError):
        way_to(found.port, authority).send(LINES)


def test_a_repository_that_is_not_there_is_told_as_such(authority: Authority) -> None:
    """With host and port, and without waiting for long."""
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:\d+: ConnectionRefusedError"):
        way_to(free_port(), authority).send(LINES)


def test_a_repository_that_says_nothing_is_left_in_time(authority: Authority) -> None:
    """One that takes connections and never shakes hands."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(UpstreamError, match=r"no handshake in time|Timeout"),
    ):
        way_to(silent.getsockname()[1], authority, timeout_s=1).send(LINES)


def test_datagrams_carry_one_message_each(tmp_path: Path) -> None:
    """RFC 5426 3.1; a port where nobody listens is noticed, as far as the network says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        port = receiver.getsockname()[1]
        sink = UdpSyslog(Syslog(host="127.0.0.1", port=port, protocol="udp"))
        sink.send(LINES)
        assert [receiver.recv(70_000) for _ in LINES] == [line[:65_507] for line in LINES]
    with pytest.raises(UpstreamError, match="ConnectionRefusedError"):
        sink.send([b"first", b"second", b"third"])


def test_a_node_tells_a_repository_what_happened(tmp_path: Path, authority: Authority, repository: Any) -> None:
    """From the ledger through the spool over TLS; while it was away nothing was lost, nothing came twice."""
    found, away = repository(), free_port()
    certificate, key = authority.issue("node")
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    database.migrate()
    log = open_log(Logging(format="json"), b"key", StringIO())
    clock = [NOW - timedelta(seconds=30)]
    syslog = {"host": "127.0.0.1", "ca": authority.certificate, "certificate": certificate, "key": key}

    def begin(port: int) -> AuditTrail:
        settings = audited_settings(tmp_path, syslog=syslog | {"port": port}, site="HOSPITAL")
        trail = open_trail(settings, database, log, role="node", clock=lambda: clock[-1])
        assert trail is not None
        trail.start()
        trail.run_once()
        return trail

    first = begin(away)
    with database.write() as ledger:
        everything_happens(ledger)
    clock.append(NOW + timedelta(minutes=5))
    first.run_once()
    assert first.standing()["syslog"]["waiting"] == 18
    begin(found.port)
    wait_until("every message", lambda: len(found.received) >= 19, timeout_s=30)
    told = [read_line(line) for line in found.received]
    assert [each.type for each in told if each.event == "Application Activity"] == ["Application Start"] * 2
    assert len(told) == 19
    assert told[0].xml.find("AuditSourceIdentification").get("AuditEnterpriseSiteID") == "HOSPITAL"
    database.close()


@pytest.mark.peer
def test_openssl_reads_what_we_send(authority: Authority) -> None:
    """Another TLS than Python's own: handshake, mutual certificates, octets and goodbye."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("OpenSSL's command is not installed (Debian package openssl)")
    certificate, key = authority.issue("repository")
    port = free_port()
    command = [openssl, "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(certificate), "-key", str(key)]
    command += [
        "-CAfile",
        str(authority.certificate),
        "-Verify",
        "2",
        "-verify_return_error",
        "-quiet",
        "-naccept",
        "1",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until("openssl to listen", lambda: _sent(port, authority), timeout_s=30)
            out, _ = server.communicate(timeout=60)
        finally:
            server.kill()
    assert out == b"9 <85>1 one"


def _sent(port: int, authority: Authority) -> bool:
    try:
        way_to(port, authority).send([b"<85>1 one"])
    except UpstreamError:
        return False
    return True


@pytest.mark.peer
def test_a_ledger_on_postgresql_tells_the_same(tmp_path: Path) -> None:
    """Every query of the trail on a real server."""
    if not (PROGRAMS / "initdb").is_file() or shutil.which("runuser") is None:
        pytest.skip("PostgreSQL 15 is not installed (Debian package postgresql)")
    cluster = Cluster()
    told = []
    try:
        for url in (cluster.new_database(), f"sqlite:///{tmp_path / 'ledger.sqlite'}"):
            database = Database(url)
            database.migrate()
            teller = Teller(audited_settings(tmp_path), "node.example")
            with database.read() as ledger:
                positions = collect(teller, ledger, {}, NOW - timedelta(seconds=30)).positions
            with database.write() as ledger:
                everything_happens(ledger)
            with database.read() as ledger:
                found = collect(teller, ledger, positions, NOW + timedelta(minutes=5))
            told.append([fact.message for fact in found.facts])
            database.close()
    finally:
        cluster.stop()
    assert len(told[0]) == 17
    assert told[0] == told[1]
