"""DICOM TLS as configured: what is wrong is told by key, and the contexts are of the BCP 195 profile."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from dicom_node import tls
from dicom_node.cli import main
from dicom_node.errors import ConfigError
from dicom_node.observe import doctor
from dicom_node.receive import statuses
from dicom_node.receive.door import Door
from dicom_node.receive.files import InstanceFiles
from dicom_node.settings import Settings, load
from dicom_node.tls import Link, Shown
from dicom_node.tls_settings import Tls
from tests.factories.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.factories.certificates import Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority; what it has issued is not changed."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    """What the node shows."""
    return authority.issue("node")


@pytest.fixture
def section(authority: Authority, ours: Pair) -> dict[str, Any]:
    """The section `receive.tls` of a node that serves it."""
    return ours.as_settings(authority.ca, enabled=True)


def config(folder: Path, receive: dict[str, Any], **pacs_tls: Any) -> Path:
    """Write a configuration."""
    path = folder / "node.yaml"
    pacs = {"name": "main", "dimse": {"ae_title": "PACS", "host": "localhost", "port": 104, "tls": pacs_tls or None}}
    content = {
        "node": {"ae_title": "NODE", "data_dir": "data"},
        "receive": {"allow_unknown_peers": True, **receive},
        "pacs": [pacs],
        "tasks": ["glioma-recurrence"],
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def peer(**more: Any) -> dict[str, Any]:
    """Return the entry of a peer."""
    return {"ae_title": "CT", "hosts": ["192.0.2.1"], "default_issuer": "HOSPITAL", **more}


PATHS = {"certificate": "c.pem", "key": "k.pem", "ca": "ca.pem"}


@pytest.mark.parametrize(
    ("receive", "rule"),
    [
        ({"tls": {"enabled": True}}, "enabled: true needs certificate, key, ca"),
        ({"tls": {"certificate": "c.pem"}}, "certificate and key are given together"),
        ({"plain": False}, "plain: false needs tls.enabled: true"),
        ({"peers": [peer(tls="required")]}, "CT: tls: required needs tls.enabled: true"),
        ({"peers": [peer(certificate_identity="ct")]}, "certificate_identity needs tls: required"),
        ({"peers": [peer(tls="required", certificate_identity="sha256:12")]}, "64 hexadecimal digits"),
        ({"peers": [peer(rights=["move"])]}, "'store', 'echo' or 'commitment'"),
        ({"peers": [peer(rights=[])]}, "at least 1 item"),
        ({"peers": [peer(max_associations=0)]}, "greater than or equal to 1"),
        ({"tls": {"enabled": True, "port": 11112, **PATHS}}, "the plain and the secure port are two"),
        (
            {
                "peers": [peer(tls="required", certificate_identity="ct")],
                "tls": {"enabled": True, "mutual": False, **PATHS},
            },
            "certificate_identity needs tls.mutual: true",
        ),
    ],
)
def test_what_cannot_work_is_told(tmp_path: Path, receive: dict[str, Any], rule: str) -> None:
    """Before anything is served."""
    with pytest.raises(ConfigError, match=rule):
        load(config(tmp_path, receive))


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """Those of the listener and those of an archive."""
    found = load(config(tmp_path, {"tls": {"enabled": True, **PATHS}}, ca="ca.pem"))
    assert found.receive.tls.key == tmp_path / "k.pem"
    assert found.pacs[0].dimse is not None
    assert found.pacs[0].dimse.tls is not None
    assert found.pacs[0].dimse.tls.ca == tmp_path / "ca.pem"


def test_good_files_are_no_problem(
    tmp_path: Path, authority: Authority, ours: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a passphrase from the environment too."""
    locked = authority.issue("locked", passphrase="of four words").as_settings(authority.ca)
    receive = {"tls": ours.as_settings(authority.ca, enabled=True)}
    settings = load(config(tmp_path, receive, key_passphrase_env="NODE_TEST_PASSPHRASE", **locked))
    assert tls.problems(settings) == [
        "pacs.0.dimse.tls.key_passphrase_env = 'NODE_TEST_PASSPHRASE': this variable is not set"
    ]
    monkeypatch.setenv("NODE_TEST_PASSPHRASE", "of five words")
    assert "passphrase (key_passphrase_env) is missing or wrong" in tls.problems(settings)[0]
    monkeypatch.setenv("NODE_TEST_PASSPHRASE", "of four words")
    assert tls.problems(settings) == []


@pytest.mark.parametrize(
    ("key", "content", "rule"),
    [
        ("certificate", None, "cannot be read: No such file"),
        ("certificate", "-----BEGIN NOTHING-----", "not a certificate in PEM form"),
        ("ca", "hello", "not a certificate in PEM form"),
        ("key", None, "cannot be read: No such file"),
        ("key", "hello", "not a private key in PEM form"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_by_its_key(
    tmp_path: Path, section: dict[str, Any], key: str, content: str | None, rule: str
) -> None:
    """And nothing else is."""
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_text(content, encoding="ascii")
    settings = load(config(tmp_path, {"tls": section | {key: str(path)}}))
    (line,) = tls.problems(settings)
    assert line.startswith(f"receive.tls.{key} = {str(path)!r}: {rule}")


def test_check_refuses_the_key_of_another_certificate(tmp_path: Path, authority: Authority, ours: Pair) -> None:
    """With exit code 2, as for every wrong configuration."""
    other = authority.issue("other")
    path = config(tmp_path, {}, **ours.as_settings(authority.ca) | {"key": str(other.key)})
    done = CliRunner().invoke(main, ["check", "--config", str(path)])
    assert done.exit_code == 2
    assert f"pacs.0.dimse.tls.key = {str(other.key)!r}: is not the key of pacs.0.dimse.tls.certificate" in done.output


def test_only_the_suites_of_the_profile_are_offered(authority: Authority, ours: Pair) -> None:
    """PS3.15 B.12, RFC 9325 4.2; those of TLS 1.3 are all of the kind."""
    context = tls.server_context(Tls.model_validate(ours.as_settings(authority.ca, enabled=True)))
    offered = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert offered == list(tls.SUITES)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_sender_that_knows_no_tls_1_3_gets_forward_secrecy(authority: Authority, kind: str) -> None:
    """With either kind of key; and a certificate is known by its names, in any case of letters, and its fingerprint."""
    ours, peer = authority.issue("node-of-kind", kind=kind), authority.issue("CT.Example")
    server = tls.server_context(Tls.model_validate(ours.as_settings(authority.ca, enabled=True)))
    client = ssl.create_default_context(cafile=authority.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.load_cert_chain(peer.certificate, peer.key)
    near, far = socket.socketpair()
    with server.wrap_socket(near, server_side=True, do_handshake_on_connect=False) as accepted:
        serving = threading.Thread(target=tls.handshake, args=(accepted, 30))
        serving.start()
        with client.wrap_socket(far, server_hostname="localhost") as secured:
            serving.join()
            assert secured.version() == "TLSv1.2"
            cipher = secured.cipher()
            assert cipher is not None
            assert cipher[0] in tls.SUITES
            link = tls.link(accepted)
    assert link.secure
    assert link.shown is not None
    assert link.shown.is_known_as("ct.example")
    assert link.shown.is_known_as("localhost")
    assert link.shown.is_known_as(peer.fingerprint)
    assert not link.shown.is_known_as(ours.fingerprint)
    assert not link.shown.is_known_as("example")


def test_doctor_compares_what_the_secure_port_shows(authority: Authority, ours: Pair) -> None:
    """With what the file holds; a port that nobody serves is no answer."""
    other = authority.issue("another")
    server = tls.server_context(Tls.model_validate(ours.as_settings(authority.ca, enabled=True)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        threading.Thread(target=_greet, args=(listening, server, 2), daemon=True).start()
        right, wrong = (
            doctor._secure_port(
                Tls.model_validate(each.as_settings(authority.ca, enabled=True, port=port)), "127.0.0.1"
            )
            for each in (ours, other)
        )
    assert right.good
    assert not wrong.good
    assert "another certificate is shown" in wrong.found
    away = doctor._secure_port(Tls.model_validate(ours.as_settings(authority.ca, enabled=True, port=port)), "127.0.0.1")
    assert not away.good
    assert "ConnectionRefusedError" in away.found


def _greet(listening: socket.socket, context: ssl.SSLContext, times: int) -> None:
    """Shake hands so many times."""
    for _ in range(times):
        connection, _ = listening.accept()
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)


def test_an_archive_called_over_tls_must_call_us_so(authority: Authority, ours: Pair) -> None:
    """Unless it stands among the peers, where the site says what it wants of it."""
    section = ours.as_settings(authority.ca, certificate_identity=ours.fingerprint)
    archive = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "tls": section}
    content = {
        "node": {"ae_title": "NODE", "data_dir": "."},
        "receive": {"allow_unknown_peers": True, "tls": ours.as_settings(authority.ca, enabled=True)},
        "pacs": [{"name": "main", "dimse": archive, "storage_commitment": True}],
        "tasks": ["glioma-recurrence"],
    }
    door = _door(content)
    assert door.rejection("PACS", "NODE", "127.0.0.1") is statuses.WITHOUT_TLS
    assert door.rejection("PACS", "NODE", "127.0.0.1", Link(secure=True)) is statuses.WRONG_CERTIFICATE
    shown = Shown(fingerprint=ours.fingerprint, names=frozenset(), ends=datetime.now(UTC))
    assert door.rejection("PACS", "NODE", "127.0.0.1", Link(secure=True, shown=shown)) is None
    assert door.rejection("SOMEBODY", "NODE", "127.0.0.1", Link(secure=True, shown=shown)) is statuses.WRONG_CERTIFICATE
    assert door.rights("PACS") == {"store", "echo", "commitment"}
    assert door.rights("SOMEBODY") == {"store", "echo"}
    content["receive"]["peers"] = [peer(ae_title="PACS", hosts=["127.0.0.1"], rights=["echo"])]
    door = _door(content)
    assert door.rejection("PACS", "NODE", "127.0.0.1") is None
    assert door.rights("PACS") == {"echo", "commitment"}


def _door(content: dict[str, Any]) -> Door:
    """Return the door of a node whose disk has room."""
    settings = Settings.model_validate(content)
    receive = settings.receive.model_copy(update={"min_free_disk_gb": 0})
    return Door(settings.model_copy(update={"receive": receive}), InstanceFiles(settings.node.data_dir))
