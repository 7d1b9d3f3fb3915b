"""The secure port: who shows which certificate gets in, with DCMTK's own tools, and nobody holds anybody up."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import arrivals, presence
from dicom_node.ledger.database import Database
from dicom_node.observe.logs import open_log
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.listener import Listener
from dicom_node.receive.secure_port import MOST_FROM_ONE_ADDRESS
from dicom_node.settings import Logging, Settings
from tests.factories.certificates import Authority
from tests.factories.mr import classic_series, write
from tests.factories.peers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetdicom.association import Association

    from tests.factories.certificates import Pair

NODE = "TEMPORALNODE"


def peer(ae_title: str, **more: Any) -> dict[str, Any]:
    """Return the entry of a peer on this machine."""
    return {"ae_title": ae_title, "hosts": ["127.0.0.0/8"], "default_issuer": "HOSPITAL", **more}


class SecureNode:
    """A listener in this process, with a plain and a secure port."""

    def __init__(self, folder: Path, receive: dict[str, Any]) -> None:
        self.settings = Settings.model_validate(
            {
                "node": {"ae_title": NODE, "port": free_port(), "data_dir": folder},
                "receive": {"min_free_disk_gb": 0, **receive},
                "tasks": ["glioma-recurrence"],
            }
        )
        folder.mkdir()
        self.log_path = folder / "log.jsonl"
        self.log_file = self.log_path.open("w", encoding="utf-8")
        self.database = Database(self.settings.ledger_url)
        self.database.migrate()
        files = InstanceFiles(folder / "instances")
        files.prepare()
        log = open_log(Logging(format="json"), b"key", self.log_file)
        self.listener = Listener(self.settings, self.database, files, log)
        self.listener.start()

    def close(self) -> None:
        """Stop listening and give everything back."""
        self.listener.stop()
        self.database.close()
        self.log_file.close()

    @property
    def port(self) -> int:
        """The plain port."""
        return self.settings.node.port

    @property
    def secure_port(self) -> int:
        """The secure port."""
        return self.settings.receive.tls.port

    def refusals(self) -> Counter[str]:
        """Return how often somebody was refused, by reason."""
        with self.database.read() as ledger:
            found: Counter[str] = Counter()
            for each in presence.refusals(ledger):
                found[str(each["reason"])] += int(str(each["count"]))
            return found

    def wait_for_refusal(self, reason: str, count: int = 1) -> None:
        """Wait until a refusal was counted."""
        wait_until(f"{reason} to be counted", lambda: self.refusals().get(reason) == count, timeout_s=30, every_s=0.05)

    def stored(self) -> int:
        """Return how many instances arrived."""
        with self.database.read() as ledger:
            return sum(arrivals.counts_by_state(ledger).values())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The one that the node believes."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def make(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., SecureNode]]:
    """Make nodes with a secure port and these keys of `receive` and `receive.tls`."""
    made: list[SecureNode] = []
    node = authority.issue("node")

    def make_node(*peers: dict[str, Any], tls: dict[str, Any] | None = None, **receive: Any) -> SecureNode:
        section = node.as_settings(authority.ca, enabled=True, port=free_port()) | (tls or {})
        everybody = peers or (peer("SCANNER1"),)
        found = SecureNode(tmp_path / f"node-{len(made)}", {"peers": everybody, "tls": section, **receive})
        made.append(found)
        return found

    yield make_node
    for each in made:
        each.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """One MR instance."""
    return write(classic_series(np.zeros((1, 8, 8), dtype=np.uint16), np.eye(4)), tmp_path / "image")[0]


def run(tool: str, port: int, *arguments: str, calling: str = "SCANNER1", send: Path | None = None) -> int:
    """Run one of DCMTK's SCUs and return its exit code."""
    command = [f"/usr/bin/{tool}", "-aet", calling, "-aec", NODE, "-to", "20", *arguments, "127.0.0.1", str(port)]
    environment = os.environ | {"TCP_NODELAY": "1"}
    done = subprocess.run(
        [*command, *([str(send)] if send else [])], capture_output=True, check=False, env=environment, timeout=120
    )
    return done.returncode


def associate(port: int, calling: str = "SCANNER1", *, tls_args: Any = None) -> Association:
    """Call with C-ECHO and MR proposed."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(Verification)
    ae.add_requested_context(MRImageStorage)
    return ae.associate("127.0.0.1", port, ae_title=NODE, tls_args=tls_args)


def client_context(authority: Authority, pair: Pair | None) -> ssl.SSLContext:
    """Return what a careful sender would use."""
    context = ssl.create_default_context(cafile=authority.ca)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
@pytest.mark.parametrize(("engine", "profile"), [("fast", "+py"), ("stock", "+px"), ("fast", "+pz")])
def test_a_sender_with_a_certificate_echoes_and_stores(
    make: Callable[..., SecureNode], authority: Authority, image: Path, engine: str, profile: str
) -> None:
    """In each of the BCP 195 profiles that DCMTK 3.6.7 knows: non-downgrading, plain, extended; with either engine."""
    node = make(peer("SCANNER1", tls="required"), engine=engine)
    scanner = [*authority.issue("scanner", kind="ec" if profile == "+py" else "rsa").as_dcmtk(authority.ca), profile]
    assert run("echoscu", node.secure_port, *scanner) == 0
    assert run("storescu", node.secure_port, *scanner, send=image) == 0
    assert node.stored() == 1
    assert node.refusals() == {}


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_a_sender_without_a_certificate_is_refused_and_counted(
    make: Callable[..., SecureNode], authority: Authority, image: Path
) -> None:
    """Encrypted is not enough."""
    node = make()
    assert run("storescu", node.secure_port, "+tla", "-ic", send=image) != 0
    node.wait_for_refusal("tls: peer did not return a certificate")
    assert node.stored() == 0


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_a_certificate_of_another_authority_is_refused_and_counted(
    make: Callable[..., SecureNode], authority: Authority, image: Path, tmp_path: Path
) -> None:
    """Even one of the same name."""
    node = make()
    stranger = Authority(tmp_path / "stranger").issue("scanner")
    assert run("storescu", node.secure_port, *stranger.as_dcmtk(authority.ca), send=image) != 0
    wait_until("a refusal", node.refusals, timeout_s=30, every_s=0.05)
    assert set(node.refusals()) <= {
        "tls: unable to get local issuer certificate",
        "tls: certificate signature failure",
    }
    assert node.stored() == 0


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_an_expired_certificate_is_refused_and_counted(
    make: Callable[..., SecureNode], authority: Authority, image: Path
) -> None:
    """By an hour."""
    node = make()
    expired = authority.issue("scanner", days=-1 / 24)
    assert run("storescu", node.secure_port, *expired.as_dcmtk(authority.ca), send=image) != 0
    node.wait_for_refusal("tls: certificate has expired")
    assert node.stored() == 0


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_the_suites_of_the_retired_aes_profile_are_refused(
    make: Callable[..., SecureNode], authority: Authority, image: Path
) -> None:
    """TLS_RSA_WITH_AES_128_CBC_SHA: no forward secrecy, and padding to attack."""
    node = make()
    scanner = authority.issue("scanner", kind="rsa")
    arguments = [*scanner.as_dcmtk(authority.ca), "+pa"]
    context = client_context(authority, scanner)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", node.secure_port), 20) as connection:
        context.wrap_socket(connection, server_hostname="127.0.0.1")
    node.wait_for_refusal("tls: no shared cipher")
    assert run("echoscu", node.secure_port, *arguments) in {0, 1}  # DCMTK may offer better ones beside it
    assert node.stored() == 0


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_older_versions_of_tls_are_refused(make: Callable[..., SecureNode], authority: Authority, version: str) -> None:
    """RFC 8996: they must not be negotiated, whatever the peer would like."""
    node = make()
    context = client_context(authority, authority.issue("scanner", kind="rsa"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion[version]
        context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
        socket.create_connection(("127.0.0.1", node.secure_port), 20) as connection,
    ):
        context.wrap_socket(connection, server_hostname="127.0.0.1")
    node.wait_for_refusal("tls: unsupported protocol")


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_a_plain_sender_is_refused_where_tls_is_required(
    make: Callable[..., SecureNode], authority: Authority, image: Path
) -> None:
    """Its title alone; a peer that may choose still comes over the plain port."""
    node = make(peer("SCANNER1", tls="required"), peer("SCANNER2"))
    assert run("storescu", node.port, send=image) != 0
    node.wait_for_refusal("plain-connection-where-tls-is-required")
    assert run("storescu", node.port, calling="SCANNER2", send=image) == 0
    assert run("echoscu", node.secure_port) != 0  # plain DICOM on the secure port
    assert node.stored() == 1


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
@pytest.mark.parametrize("by", ["name", "fingerprint"])
def test_nobody_may_claim_the_title_of_another_certificate(
    make: Callable[..., SecureNode], authority: Authority, image: Path, by: str
) -> None:
    """Nor may who is known by a certificate use it under a title that is not its own."""
    first, second = authority.issue("ct1.example"), authority.issue("ct2.example")
    identity = "CT1.example" if by == "name" else first.fingerprint.upper().replace("SHA256", "sha256")
    node = make(peer("SCANNER1", tls="required", certificate_identity=identity), peer("SCANNER2"))
    assert run("storescu", node.secure_port, *second.as_dcmtk(authority.ca), send=image) != 0
    node.wait_for_refusal("calling-ae-title-with-another-certificate")
    assert run("storescu", node.secure_port, *first.as_dcmtk(authority.ca), calling="SCANNER2", send=image) != 0
    node.wait_for_refusal("calling-ae-title-with-another-certificate", 2)
    assert node.stored() == 0
    assert run("storescu", node.secure_port, *first.as_dcmtk(authority.ca), send=image) == 0
    assert run("storescu", node.secure_port, *second.as_dcmtk(authority.ca), calling="SCANNER2", send=image) == 0
    assert node.stored() == 2


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_who_opens_the_secure_port_and_says_nothing_holds_nobody_up(
    make: Callable[..., SecureNode], authority: Authority, image: Path
) -> None:
    """Others go on while all of these are still waited for."""
    node = make(tls={"handshake_timeout_s": 60})
    scanner = authority.issue("scanner").as_dcmtk(authority.ca)
    silent = [socket.create_connection(("127.0.0.1", node.secure_port)) for _ in range(8)]
    for each in silent[:4]:
        each.sendall(b"\x16\x03\x01")  # the first bytes of a record that never comes
    assert run("storescu", node.secure_port, *scanner, send=image) == 0
    assert node.stored() == 1
    assert node.refusals() == {}
    for each in silent:
        each.close()
    wait_until("all to be counted", lambda: node.refusals().total() == len(silent), timeout_s=30, every_s=0.05)


def test_a_handshake_that_drips_has_an_end(make: Callable[..., SecureNode]) -> None:
    """The limit is for the whole of it, not for each byte."""
    node = make(tls={"handshake_timeout_s": 1})
    with socket.create_connection(("127.0.0.1", node.secure_port)) as dripping:
        dripping.settimeout(0.1)
        deadline = time.monotonic() + 30
        ended = False
        dripping.sendall(b"\x16\x03\x01\x40\x00")  # a record of 16 KB
        while not ended and time.monotonic() < deadline:
            try:
                dripping.sendall(b"\x00")
                ended = dripping.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
    assert ended
    node.wait_for_refusal("tls: no handshake in time")


def test_one_address_cannot_have_every_handshake(make: Callable[..., SecureNode], authority: Authority) -> None:
    """Beyond its share it is hung up on at once, and another address still gets in."""
    node = make(tls={"handshake_timeout_s": 60})
    silent = [socket.create_connection(("127.0.0.1", node.secure_port)) for _ in range(MOST_FROM_ONE_ADDRESS)]
    with socket.create_connection(("127.0.0.1", node.secure_port), timeout=30) as one_more:
        assert one_more.recv(1) == b""
    assert "too-many-tls-handshakes" in node.log_path.read_text(encoding="utf-8")
    context = client_context(authority, authority.issue("scanner"))
    elsewhere = socket.create_connection(("127.0.0.1", node.secure_port), 30, source_address=("127.0.0.2", 0))
    with context.wrap_socket(elsewhere, server_hostname="127.0.0.1") as secured:
        assert secured.version() == "TLSv1.3"
    for each in silent:
        each.close()


def test_the_plain_port_can_be_switched_off(make: Callable[..., SecureNode], authority: Authority) -> None:
    """Then only the secure port answers."""
    node = make(plain=False)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", node.port)) != 0
    context = client_context(authority, authority.issue("scanner"))
    association = associate(node.secure_port, tls_args=(context, "127.0.0.1"))
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_a_renewed_certificate_is_shown_without_a_restart(
    make: Callable[..., SecureNode], authority: Authority
) -> None:
    """And while new files cannot be used, the old ones still serve."""
    node = make()
    context = client_context(authority, authority.issue("scanner"))

    def shown() -> bytes:
        with socket.create_connection(("127.0.0.1", node.secure_port), 30) as connection:
            return context.wrap_socket(connection, server_hostname="127.0.0.1").getpeercert(binary_form=True) or b""

    first = shown()
    ours = authority.folder / "node.pem"
    ours.write_bytes(b"half of a file")
    assert shown() == first
    authority.issue("node")
    renewed = shown()
    assert renewed == ssl.PEM_cert_to_DER_cert(ours.read_text(encoding="ascii"))
    assert renewed != first
    log = node.log_path.read_text(encoding="utf-8")
    assert "certificate.failed" in log
    assert "certificate.loaded" in log


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_a_peer_gets_only_what_it_has_a_right_to(make: Callable[..., SecureNode], image: Path) -> None:
    """Presentation contexts of other services are refused, and counted by service."""
    node = make(peer("ECHOES", rights=["echo"]), peer("STORES", rights=["store"]), peer("SCANNER1"))
    assert run("storescu", node.port, calling="ECHOES", send=image) != 0
    assert run("echoscu", node.port, calling="STORES") != 0
    node.wait_for_refusal("no-right-to-store")
    node.wait_for_refusal("no-right-to-echo")
    assert node.stored() == 0
    assert run("echoscu", node.port, calling="ECHOES") == 0
    assert run("storescu", node.port, calling="STORES", send=image) == 0
    assert run("storescu", node.port, send=image) == 0
    assert node.stored() == 2


def test_a_peer_may_have_no_more_associations_than_its_own_limit(make: Callable[..., SecureNode]) -> None:
    """Rejected for the moment (2, 3, 2: local limit exceeded, PS3.8 9.3.4); others are not touched by it."""
    node = make(peer("SCANNER1", max_associations=1), peer("SCANNER2"))
    first = associate(node.port)
    assert first.is_established
    second = associate(node.port)
    assert second.is_rejected
    answer = second.acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    node.wait_for_refusal("too-many-associations-of-this-peer")
    other = associate(node.port, "SCANNER2")
    assert other.is_established
    other.release()
    for _ in range(3):  # its place is free again the moment it is released
        first.release()
        first = associate(node.port)
        assert first.is_established
    first.release()
