"""The status page in a running node: it comes and goes with the node, and never stands in the way of reception."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
import requests
import yaml
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import time

from dicom_node.demo_pacs import free_port
from dicom_node.settings import load
from dicom_node.web.ask import ask
from tests.factories.peers import DICOM_NODE, wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A node with a status page, of whose users one has no token."""
    content = {
        "node": {"ae_title": "NODE", "port": free_port(), "data_dir": "data"},
        "receive": {"allow_unknown_peers": True, "min_free_disk_gb": 0.001},
        "tasks": ["glioma-recurrence"],
        "logging": {"format": "json"},
        "web": {
            "enabled": True,
            "port": free_port(),
            "users": [{"name": "keeper", "token_file": "token"}, {"name": "guest", "token_env": "NOT_SET_ANYWHERE"}],
        },
    }
    (tmp_path / "token").write_text("token-of-keeper-0123456789", encoding="utf-8")
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def answers_echo(port: int) -> bool:
    """Say whether the DICOM listener answers."""
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    if not association.is_established:
        return False
    status = association.send_c_echo().Status
    association.release()
    return bool(status == 0x0000)


def test_a_page_that_cannot_start_waits_and_reception_does_not(config: Path) -> None:
    """Its port is taken: the listener serves, the log says so; freed, the page comes, and goes with the node."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    dicom, url = content["node"]["port"], f"http://127.0.0.1:{content['web']['port']}"
    log = config.parent / "log"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", content["web"]["port"]))
        taken.listen()
        with log.open("wb") as stream:
            command = [*DICOM_NODE, "run", "--role", "listener", "--config", str(config)]
            node = subprocess.Popen(command, stdout=stream, stderr=stream)
        wait_until("the listener to answer", lambda: answers_echo(dicom))
        wait_until("the log to say that the page waits", lambda: b"web.failed" in log.read_bytes())
    try:
        wait_until("the page to be ready", lambda: _status(f"{url}/health/ready") == 200)
        assert _status(url) == 401
        found, good = ask(load(config).web)
        assert not good
        assert found.startswith(f"{url}: web.users guest: the environment variable NOT_SET_ANYWHERE")
        assert "token-of-keeper" not in found
    finally:
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):  # one of its other threads may take the second
            node.send_signal(number)
        assert node.wait(timeout=120) == 0
    assert _status(url) is None
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [each for each in lines if each["event"] == "web.started"]
    assert "token-of-keeper" not in log.read_text(encoding="utf-8")


def _status(url: str) -> int | None:
    try:
        return requests.get(url, timeout=5).status_code
    except requests.RequestException:
        return None
